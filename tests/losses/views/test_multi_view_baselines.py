import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import dense, reference

SCALE = 4.0


def draw(views):
  return reference.unit(np.random.default_rng(0), 5, views, 4)


def test_with_two_views_all_are_nt_xent():
  @jax.jit
  def every(views):
    return (
      losses.pairwise_nt_xent(views, scale=SCALE),
      losses.averaged_nt_xent(views, scale=SCALE),
      losses.poly_view(views, scale=SCALE),
      losses.poly_view(views, scale=SCALE, mean='arithmetic'),
      dense.nt_xent(views[:, 0], views[:, 1], SCALE).mean(),
    )

  *found, expected = every(draw(2))
  np.testing.assert_allclose(found, np.full(4, expected), rtol=1e-5)


def test_the_arithmetic_mean_of_positives_costs_less():
  views = draw(4)

  @jax.jit
  def every(views):
    found = losses.poly_view(views, scale=SCALE, mean='arithmetic')
    return found, dense.poly_view(views, SCALE, 'arithmetic'), dense.poly_view(views, SCALE)

  found, expected, geometric = map(float, every(views))
  assert found == pytest.approx(expected, rel=1e-5)
  assert found < geometric - 0.01
  with pytest.raises(ValueError, match="mean = 'harmonic'; use one of"):
    losses.poly_view(views, scale=SCALE, mean='harmonic')
