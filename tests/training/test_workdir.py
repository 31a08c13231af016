"""A workdir belongs to one process and one config, and later versions can read it."""

import functools
import json
import operator
import pathlib
import shutil
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from configs import clip, siglip
from contrastive_jax.training import workdir

ROOT = pathlib.Path(workdir.__file__).parents[2]
# The config of configs/clip.py:smoke, written by the first version.
EARLIER = pathlib.Path(__file__).parent / 'earlier_config.json'
HOLDER = """
import pathlib, sys
from ml_collections import ConfigDict
from contrastive_jax.training import workdir
workdir.lock(pathlib.Path(sys.argv[1]), ConfigDict({'seed': 0}))
print('locked', flush=True)
sys.stdin.read()
"""


def test_a_workdir_in_use_by_another_process_is_an_error(tmp_path):
  command = [sys.executable, '-c', HOLDER, str(tmp_path)]
  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
  with subprocess.Popen(command, cwd=ROOT, **pipes) as first:
    assert first.stdout.readline() == 'locked\n'
    with pytest.raises(ValueError, match='is in use by another process'):
      workdir.lock(tmp_path, ConfigDict({'seed': 0}))
    first.kill()
  workdir.lock(tmp_path, ConfigDict({'seed': 0}))
  workdir.lock(tmp_path, ConfigDict({'seed': 0}))


@pytest.mark.parametrize('where', ['file/run', '/proc/run'])
def test_an_unwritable_workdir_is_an_error(tmp_path, where):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r'workdir .*run cannot be written: .*choose another'):
    workdir.lock(tmp_path / where, ConfigDict({'seed': 0}))


def smoke(overrides):
  config = clip.get_config('smoke')
  config.update_from_flattened_dict(overrides)
  return config


def test_fields_that_do_not_affect_training_may_change(tmp_path):
  workdir.lock(tmp_path, smoke({}))
  changes = {
    'mesh': 'data:4,fsdp:2',
    'sharding.mlp': None,
    'micro_batches': 2,
    'model.remat': 'full',
    'data.folder': '/elsewhere',
    'data.workers': 4,
    'log_every': 10,
    'evaluate_every': 20,
    'checkpoint_every': 30,
    'keep_checkpoints': 5,
    'keep_best': 'heldout_style/image_to_text_recall@1',
    'profile': 3,
    'tracker': 'mlflow',
    'bad_steps.action': 'skip',
    'evaluation.batch_size': 64,
    'evaluation.splits': ('heldout_style',),
  }
  workdir.lock(tmp_path, smoke(changes))
  after = workdir.read_config(tmp_path)
  for field, value in changes.items():
    section, name = f'.{field}'.rsplit('.', 1)
    found = (after[section[1:]] if section else after)[name]
    assert found == (list(value) if isinstance(value, tuple) else value), field


def test_the_options_of_a_tracker_may_change(tmp_path):
  for options in ({}, {'project': 'emoji'}, {'project': 'birds', 'tags': ['a', 'b']}, {}):
    workdir.lock(tmp_path, smoke({'tracker_options': ConfigDict(options)}))
    assert workdir.read_config(tmp_path).tracker_options.to_dict() == options


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('seed', 1),
    ('total_steps', 4),
    ('batch_size', 32),
    ('augment_on', 'host'),
    ('average_decay', 0.9),
    ('bad_steps.spike', 10.0),
    ('data.split', 'train'),
    ('data.subset', 0.5),
    ('init_from', 'weights'),
    ('model.dtype', 'bfloat16'),
    ('objective.info_nce', 2.0),
    ('optimizer.learning_rate', 1.0),
    ('optimizer.name', 'lion'),
    ('optimizer.decay', 'rsqrt'),
  ],
)
def test_fields_that_affect_training_may_not_change(tmp_path, field, value):
  workdir.lock(tmp_path, smoke({}))
  before = (tmp_path / 'config.json').read_text()
  message = (
    rf'choose another --workdir, .*\(leave out --config .* differs in: config\.{field} = .* there, '
    rf'{value!r} here$'
  )
  with pytest.raises(ValueError, match=message):
    workdir.lock(tmp_path, smoke({field: value}))
  assert (tmp_path / 'config.json').read_text() == before


