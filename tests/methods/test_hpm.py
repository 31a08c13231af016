import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.methods import METHODS, Objective
from contrastive_jax.models.outputs import Outputs
from tests.losses import reference
from tests.methods.laws import SIZES

B, M, P = 4, 12, 16


def draw(*shape, seed=0):
  return np.random.default_rng(seed).random(shape).astype(np.float32)


def inputs_of(progress=0.5):
  return {
    'patch_errors': draw(B, M),
    'predicted_errors': draw(B, M, seed=1),
    'target.predicted_errors': draw(B, P, seed=2),
    'progress': progress,
  }


def test_it_is_mae_and_the_ranking():
  method, given = METHODS['hpm'](ranking=2.0), inputs_of()

  def loss(errors, predicted):
    inputs = given | {'patch_errors': errors, 'predicted_errors': predicted}
    return method.loss(inputs, {}, {'share': 0.1}, None).loss

  errors, predicted = given['patch_errors'], given['predicted_errors']
  value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(errors, predicted)
  ranking = losses.patch_ranking(predicted, errors)
  reference.assert_near(value, errors.mean() + 2 * ranking)
  # The reconstruction learns from its errors alone.
  np.testing.assert_allclose(gradients[0], 1 / (B * M), rtol=1e-5)
  assert np.any(gradients[1])


def test_without_ranking_and_hard_masks_it_is_mae():
  method, given = METHODS['hpm'](ranking=0.0, hard=0.0), inputs_of()
  assert method.target is None and not method.memory(SIZES)
  assert set(method.reads) == {'patch_errors', 'predicted_errors'}
  part = {'image': None}
  assert method.transform(0, part, None, {}, None) is part
  result = method.loss(given, {}, {}, None)
  expected = METHODS['mae']().loss(given, {}, {}, None).loss
  assert result.loss == expected and not result.writes


def test_the_target_chooses_masks_from_easy_to_hard():
  method = METHODS['hpm'](hard=0.5)
  for progress, share in ((0.0, 0.0), (0.5, 0.25), (1.0, 0.5)):
    result = method.loss(inputs_of(progress), {}, {'share': 0.1}, None)
    assert result.metrics['hard'] == 0.1  # what the masks of this step had
    memory = method.update({'share': 0.1}, result.writes, {}, 0)
    assert memory['share'] == pytest.approx(share)
  target, part = Outputs(predicted_errors=draw(B, P)), {'image': None}
  seen = method.transform(0, part, target, {'share': 0.25}, None)
  assert seen['hardness'] is target.predicted_errors and seen['hard_share'] == 0.25
  assert method.transform(1, part, target, {'share': 0.25}, None) is part


def test_what_cannot_work_is_told_by_its_field():
  with pytest.raises(ValueError, match=r'objective\.hpm: hard = 1\.5; use a share from 0 to 1'):
    Objective({'hpm': {'weight': 1.0, 'hard': 1.5}})
  outputs = Outputs(patch_errors=draw(B, P))
  with pytest.raises(ValueError, match=r'hpm needs .*with config\.model\.loss_predictor does'):
    Objective({'hpm': 1.0}).check(outputs, {})
