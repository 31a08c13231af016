import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.doubles import slow_but
from tests.losses import reference


def dense(hidden, vocabulary, labels, pad_id=0):
  """The loss and its gradients with respect to hidden and vocabulary."""
  hidden, vocabulary = hidden.astype(np.float64), vocabulary.astype(np.float64)
  logits = hidden @ vocabulary.T
  chosen = np.eye(len(vocabulary))[labels]
  counted = (labels != pad_id)[..., None]
  log_probability = logits - reference.logsumexp(logits, -1)[..., None]
  count = max(counted.sum(), 1)
  slope = counted * (np.exp(log_probability) - chosen) / count
  loss = -np.sum(counted * chosen * log_probability) / count
  return loss, (slope @ vocabulary, np.einsum('blv,bld->vd', slope, hidden))


def draw(batch, length, vocabulary, width=6):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, vocabulary, (batch, length))
  labels[:, -2:] = 0
  return (
    rng.normal(size=(batch, length, width)).astype('f'),
    rng.normal(size=(vocabulary, width)).astype('f'),
    labels,
  )


def from_logits(hidden, vocabulary, labels, pad_id=0):
  return losses.captioning(hidden @ vocabulary.T, labels, pad_id=pad_id)


@pytest.mark.parametrize('pad_id', slow_but([0, 3], 3))  # 0 is that of test_laws.py
@pytest.mark.parametrize('loss', [from_logits, losses.captioning_streamed])
def test_value_and_gradients_are_the_dense_ones(loss, pad_id):
  hidden, vocabulary, labels = draw(3, 5, 11)
  truth, expected = dense(hidden, vocabulary, labels, pad_id)
  step = jax.jit(jax.value_and_grad(functools.partial(loss, pad_id=pad_id), (0, 1)))
  value, gradients = step(hidden, vocabulary, labels)
  reference.assert_near(value, truth)
  jax.tree.map(reference.assert_near, gradients, expected)


@pytest.mark.parametrize('loss', [from_logits, losses.captioning_streamed])
def test_padding_changes_nothing(loss):
  hidden, vocabulary, labels = draw(2, 6, 9)
  step = jax.jit(jax.value_and_grad(loss))
  value, gradient = step(hidden, vocabulary, labels)
  np.testing.assert_array_equal(gradient[labels == 0], 0.0)
  shorter, _ = step(hidden[:, :4], vocabulary, labels[:, :4])
  np.testing.assert_allclose(shorter, value, rtol=1e-6)
  value, gradient = step(hidden, vocabulary, np.zeros_like(labels))
  assert value == 0
  np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


@pytest.mark.parametrize('tokens', slow_but([4096, 16384], 16384))
def test_gradients_of_frequent_tokens_are_summed_in_float32(tokens):
  """In bfloat16 a sum of many terms of one sign stops growing."""
  rng = np.random.default_rng(0)
  labels = np.where(rng.random(tokens) < 0.5, 2, rng.integers(3, 16, tokens))[None]
  hidden = jnp.asarray(1 + rng.normal(size=(1, tokens, 8)), jnp.bfloat16)
  vocabulary = jnp.asarray(0.1 * rng.normal(size=(16, 8)), jnp.bfloat16)
  gradients = jax.jit(jax.grad(losses.captioning_streamed, (0, 1)))(hidden, vocabulary, labels)
  _, expected = dense(np.asarray(hidden), np.asarray(vocabulary), labels)
  for got, gradient in zip(gradients, expected, strict=True):
    assert got.dtype == jnp.bfloat16
    assert np.linalg.norm(got - gradient) < 0.01 * np.linalg.norm(gradient)


def test_streamed_never_holds_logits():
  tokens, words = 8 * 64, 4096
  step = jax.jit(jax.grad(lambda *a: losses.captioning_streamed(*a, block_size=128), (0, 1))).lower(
    jax.ShapeDtypeStruct((8, 64, 16), jnp.float32),
    jax.ShapeDtypeStruct((words, 16), jnp.float32),
    jax.ShapeDtypeStruct((8, 64), jnp.int32),
  )
  assert step.compile().memory_analysis().temp_size_in_bytes < tokens * words * 4 / 4