def test_resuming_does_not_need_init_from(tmp_path):
  workdir.lock(tmp_path, smoke({'init_from': 'weights'}))
  with pytest.raises(ValueError, match=r"config\.init_from = 'weights' there, '' here"):
    workdir.lock(tmp_path, smoke({}))  # It would start from other weights.
  (tmp_path / 'checkpoints' / '1').mkdir(parents=True)
  workdir.lock(tmp_path, smoke({}))
  assert workdir.read_config(tmp_path).init_from == 'weights'


def has(fields, path):
  for name in path.split('.'):
    if name not in fields:
      return False
    fields = fields[name]
  return True


def test_a_config_of_an_earlier_version_keeps_its_behavior(tmp_path):
  shutil.copy(EARLIER, tmp_path / 'config.json')
  config = workdir.read_config(tmp_path)
  assert config.optimizer.max_scale == 100
  written = json.loads(EARLIER.read_text())
  upgraded = config.to_dict()
  # Only fields of later versions are added.
  added = [path for path in workdir._ADDED_FIELDS if not has(written, path)]
  assert added
  for path in added:
    *sections, name = path.split('.')
    del functools.reduce(operator.getitem, sections, upgraded)[name]
  # Its split had two styles then.
  styles = 'train[vendor=noto|twemoji'
  split = upgraded['data'].pop('split')
  assert split == f'{styles},skin_tone=]+{styles},skin_tone=]+{styles}]'
  assert written['data'].pop('split') == 'train[skin_tone=]+train[skin_tone=]+train'
  for name in ('probe_split', 'partners'):
    if split := upgraded['evaluation'].pop(name, None):
      assert split.replace(f'{styles},', 'train[') == written['evaluation'].pop(name)
  assert upgraded == written
  # The same config of this version belongs to the same run.
  current = clip.get_config('smoke')
  current.augmentation.update(written['augmentation'])
  workdir.lock(tmp_path, current)
  assert json.loads((tmp_path / 'config.json').read_text())['optimizer']['max_scale'] == 100


@pytest.mark.parametrize('given', [1.0, {'weight': 1.0, 'scale': 2.0}])
def test_an_earlier_sigmoid_run_keeps_equal_captions_as_negatives(given):
  earlier = siglip.get_config('smoke').to_dict()
  del earlier['optimizer']['max_scale']
  earlier['objective'] = {'sigmoid': given}
  upgraded = workdir.upgrade(ConfigDict(earlier))
  assert upgraded.objective.sigmoid.weight == 1 and upgraded.objective.sigmoid.same is None
  assert upgraded.objective.sigmoid.get('scale') == (None if given == 1.0 else 2.0)
  assert upgraded.optimizer.max_scale == 100
  current = siglip.get_config('smoke')
  assert workdir.upgrade(current).to_dict() == current.to_dict()


def test_incomplete_checkpoints_do_not_count(tmp_path):
  assert not workdir.has_checkpoint(tmp_path)
  (tmp_path / 'checkpoints' / '2.orbax-checkpoint-tmp').mkdir(parents=True)
  (tmp_path / 'checkpoints' / 'damaged_1_17').mkdir()
  assert not workdir.has_checkpoint(tmp_path)
  (tmp_path / 'checkpoints' / '2').mkdir()
  assert workdir.has_checkpoint(tmp_path)


def test_an_earlier_run_keeps_moving_the_statistics_of_a_frozen_tower():
  config = clip.get_config('smoke')
  with config.unlocked():
    config.model.image.stem_norm = 'batch'
  rates = (('image/.*', 0.0),)
  config.optimizer.rates = rates
  assert workdir.upgrade(config).optimizer.rates == rates
  del config.data.mean
  assert workdir.upgrade(config).optimizer.rates == (('.*/(mean|variance)', 1.0), *rates)
  assert workdir.upgrade(config).data.mean == ()
  del config.model.image.stem_norm
  assert workdir.upgrade(config).optimizer.rates == rates
