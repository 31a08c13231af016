import numpy as np
import pytest

from contrastive_jax.methods import METHODS
from tests.losses import dense
from tests.methods import local_pairs
from tests.methods.local_pairs import ALIKE


@pytest.mark.parametrize('texts', [3, 1])
def test_the_loss_is_the_dense_one(texts):
  """Each of four pairs of two views each predicts the pair of the other two."""
  inputs = local_pairs.inputs_of(ALIKE)
  if texts == 1:
    del inputs['texts_features']
  method = METHODS['swalip'](assignment=0.5, epsilon=0.1)
  result = method.loss(inputs, local_pairs.identities(method, ALIKE), {}, None)
  own, others = local_pairs.views_and_texts(local_pairs.inputs_of(ALIKE))
  own, others = local_pairs.normal(own), local_pairs.normal(others)
  found = []
  for a in (1, 2):
    for b in (1, 2) if texts == 3 else (0,):
      targets = own[3 - a], others[3 - b if b else 0]
      found.append(float(np.mean(dense.swapped_assignment(own[a], others[b], *targets, 3, 0.1))))
  assert result.metrics['assignment'] == pytest.approx(np.mean(found), rel=1e-4)
  contrastive = 2 * float(result.metrics['contrastive'])
  assert result.loss == pytest.approx(0.5 * np.mean(found) + contrastive, rel=1e-4)
