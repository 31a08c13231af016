"""The task of metric learning: every loss and level trains, and what it refuses."""

import pytest

from configs.methods import metrix
from contrastive_jax import tasks
from contrastive_jax.training import workdir

TRAIN, TEST = (f'train[vendor=firefox,group!=flags,subgroup%2={half}]' for half in (1, 0))


def config_of(**fields):
  """The smoke variant on a few images."""
  config = metrix.get_config('smoke')
  config.data.update({'split': TRAIN, 'test_split': TEST})
  config.update_from_flattened_dict(fields)
  return config


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'loss': 'triplet'}, r"config\.loss = 'triplet' is unknown; use one of \('contrastive_m"),
    ({'mixup.level': 'pixel'}, r"config\.mixup\.level = 'pixel' is unknown; use one of"),
    ({'mixup.alpha': 0.0}, r'config\.mixup\.alpha = 0\.0; use a number in \(0'),
    ({'mixup.weight': -1.0}, r'config\.mixup\.weight = -1\.0; use a number in \[0'),
    ({'total_steps': 0}, r'config\.total_steps = 0; use an integer in \[1'),
    ({'augmentation.flip': 2.0}, r'config\.augmentation\.flip = 2\.0; use a number from 0'),
    ({'data.test_split': TRAIN}, r'config\.data\.test_split = .* of config\.data\.split; select'),
    ({'batch.classes': 100}, r'config\.batch: classes = 100 per batch of \d+; use 2 to'),
  ],
)
def test_what_cannot_work_is_refused_before_a_compile(fields, message):
  with pytest.raises(ValueError, match=message):
    tasks.open_task(config_of(**fields))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('loss', 'level'),
  [
    ('contrastive_margin', 'none'),
    ('contrastive_margin', 'input'),
    ('multi_similarity', 'feature'),
    ('proxy_anchor', 'embedding'),
  ],
)
def test_every_loss_and_level_trains(loss, level, tmp_path):
  fields = {'loss': loss, 'mixup.level': level, 'optimizer.learning_rate': 0.01}
  with workdir.unlocking():
    results = tasks.run(config_of(**fields), tmp_path)
  names = {f'test/{name}' for name in ('recall@1', 'recall@8', 'nmi', 'utilization')}
  assert names < {*results} and 0 < results['test/recall@1'] <= results['test/recall@8'] <= 1
  if level == 'none':
    assert 'test/utilization_with_mixtures' not in results
  else:
    assert results['test/utilization_with_mixtures'] <= results['test/utilization']
