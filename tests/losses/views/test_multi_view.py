"""MV-InfoNCE and MV-DHEL: closed forms, and what they reduce to; in float64."""

import math

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import dense, reference

B, V, D, SCALE = 5, 3, 5, 4.0


@pytest.fixture(autouse=True)
def wide():
  with jax.enable_x64(True):
    yield


def draw(views=V):
  return np.float64(reference.unit(np.random.default_rng(0), B, views, D))


@jax.jit
def both(views):
  return losses.mv_info_nce(views, scale=SCALE), losses.mv_dhel(views, scale=SCALE)


def test_identical_orthonormal_views():
  mv_info_nce, mv_dhel = both(np.stack([np.eye(B)] * V, 1))
  expected = math.log(1 + V * (B - 1) / (V - 1) * math.exp(-SCALE))
  assert mv_info_nce == pytest.approx(expected, rel=1e-9)
  expected = V * math.log(B - 1) - math.log(V * (V - 1) / 2) - SCALE
  assert mv_dhel == pytest.approx(expected, rel=1e-9)


def test_two_views():
  """MV-DHEL is DHEL. MV-InfoNCE is over NT-Xent, which it equals on a simplex alone."""

  @jax.jit
  def all_three(views):
    return *both(views), losses.nt_xent(views[:, 0], views[:, 1], scale=SCALE)

  views = draw(2)
  within = np.exp(SCALE * np.einsum('ivd,jvd->vij', views, views)) * (1 - np.eye(B))
  positive = SCALE * np.sum(views[:, 0] * views[:, 1], 1)
  mv_info_nce, mv_dhel, nt_xent = all_three(views)
  assert mv_dhel == pytest.approx(np.mean(np.log(within.sum(2)).sum(0) - positive), rel=1e-9)
  assert mv_info_nce > nt_xent + 1e-4
  mv_info_nce, _, nt_xent = all_three(np.stack([np.eye(B)] * 2, 1))
  assert mv_info_nce == pytest.approx(float(nt_xent), rel=1e-9)


def test_views_may_be_permuted():
  views = draw()
  np.testing.assert_allclose(both(views[:, [2, 0, 1]]), both(views), rtol=1e-9)


def test_denominators_of_mv_dhel_are_of_one_view_each():
  """A rotation of one view keeps its products, and changes the positives alone."""
  views = draw()
  rotated = views.copy()
  rotated[:, 1] @= np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))[0]

  def denominators(views):
    own, others = dense.own_scores(views, SCALE)
    positive = np.log(np.sum(np.exp(own), (1, 2), where=others) / 2)
    return float(both(views)[1] + np.mean(positive))

  assert abs(both(rotated)[1] - both(views)[1]) > 1e-3
  assert denominators(rotated) == pytest.approx(denominators(views), rel=1e-9)


def test_one_example():
  one = draw()[:1]
  assert jax.jit(losses.mv_info_nce)(one, scale=SCALE) == pytest.approx(0, abs=1e-9)
  with pytest.raises(ValueError, match=r'views \(1, 3, 5\) has one example'):
    losses.mv_dhel(one, scale=SCALE)
