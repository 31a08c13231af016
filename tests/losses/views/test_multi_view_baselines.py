import functools

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
    )

  views = draw(2)
  expected = np.mean(dense.nt_xent(views[:, 0], views[:, 1], SCALE))
  np.testing.assert_allclose(every(views), np.full(4, expected), rtol=1e-5)


def test_the_arithmetic_mean_of_positives_costs_less():
  views = draw(4)
  arithmetic = functools.partial(losses.poly_view, scale=SCALE, mean='arithmetic')
  found = jax.jit(arithmetic)(views)
  assert found == pytest.approx(float(dense.poly_view(views, SCALE, 'arithmetic')), rel=1e-5)
  assert found < dense.poly_view(views, SCALE) - 0.01
  with pytest.raises(ValueError, match="mean = 'harmonic'; use one of"):
    losses.poly_view(views, scale=SCALE, mean='harmonic')
