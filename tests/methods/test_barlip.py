import jax
import numpy as np
import pytest

from contrastive_jax.methods import METHODS
from tests.losses import dense
from tests.methods import local_pairs
from tests.methods.local_pairs import ALIKE


def test_the_loss_is_the_dense_one():
  """The mean over the global pair and all local ones, beside CLIP-rocket."""
  inputs = local_pairs.inputs_of(ALIKE)
  method = METHODS['barlip'](smoothing=0.2, off_diagonal=0.1, correlation=0.5)
  heads = local_pairs.identities(method, ALIKE)

  @jax.jit
  def evaluate(inputs):
    result = method.loss(inputs, heads, {}, None)
    return result.loss, dict(result.metrics)

  loss, metrics = evaluate(inputs)
  views, texts = local_pairs.views_and_texts(inputs)
  pairs = [(0, 0), *((a, b) for a in (1, 2) for b in (1, 2))]
  correlate = jax.jit(lambda x, y: dense.barlow_twins(x, y, 0.1))
  expected = np.mean([correlate(views[a], texts[b]) for a, b in pairs])
  assert metrics['correlation'] == pytest.approx(expected, rel=1e-5)
  contrastive = local_pairs.dense_rocket(inputs, 3, 0.2)
  assert loss == pytest.approx(0.5 * expected + 2 * contrastive, rel=1e-5)
