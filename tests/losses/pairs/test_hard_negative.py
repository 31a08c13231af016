import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


@pytest.mark.parametrize('batch', [1, 2, 7])
def test_with_every_negative_it_is_info_nce(batch):
  image, text = reference.unit(np.random.default_rng(0), 2, batch, 4)
  value, gradient = jax.value_and_grad(losses.hard_negative)(image, text, scale=6.0)
  expected, slope = jax.value_and_grad(losses.info_nce)(image, text, scale=6.0)
  np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(gradient, slope, atol=1e-5)


def test_more_negatives_cost_more():
  image, text = reference.unit(np.random.default_rng(0), 2, 9, 4)
  by_k = [losses.hard_negative(image, text, scale=6.0, k=k) for k in (1, 2, 4, 8)]
  assert by_k == sorted(by_k)
