"""Laws of volumes, and of the loss that contrasts them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.pairs.gram import gram_negatives
from tests.losses import dense, reference

B, D = 6, 5


def draw(k, seed=0):
  rng = np.random.default_rng(seed)
  return [reference.unit(rng, B, D) for _ in range(k)]


def rotation():
  return np.linalg.qr(np.random.default_rng(1).normal(size=(D, D)))[0].astype('f')


@pytest.mark.parametrize('k', [2, 3, 4])
def test_a_volume_has_no_signs_no_order_and_no_axes(k):
  volume, vectors = jax.jit(losses.volume), draw(k)
  found = volume(*vectors)
  flipped = [vectors[0], -vectors[1], *vectors[2:]]
  rotated = [part @ rotation() for part in vectors]
  for same in (flipped, vectors[::-1], rotated):
    np.testing.assert_allclose(volume(*same), found, rtol=1e-5)
  np.testing.assert_allclose(volume(*[2 * part for part in vectors]), 2**k * found, rtol=1e-4)
  orthonormal = [np.tile(np.eye(D, dtype='f')[m], (B, 1)) for m in range(k)]
  np.testing.assert_allclose(volume(*orthonormal), 1, rtol=1e-6)
  np.testing.assert_allclose(volume(*vectors[:-1], vectors[0]), 0, atol=1e-3)


def test_the_volume_of_two_is_the_sine():
  x, y = draw(2)
  cosines = np.sum(np.float64(x) * y, 1)
  np.testing.assert_allclose(losses.volume(x, y), np.sqrt(1 - cosines**2), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('k', [2, 3, 4])
def test_values_and_gradients_are_those_of_determinants(k):
  """With label smoothing; tests/losses/test_laws.py has two and four modalities too."""

  def loss(scale, *vectors):
    return losses.gram(*vectors, scale=scale, block_size=4)

  def whole(scale, *vectors):
    return jnp.mean(dense.gram(*vectors, scale=scale))

  arguments = (np.float32(7), *draw(k))
  value, gradients = jax.jit(jax.value_and_grad(loss, range(1 + k)))(*arguments)
  truth, expected = reference.float64_gradients(whole, *arguments)
  reference.assert_near(value, truth)
  for found, gradient in zip(gradients, expected, strict=True):
    reference.assert_near(found, gradient, floor=0.01)


LOSS = functools.partial(losses.gram_per_example, scale=100.0)
CASES = [(losses.volume, k) for k in (2, 3, 4)]


@pytest.mark.parametrize(('function', 'k'), [*CASES, pytest.param(LOSS, 4, marks=pytest.mark.slow)])
def test_gradients_are_finite_where_the_volume_is_zero(function, k):
  """All vectors of an example coincide; of another, two of the others do."""
  vectors = np.stack(draw(k))
  vectors[:, 0] = vectors[0, 0]
  vectors[-1, 1] = vectors[-2, 1]
  gradients = jax.jit(jax.grad(lambda parts: jnp.sum(function(*parts))))(tuple(vectors))
  assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_two_modalities_lose_the_sign_of_the_cosine():
  x, y = draw(2)
  loss = functools.partial(losses.gram_per_example, scale=10.0, label_smoothing=0.0)
  np.testing.assert_allclose(loss(x, -x), loss(x, x), rtol=1e-6)
  np.testing.assert_allclose(loss(x, -y), loss(x, y), rtol=1e-6)


def test_others_that_coincide_tell_no_anchors_apart():
  anchor, other, _ = draw(3)
  loss = losses.gram(anchor, other, other, scale=10.0, label_smoothing=0.0)
  assert loss == pytest.approx(np.log(B), abs=0.01)


def test_bounds():
  x = draw(5)
  for others in ([], x[1:]):
    with pytest.raises(ValueError, match=r'modalities; give an anchor and one to three others'):
      losses.gram(x[0], *others, scale=1.0)
  with pytest.raises(ValueError, match=r'label_smoothing = 1; use'):
    losses.gram(x[0], x[1], scale=1.0, label_smoothing=1)
  with pytest.raises(ValueError, match=r'scale has shape \(6,\)'):
    losses.gram(x[0], x[1], scale=np.ones(B, 'f'))
  alone = [part[:1] for part in x[:3]]
  assert losses.gram(*alone, scale=10.0, label_smoothing=0.0) == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_negatives_are_drawn_by_their_softmax():
  """Over many keys, in both directions; never the example itself, nor its caption's others."""
  vectors, same = draw(3), np.array([0, 1, 2, 3, 4, 4])

  @jax.jit
  @jax.vmap
  def drawn(key):
    return jnp.stack(gram_negatives(key, *vectors, scale=4.0, same=same))

  found = drawn(jax.random.split(jax.random.key(0), 4000))
  scores = np.asarray(-4.0 * dense.volumes(*vectors), np.float64)
  counts = reference.counted(B, B, same)
  for rows, logits in ((found[:, 0], scores), (found[:, 1], scores.T)):
    weights = reference.softmax(np.where(counts, logits, -np.inf), 1) + 1e-4
    weights *= counts & ~np.eye(B, dtype=bool)
    shares = np.mean(np.asarray(rows)[..., None] == np.arange(B), 0)
    np.testing.assert_allclose(shares, weights / weights.sum(1, keepdims=True), atol=0.03)
  one = [part[:1] for part in vectors]
  assert [int(row) for (row,) in gram_negatives(jax.random.key(0), *one, scale=4.0)] == [-1, -1]
