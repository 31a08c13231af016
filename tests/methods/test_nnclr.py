"""NNCLR, as its formula: the positive of a view is in the support set."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods.method import Sizes
from contrastive_jax.methods.nnclr import NnClr
from tests.losses import reference

B, D, SCALE = 4, 6, 5.0
RNG = np.random.default_rng(0)
X, Y, SUPPORT = reference.unit(RNG, B, D), reference.unit(RNG, B, D), reference.unit(RNG, B, 3, D)


def head(rows):
  return 3 * jnp.roll(rows, 1, 1) + 1


@pytest.mark.parametrize('decoupled', [False, True])
def test_the_loss_contrasts_neighbors_with_predictions(decoupled):
  method = NnClr(length=3 * B, scale=SCALE, decoupled=decoupled)
  own = {'support': jnp.asarray(SUPPORT), 'written': jnp.int32(4)}

  @jax.jit
  def step(x, y):
    result = method.loss({'view.0': x, 'view.1': y}, {'predictor': head}, own, None)
    return result.loss, result

  loss, result = step(X, Y)
  support, expected, similarity = SUPPORT.reshape(-1, D), 0.0, 0.0
  for view, other in ((X, Y), (Y, X)):
    nearest = support[np.argmax(view @ support.T, 1)]
    predicted = np.float64(head(other))
    predicted /= np.linalg.norm(predicted, axis=1, keepdims=True)
    logits = SCALE * nearest @ predicted.T
    counts = ~np.eye(B, dtype=bool) if decoupled else np.ones((B, B), bool)
    total = reference.logsumexp(np.where(counts, logits, -np.inf), 1)
    expected += np.mean(total - np.diag(logits)) / 2
    similarity += np.mean(np.max(view @ support.T, 1)) / 2
  assert loss == pytest.approx(expected, rel=1e-5)
  assert result.metrics['similarity'] == pytest.approx(similarity, rel=1e-5)
  after = method.update(own, result.writes, {}, None)
  np.testing.assert_array_equal(after['support'][:, 1], X)
  assert after['written'] == 5


def test_what_has_no_loss_is_refused():
  with pytest.raises(ValueError, match=r'decoupled with config\.batch_size = 1 has no'):
    NnClr(length=4, decoupled=True).memory(Sizes(batch=1, embed=D))
  with pytest.raises(ValueError, match=r'config\.objective\.nnclr\.length = 3 is not a multiple'):
    NnClr(length=3).memory(Sizes(batch=2, embed=D))
