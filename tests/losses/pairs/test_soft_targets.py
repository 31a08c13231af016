import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def drawn(batch=7):
  return reference.unit(np.random.default_rng(0), 2, batch, 4)


def test_without_soft_targets_it_is_info_nce():
  image, text = drawn()
  options = {'scale': 6.0, 'same': np.array([0, 0, 0, 1, 2, 2, 3])}
  value = losses.soft_target_info_nce_per_example(image, text, alpha=0.0, **options)
  expected = losses.info_nce_per_example(image, text, **options)
  np.testing.assert_array_equal(value, expected)


def test_targets_that_the_images_meet_are_a_minimum():
  """The loss is then the entropy of the targets, and the images have no gradient."""
  _, text = drawn()
  step = jax.value_and_grad(losses.soft_target_info_nce, (0, 1))
  value, gradients = step(text, text, scale=6.0)
  target = reference.softmax(6 * np.float64(text @ text.T), 1)
  assert value == pytest.approx(-np.mean(np.sum(target * np.log(target), 1)), rel=1e-5)
  np.testing.assert_allclose(gradients, np.zeros_like(gradients), atol=1e-5)


def test_apart_and_sharp_targets_are_the_pairs():
  image, text = drawn()
  value = losses.soft_target_info_nce(
    image, text, scale=6.0, targets=jnp.eye(7), target_scale=100.0
  )
  np.testing.assert_allclose(value, losses.info_nce(image, text, scale=6.0), rtol=1e-5)


@pytest.mark.parametrize('alpha', [-0.1, 1.5, float('nan')])
def test_a_share_out_of_range_is_refused(alpha):
  with pytest.raises(ValueError, match=r'alpha = .*; use a number in \[0, 1\]'):
    losses.soft_target_info_nce(jnp.eye(2), jnp.eye(2), scale=1.0, alpha=alpha)
