"""CACR against a momentum encoder, as its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods.cacr import CacrMoCo
from contrastive_jax.methods.method import Sizes
from tests.losses import reference

B, V, D, TAU = 4, 3, 6, 0.5
RNG = np.random.default_rng(0)
QUERIES, KEYS, QUEUE = (reference.unit(RNG, B, n, D) for n in (V, V, 2))


@pytest.mark.parametrize('length', [0, 8])
def test_the_loss_is_the_weighted_cross_entropy_over_keys_and_queue(length):
  method = CacrMoCo(length=length, temperature=TAU)
  own = {'keys': jnp.asarray(QUEUE), 'written': jnp.int32(1)} if length else {}

  @jax.jit
  def step(views, keys, own):
    result = method.loss({'views': views, 'target.views': keys}, {}, own, None)
    return result.loss, method.update(own, result.writes, {}, None)

  loss, after = step(QUERIES, KEYS, own)
  rest = [*np.float64(QUEUE).reshape(-1, D)] if length else []
  expected = 0.0
  for i in range(B):
    for k in range(V):
      others = [v for v in range(V) if v != k]
      squares = np.array([np.sum((QUERIES[i, v] - KEYS[i, k]) ** 2) for v in others])
      weights = reference.softmax(squares / TAU, 0)
      candidates = np.array([*np.float64(KEYS[:, k]), *rest])
      for v, weight in zip(others, weights, strict=True):
        logits = candidates @ QUERIES[i, v] / TAU
        expected += weight * (reference.logsumexp(logits, 0) - logits[i]) / (B * V)
  assert loss == pytest.approx(2 * TAU * expected, rel=1e-5)
  if length:
    np.testing.assert_array_equal(after['keys'][:, 1], KEYS[:, 0])
    np.testing.assert_array_equal(after['keys'][:, 0], QUEUE[:, 0])
    assert after['written'] == 2


def test_the_queue_is_a_multiple_of_the_batch():
  sizes = Sizes(batch=B, embed=D)
  assert CacrMoCo(length=0).memory(sizes) == {}
  assert CacrMoCo(length=8).memory(sizes)['keys'].shape == (B, 2, D)
  with pytest.raises(ValueError, match=r'cacr_moco\.length = 6 is not a multiple'):
    CacrMoCo(length=6).memory(sizes)
