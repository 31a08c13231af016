import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def test_it_is_two_less_twice_the_cosine():
  image, text = reference.unit(np.random.default_rng(0), 2, 9, 4)
  expected = np.mean(2 - 2 * np.sum(image * text, axis=1))
  np.testing.assert_allclose(losses.alignment(image, text), expected, rtol=1e-5)


def test_it_is_zero_only_where_positives_coincide():
  image, text = reference.unit(np.random.default_rng(0), 2, 9, 4)
  assert losses.alignment(image, image) == 0
  assert losses.alignment(image, text) > 0
  assert losses.alignment(image, -image) == pytest.approx(4, rel=1e-5)


def test_mismatches_are_refused():
  with pytest.raises(ValueError, match=r'image \(3, 4\) and text \(4, 4\)'):
    losses.alignment(jnp.ones((3, 4)), jnp.ones((4, 4)))
