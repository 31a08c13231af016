"""MoCo's loss over a queue, and the queue itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from contrastive_jax import losses
from contrastive_jax.methods import memory
from contrastive_jax.methods.method import Sizes
from contrastive_jax.methods.moco import MoCo

B, D, Q = 4, 6, 12
SIZES = Sizes(batch=B, embed=D)


def unit(seed, *shape):
  x = jax.random.normal(jax.random.key(seed), shape)
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def inputs():
  names = ('first', 'second', 'target.first', 'target.second')
  return {name: unit(seed, B, D) for seed, name in enumerate(names)} | {'scale': jnp.float32(5.0)}


def state(method):
  slots = method.memory(SIZES)
  return {
    name: jnp.zeros(slot.shape, slot.dtype) if slot.init is None else slot.init(jax.random.key(7))
    for name, slot in slots.items()
  }


def test_the_loss_is_cross_entropy_over_key_and_queue():
  method = MoCo(length=Q, scale=4.0, in_batch=False, symmetric=False)
  own, given = state(method), inputs()
  x, y = (np.float64(given[name]) for name in ('first', 'target.second'))
  positive = 4.0 * np.sum(x * y, 1)
  scores = 4.0 * x @ np.float64(memory.entries(own['second'])).T
  logits = np.concatenate([positive[:, None], scores], 1)
  expected = np.mean(logsumexp(logits, axis=1) - positive)
  loss = jax.jit(lambda given, own: method.loss(given, {}, own, None).loss)
  assert loss(given, own) == pytest.approx(float(expected), rel=1e-6)


def test_a_queue_that_is_far_away_leaves_info_nce():
  """In CLIP's form, with the targets equal to the embeddings."""
  given = {side: jnp.abs(unit(seed, B, D)) for seed, side in enumerate(('first', 'second'))}
  given |= {f'target.{side}': vectors for side, vectors in given.items()}
  method = MoCo(length=Q, scale=5.0)
  far = {side: jnp.full((B, Q // B, D), -1e3) for side in ('first', 'second')}
  expected = losses.info_nce(given['first'], given['second'], scale=5.0)
  assert method.loss(given, {}, far, None).loss == pytest.approx(float(expected), rel=1e-6)


def test_a_queue_replaces_its_oldest_batch():
  method = MoCo(length=Q)
  own = state(method)
  batches = [unit(20 + number, B, D) for number in range(Q // B + 1)]
  for rows in batches:
    own = method.update(own, {'first': rows, 'second': rows}, {}, jnp.int32(0))
  kept = {tuple(row) for row in np.asarray(memory.entries(own['first'])).round(5).tolist()}
  newest = jnp.concatenate(batches[1:])
  assert kept == {tuple(row) for row in np.asarray(newest).round(5).tolist()}


@pytest.mark.parametrize('length', [10, 3])
def test_the_length_is_a_multiple_of_the_batch(length):
  message = (
    rf'config\.objective\.moco\.length = {length} is not a multiple of config\.batch_size = 4'
  )
  with pytest.raises(ValueError, match=message):
    MoCo(length=length).memory(SIZES)
