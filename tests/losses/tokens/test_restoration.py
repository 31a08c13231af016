import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.tokens.restoration import cosine_of_positions

DRAWN = np.random.default_rng(0)
FEATURES = DRAWN.normal(size=(3, 4, 4, 6))
NEAR, FAR = DRAWN.normal(size=(2, *FEATURES.shape)), DRAWN.normal(size=(5, *FEATURES.shape))

slopes = jax.jit(jax.grad(losses.restoration, (0, 1, 2)))


@pytest.mark.parametrize('cosine', [0.0, 0.6])
def test_a_perfect_restoration_beside_k_negatives_costs_log_one_plus_k(cosine):
  x = np.zeros((2, 3, 3, 2))
  x[..., 0] = 1
  far = np.broadcast_to([cosine, (1 - cosine**2) ** 0.5], (4, *x.shape))
  found = jax.jit(losses.restoration)(x, x[None], far)
  np.testing.assert_allclose(found, np.log(1 + 4 * np.exp(cosine - 1)), rtol=1e-6)


def test_only_the_restored_image_has_a_gradient():
  own, near, far = slopes(FEATURES, NEAR, FAR)
  assert np.abs(own).max() > 0 and not near.any() and not far.any()


def test_a_map_of_zeros_has_a_finite_gradient():
  assert np.isfinite(slopes(0 * FEATURES, NEAR, FAR)[0]).all()


def test_cosines_ignore_lengths():
  found = cosine_of_positions(3 * FEATURES, 5 * FAR[0])
  np.testing.assert_allclose(found, cosine_of_positions(FEATURES, FAR[0]), rtol=1e-6)


def test_without_a_negative_it_is_refused():
  with pytest.raises(ValueError, match=r'and negatives .* N over 0'):
    losses.restoration(FEATURES, NEAR, FAR[:0])
