import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.tokens.restoration import cosine_of_positions

DRAWN = np.random.default_rng(0)
FEATURES = [DRAWN.normal(size=(3, 4, 4, 6)), DRAWN.normal(size=(3, 2, 2, 8))]
NEAR = [np.stack([f + 0.1 * DRAWN.normal(size=f.shape) for _ in range(2)]) for f in FEATURES]
FAR = [DRAWN.normal(size=(5, *f.shape)) for f in FEATURES]


def dense(features, positives, negatives):
  def similarity(x, y):
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return np.mean((x * y).sum(-1) / lengths)

  terms = []
  for own, near, far in zip(features, positives, negatives, strict=True):
    for image in range(len(own)):
      others = sum(np.exp(similarity(own[image], each[image])) for each in far)
      for each in near:
        score = np.exp(similarity(own[image], each[image]))
        terms.append((len(own) * len(near), -np.log(score / (score + others))))
  return sum(term / count for count, term in terms) / len(features)


def test_it_is_the_mean_over_layers_images_and_positives():
  with jax.enable_x64(True):
    found = losses.restoration(FEATURES, NEAR, FAR)
  np.testing.assert_allclose(found, dense(FEATURES, NEAR, FAR), rtol=1e-12)


@pytest.mark.parametrize('cosine', [0.0, 0.6])
def test_a_perfect_restoration_beside_k_negatives_costs_log_one_plus_k(cosine):
  x = np.zeros((2, 3, 3, 2))
  x[..., 0] = 1
  far = np.broadcast_to([cosine, (1 - cosine**2) ** 0.5], (4, *x.shape))
  found = losses.restoration([x], [x[None]], [far])
  np.testing.assert_allclose(found, np.log(1 + 4 * np.exp(cosine - 1)), rtol=1e-6)


def test_only_the_restored_image_has_a_gradient():
  of = jax.grad(lambda *features: losses.restoration(*features), (0, 1, 2))
  own, near, far = of([jnp.asarray(f) for f in FEATURES], NEAR, FAR)
  assert all(np.abs(leaf).max() > 0 for leaf in own)
  assert all(np.abs(leaf).max() == 0 for leaf in (*near, *far))


def test_a_map_of_zeros_has_a_finite_gradient():
  gradient = jax.grad(lambda x: losses.restoration([x], NEAR[:1], FAR[:1]))(0 * FEATURES[0])
  assert np.isfinite(gradient).all()


def test_the_gradient_in_bfloat16_is_that_of_float32():
  x = DRAWN.normal(size=(2, 64, 64, 8)).astype(jnp.bfloat16)
  near, far = (DRAWN.normal(size=(3, *x.shape)).astype(jnp.bfloat16) for _ in range(2))
  of = jax.grad(lambda x, near, far: losses.restoration([x], [near], [far]))
  found, expected = (
    np.float32(of(*(jnp.asarray(z, dtype) for z in (x, near, far))))
    for dtype in (jnp.bfloat16, jnp.float32)
  )
  assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)


def test_cosines_ignore_lengths():
  x, y = FEATURES[0], FAR[0][0]
  np.testing.assert_allclose(
    cosine_of_positions(3 * x, 5 * y), cosine_of_positions(x, y), rtol=1e-6
  )


@pytest.mark.parametrize(
  ('features', 'near', 'far', 'message'),
  [
    ([], [], [], '0, 0 and 0 layers'),
    (FEATURES, NEAR[:1], FAR, '2, 1 and 2 layers'),
    (FEATURES[:1], NEAR[1:], FAR[:1], r'features \(3, 4, 4, 6\) and positives'),
    (FEATURES[:1], NEAR[:1], [FAR[0][:0]], 'and negatives .* N over 0'),
  ],
)
def test_shapes_that_do_not_match_are_refused(features, near, far, message):
  with pytest.raises(ValueError, match=message):
    losses.restoration(features, near, far)
