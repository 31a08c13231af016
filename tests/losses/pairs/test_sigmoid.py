import functools

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def test_value_and_gradients_are_the_dense_ones_at_any_scale_and_bias():
  """Pairs of equal texts have no loss and no gradient."""
  batch = 104
  rng = np.random.default_rng(0)
  image, text = reference.unit(rng, 2, batch, 12)
  same = rng.integers(0, batch // 4, batch)

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1, 2, 3))
  def loss_and_gradients(image, text, scale, bias):
    return losses.sigmoid(image, text, scale=scale, bias=bias, same=same, block_size=40)

  for scale, bias in ((1.0, 0.0), (10.0, -10.0), (100.0, 5.0)):
    value, gradients = loss_and_gradients(image, text, scale, bias)
    products = image.astype(np.float64) @ text.T.astype(np.float64)
    sign = 2 * np.eye(batch) - 1
    counts = reference.counted(batch, batch, same)
    scores = scale * products + bias
    reference.assert_near(value, np.sum(counts * np.logaddexp(0, -sign * scores)) / batch)
    slope = counts * -sign / (1 + np.exp(sign * scores)) / batch
    expected = (
      scale * slope @ text,
      scale * slope.T @ image,
      np.sum(slope * products),
      np.sum(slope),
    )
    jax.tree.map(reference.assert_near, gradients, expected)


def test_a_pair_is_judged_alone():
  """Without a softmax, the loss of a batch is the sum over its pairs."""
  image, text = reference.unit(np.random.default_rng(0), 2, 6, 4)
  loss = functools.partial(losses.sigmoid, scale=7.0, bias=-2.0)
  whole = 6 * loss(image, text)
  halves = 3 * loss(image[:3], text[:3]) + 3 * loss(image[3:], text[3:])
  scores = np.concatenate([image[:3] @ text[3:].T, image[3:] @ text[:3].T])
  across = np.sum(np.logaddexp(0, 7.0 * scores - 2.0))
  np.testing.assert_allclose(whole, halves + across, rtol=1e-5)


def test_rows_of_one_integer_are_not_negatives():
  image, text = reference.unit(np.random.default_rng(0), 2, 6, 4)
  loss = functools.partial(losses.sigmoid, image, text, scale=7.0, bias=-2.0)
  positive = np.logaddexp(0, 2.0 - 7.0 * np.sum(image * text, axis=1)).mean()
  assert loss(same=np.zeros(6, int)) == pytest.approx(positive, rel=1e-5)
  assert loss(same=np.arange(6)) == loss()
