"""NNCLR, as its formula: the positive of a view is in the support set."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods.method import Sizes
from contrastive_jax.methods.nnclr import NnClr
from tests.losses import reference
from tests.methods import image_views
from tests.methods.local_pairs import normal

SCALE = 5.0


def head(rows):
  return 3 * jnp.roll(rows, 1, 1) + 1


@pytest.mark.parametrize(('views', 'decoupled'), [(2, False), (2, True), (3, False)])
def test_the_loss_contrasts_neighbors_with_predictions(views, decoupled):
  inputs = image_views.inputs_of(views)
  features = image_views.views_of(inputs)
  _, batch, width = features.shape
  method = NnClr(length=3 * batch, outputs=width, scale=SCALE, decoupled=decoupled)
  queued = reference.unit(np.random.default_rng(0), batch, 3, width)
  own = {'support': jnp.asarray(queued), 'written': jnp.int32(4)}
  heads = image_views.identities(method) | {'predictor': head}

  @jax.jit
  def step(inputs):
    result = method.loss(inputs, heads, own, None)
    return result.loss, result

  loss, result = step(inputs)
  support, expected = queued.reshape(-1, width), []
  units, predicted = normal(features), normal(np.stack([np.float64(head(z)) for z in features]))
  for a, b in itertools.permutations(range(views), 2):
    nearest = support[np.argmax(units[a] @ support.T, 1)]
    logits = SCALE * nearest @ predicted[b].T
    counts = ~np.eye(batch, dtype=bool) if decoupled else np.ones((batch, batch), bool)
    total = reference.logsumexp(np.where(counts, logits, -np.inf), 1)
    expected.append(np.mean(total - np.diag(logits)))
  assert loss == pytest.approx(np.mean(expected), rel=1e-5)
  similarity = np.mean(np.max(units @ support.T, 2))
  assert result.metrics['similarity'] == pytest.approx(similarity, rel=1e-5)
  after = method.update(own, result.writes, {}, None)
  np.testing.assert_allclose(after['support'][:, 1], units[0], rtol=1e-6)
  np.testing.assert_array_equal(after['support'][:, 0], queued[:, 0])
  assert after['written'] == 5


def test_what_has_no_loss_is_refused():
  with pytest.raises(ValueError, match=r'config\.batch_size = 1: the projector of NnClr'):
    NnClr(length=4).heads(Sizes(batch=1, embed=3, image_features=3))
  with pytest.raises(ValueError, match=r'config\.objective\.nnclr\.length = 3 is not a multiple'):
    NnClr(length=3).memory(Sizes(batch=2, embed=3))
