"""A stream is seen once; its replay buffer is part of the state."""

import json

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.methods import hpcr
from contrastive_jax.data.class_stream import order_stream
from contrastive_jax.tasks import stream
from contrastive_jax.tasks.labeled import LabeledImages
from contrastive_jax.training.fit import fit

STEPS = {'seed': 3, 'log_every': 1, 'checkpoint_every': 3}
TOWER = {'size': 8, 'patch': 4, 'width': 8, 'layers': 0, 'heads': 1, 'pooling': 'mean'}


@pytest.fixture(scope='module')
def images():
  """Twenty images of four classes, in two tasks of two batches."""
  pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
  return LabeledImages(pixels, np.arange(20, dtype=np.int32) % 4, tuple('abcd'))


@pytest.fixture(scope='module')
def task(images):
  """All components of HPCR, but for the temperature; the second task begins with step 3."""
  config = hpcr.get_config('smoke')
  config.augmentation = ConfigDict({'brightness': 0.2})
  config.loss.update({'low': 1.0, 'high': 1.0})
  config.replay.capacity = 6
  order = order_stream(images.labels, tasks=2, batch_size=4, seed=0)
  model = stream.define_classifier(TOWER, 4)
  return stream.make_fit(config, model, images, order)


@pytest.fixture(scope='module')
def through(task, tmp_path_factory):
  """The state after all steps, and the folder of an undisturbed run."""
  folder = tmp_path_factory.mktemp('through')
  return fit(task, folder, total_steps=4, **STEPS), folder


def test_killed_is_never_killed(task, through, tmp_path):
  def fails(step):
    if step == 3:
      raise RuntimeError('killed')
    return task.batch(step)

  with pytest.raises(RuntimeError, match='killed'):
    fit(task._replace(batch=fails), tmp_path, total_steps=4, **STEPS)
  resumed = fit(task, tmp_path, total_steps=4, **STEPS)
  chex.assert_trees_all_equal(resumed, through[0])
  assert resumed['buffer'].seen == 16


def test_the_buffer_holds_images_of_the_stream(images, through):
  rows = through[0]['buffer'].rows
  assert len(set(rows['number'].tolist())) == 6
  np.testing.assert_array_equal(rows['image'], images.images[rows['number']])
  np.testing.assert_array_equal(rows['label'], images.labels[rows['number']])
  np.testing.assert_allclose(np.linalg.norm(rows['embedding'], axis=1), 1, rtol=1e-5)
  assert np.all(np.abs(rows['logits']) <= 1 / 0.09 + 1e-3) and np.all(np.any(rows['logits'], 1))


def test_the_first_batch_fills_the_buffer_alone(task, through, tmp_path):
  first = fit(task, tmp_path, total_steps=1, **STEPS)
  start = jax.jit(task.init)(jax.random.fold_in(jax.random.key(3), 0))
  chex.assert_trees_all_equal(first['learner'].parameters, start['learner'].parameters)
  assert first['buffer'].seen == 4
  rows = [json.loads(line) for line in (through[1] / 'metrics.jsonl').read_text().splitlines()]
  losses, contrasts = ([row[f'train/{name}'] for row in rows] for name in ('loss', 'contrast'))
  assert losses[0] == 0 and losses[1] == contrasts[1], 'nothing to distill in the first task'
  assert losses[2] > contrasts[2] and losses[3] > contrasts[3]


def test_what_is_evaluated_is_kept_after_each_task(through):
  state, _ = through
  first, last = (jax.tree.map(lambda table, n=n: table[n], state['after']) for n in (0, 1))
  chex.assert_trees_all_equal(last['parameters'], state['learner'].evaluated)
  np.testing.assert_array_equal(last['numbers'], state['buffer'].rows['number'])
  chex.assert_trees_all_equal_shapes(first, last)
  moved = jax.tree.map(lambda a, b: np.any(a != b), first['parameters'], last['parameters'])
  assert all(jax.tree.leaves(moved['proxies']))


def test_forgetting_is_the_fall_from_the_highest_accuracy():
  members = [np.arange(6) < 2, (np.arange(6) >= 2) & (np.arange(6) < 4), np.arange(6) >= 4]
  right = np.array([[1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]], bool)
  found = stream.summarize(right, members)
  assert found['accuracy'] == 0.5 and found['mean_task_accuracy'] == 0.5
  assert found['forgetting'] == (1.0 + 0.5) / 2
  assert [found[f'task_{n}_accuracy'] for n in (1, 2, 3)] == [0.0, 0.5, 1.0]


def test_class_means_are_directions():
  means = stream.class_means(np.float32([[1, 0], [0, 1], [0, 1]]), np.array([0, 0, 2]), 3)
  np.testing.assert_allclose(means[[0, 2]], [[0.5**0.5] * 2, [0, 1]], rtol=1e-6)
  assert np.isnan(means[1]).all()


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    (
      'loss.name',
      'other',
      r"config\.loss\.name = 'other' is unknown; use one of \('cross_entropy'",
    ),
    ('loss.name', 'supervised', r'min_batch_for_pairs = 1 needs config\.loss\.name'),
    ('loss.period', 0, r'config\.loss\.period = 0; use an integer'),
    ('replay.capacity', 3, r'config\.replay\.batch_size = 4 exceeds config\.replay\.capacity = 3'),
    ('tasks', 0, r'config\.tasks = 0; use an integer'),
    ('augmentation', {'twist': 1.0}, 'twist'),
  ],
)
def test_what_cannot_work_is_refused(path, value, message):
  config = hpcr.get_config('smoke')
  if path == 'augmentation':
    config.augmentation = value
  else:
    config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=message):
    stream.check(config)


def test_a_task_without_held_out_examples_is_refused(images, monkeypatch):
  config = hpcr.get_config('smoke')
  splits = {config.data.split: images, config.evaluation.split: images.of(['a'])}
  monkeypatch.setattr(stream, 'read_labeled', lambda name, split, **_: splits[split])
  with pytest.raises(ValueError, match=r'config\.evaluation\.split = .* no example of task \d'):
    stream.open_stream(config)


@pytest.mark.slow
@pytest.mark.parametrize('name', stream.LOSSES)
def test_every_loss_trains_on_the_embedded_emoji(name, tmp_path):
  config = hpcr.get_config('smoke')
  config.loss.update({'name': name, 'min_batch_for_pairs': int(name == 'pcr')})
  results = stream.open_stream(config)(tmp_path)
  assert 0 <= results['accuracy'] <= 1 and 'task_2_accuracy' in results
  assert stream.open_stream(config)(tmp_path) == results
