"""Laws of the wrong captions of an image: they are negatives of that image alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference

B, K, D, SCALE = 5, 3, 4, 7.0


def drawn():
  rng = np.random.default_rng(0)
  return *reference.unit(rng, 2, B, D), reference.unit(rng, B, K, D)


def test_without_wrong_captions_it_is_clip():
  image, text, negatives = drawn()
  same = jnp.array([0, 1, 0, 2, 3])
  masked = {'valid': jnp.zeros((B, K), bool), 'same': same[:, None]}

  @jax.jit
  def evaluate(image, text):
    gradient = functools.partial(jax.value_and_grad, argnums=(0, 1))
    return (
      gradient(losses.info_nce)(image, text, scale=SCALE, same=same),
      gradient(losses.composition_aware)(image, text, negatives[:, :0], scale=SCALE, same=same),
      gradient(losses.modular)(image, text[:, None], negatives, scale=SCALE, **masked),
    )

  (value, slopes), *found = evaluate(image, text)
  for loss, gradients in found:
    assert loss == pytest.approx(float(value), rel=1e-6)
    for gradient, slope in zip(gradients, slopes, strict=True):
      np.testing.assert_allclose(gradient.reshape(B, D), slope, atol=1e-5)


def test_a_wrong_caption_changes_the_term_of_its_image_by_its_logit():
  image, text, negatives = drawn()
  scores = SCALE * image @ text.T
  assert np.min(scores) < 0
  evaluate = jax.jit(
    functools.partial(losses.composition_aware_per_example, image, text, negatives, scale=SCALE)
  )
  none = np.zeros((B, K), bool)
  base = evaluate(valid=none)
  for place in ((1, 2), (4, 0)):
    valid = none.copy()
    valid[place] = True
    found = evaluate(valid=valid)
    total = reference.logsumexp(scores[place[0]], 0)
    wrong = SCALE * image[place[0]] @ negatives[place]
    expected = np.zeros(B)
    expected[place[0]] = (np.logaddexp(total, wrong) - total) / 2
    np.testing.assert_allclose(found - base, expected, atol=2e-6)


def test_no_image_depends_on_the_wrong_captions_of_others():
  image, text, negatives = drawn()
  texts = jnp.stack([text, text[::-1]], 1)

  def loss(negatives):
    return losses.modular_per_example(image, texts, negatives, scale=SCALE)

  slopes = np.abs(jax.jit(jax.jacobian(loss))(negatives)).max((2, 3))
  assert np.all(np.diagonal(slopes) > 0) and not np.any(slopes[~np.eye(B, dtype=bool)])


def test_a_caption_that_repeats_does_not_count():
  """Nor does it matter where its vector lies."""
  image, text, negatives = drawn()
  texts, same = jnp.stack([text, text[::-1]], 1), jnp.arange(B)
  repeated = jnp.stack([same, same], 1)

  @jax.jit
  def evaluate():
    return (
      losses.modular(image, texts, negatives, scale=SCALE, same=repeated),
      losses.composition_aware(image, text, negatives, scale=SCALE),
    )

  found, expected = evaluate()
  assert found == pytest.approx(float(expected), rel=1e-6)
