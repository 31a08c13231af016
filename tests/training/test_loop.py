import functools
import gzip
import json
import os
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import clip, coca
from contrastive_jax import data
from contrastive_jax.methods import METHODS
from contrastive_jax.methods.lift import stateless
from contrastive_jax.runtime import waiting
from contrastive_jax.runtime.chips import CHIPS
from contrastive_jax.runtime.preemption import Preempted
from contrastive_jax.training import build, flops, loop, restore, workdir
from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.logger import Logger, read_metrics


@pytest.fixture(scope='module')
def source():
  return data.open_source('emoji', 'heldout_composition')


def config(**overrides):
  made = clip.get_config('smoke')
  made.data.split = 'heldout_composition'
  made.update(total_steps=4, checkpoint_every=2, log_every=1, evaluate_every=2, batch_size=8)
  made.average_decay = 0.9
  with made.unlocked():
    # A patch stem compiles faster than convolutions.
    made.model.image.update({'stem': 'patch', 'stem_blocks': None})
  if 'augmentation' in overrides:
    made.augmentation = ConfigDict(overrides.pop('augmentation'))
  made.update_from_flattened_dict(overrides)
  return made


# Fields that leave the compiled step as it is.
INTERVALS = {'evaluate_every', 'checkpoint_every', 'keep_best', 'keep_checkpoints', 'profile'}


@functools.cache
def build_once(info_nce, devices, **overrides):
  """A run; tests may replace the method 'info_nce'."""
  return build.build(config(**overrides), jax.devices()[:devices])


def build_run(devices=2, **overrides):
  compiled = {name: value for name, value in overrides.items() if name not in INTERVALS}
  run = build_once(METHODS['info_nce'], devices, **compiled)
  return run._replace(config=config(**overrides))


def train(folder, source, interrupt=None, evaluate=None, **overrides):
  """Trains; calls `interrupt` before each step, with its state and batch."""
  run = build_run(**overrides)
  if interrupt is not None:
    step = run.train_step

    def interrupted(state, batch):
      interrupt(state, batch)
      return step(state, batch)

    run = run._replace(train_step=interrupted)
  return loop.train(run, source, folder, evaluate or (lambda parameters: {'metric': 1.0}))


def saved_step(folder):
  return restore.restore_parameters(build_run(), folder).step


def kill_after(checkpoint):
  """An interrupt one step after a checkpoint."""

  def kill(state, _):
    if state.step == checkpoint + 1:
      raise KeyboardInterrupt

  return kill


def without_timings(rows):
  return [{k: v for k, v in row.items() if 'second' not in k} for row in rows]


@pytest.fixture(scope='module')
def straight(tmp_path_factory, source):
  """Overrides -> the last state and the rows of a run that nothing interrupts."""

  @functools.cache
  def trained(**overrides):
    folder = tmp_path_factory.mktemp('straight')
    return train(folder, source, **overrides), without_timings(read_metrics(folder))

  return trained


# Augmentation in the step; augmentation on the host, with a worker process.
ON_HOST = {'augment_on': 'host', 'data.workers': 1}


@pytest.mark.parametrize(
  'host', [{}, pytest.param(ON_HOST, marks=pytest.mark.slow)], ids=['', 'host']
)
def test_killed_and_resumed_equals_never_killed(tmp_path, source, straight, host):
  expected, rows = straight(**host)
  with pytest.raises(KeyboardInterrupt):
    train(tmp_path, source, kill_after(2), **host)
  assert [row['step'] for row in read_metrics(tmp_path)] == [1, 2, 3]
  with pytest.raises(ValueError, match=r'has 600 examples, but had 644 at step 2'):
    shorter = data.open_source('emoji', 'heldout_composition[:600]')
    train(tmp_path, shorter, **host)
  resumed = train(tmp_path, source, **host)
  chex.assert_trees_all_equal(expected, resumed)
  assert without_timings(read_metrics(tmp_path)) == rows
  assert [row['step'] for row in rows] == [1, 2, 3, 4]
  # A finished run takes no further steps.
  lines = (tmp_path / 'metrics.jsonl').read_text()
  again = train(tmp_path, source, **host)
  chex.assert_trees_all_equal(again, expected)
  assert (tmp_path / 'metrics.jsonl').read_text() == lines


def test_preempted_and_resumed_equals_never_preempted(tmp_path, source, straight):
  def preempt(state, _):
    if state.step == 2:
      os.kill(os.getpid(), signal.SIGTERM)

  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(Preempted, match='saved at step 3') as stop:
    train(tmp_path, source, preempt)
  assert stop.value.code == 0 and signal.getsignal(signal.SIGTERM) == before
  # Step 3 is not a multiple of checkpoint_every.
  assert saved_step(tmp_path) == 3
  resumed = train(tmp_path, source)
  expected, rows = straight()
  chex.assert_trees_all_equal(expected, resumed)
  assert without_timings(read_metrics(tmp_path)) == rows


@pytest.mark.parametrize('best', ['', pytest.param('metric', marks=pytest.mark.slow)])
def test_a_run_interrupted_in_an_evaluation_repeats_it(tmp_path, source, straight, best):
  intervals = {'keep_best': best, 'checkpoint_every': 4} if best else {}
  expected, rows = straight(**intervals)

  def stop(parameters):
    # The checkpoint is complete before the evaluation.
    assert saved_step(tmp_path) == 2
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    train(tmp_path, source, evaluate=stop, **intervals)
  assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['2']
  resumed = train(tmp_path, source, **intervals)
  chex.assert_trees_all_equal(expected, resumed)
  assert without_timings(read_metrics(tmp_path)) == rows
  assert [row['step'] for row in rows if 'metric' in row] == [2, 4]


def test_a_preempted_step_is_evaluated_on_resume(tmp_path, source):
  def preempt(state, _):
    if state.step == 1:
      os.kill(os.getpid(), signal.SIGTERM)

  evaluations = []
  with pytest.raises(Preempted, match='saved at step 2'):
    train(tmp_path, source, preempt, evaluate=evaluations.append)
  assert not evaluations
  train(tmp_path, source)
  assert [row['step'] for row in read_metrics(tmp_path) if 'metric' in row] == [2, 4]


def test_the_best_of_all_evaluated_steps_is_kept(tmp_path, source):
  values = iter([0.2, 0.9, 0.3, 0.1])
  intervals = {'evaluate_every': 1, 'checkpoint_every': 3, 'keep_checkpoints': 1}
  train(
    tmp_path,
    source,
    evaluate=lambda parameters: {'metric': next(values)},
    **intervals,
    keep_best='metric',
  )
  assert {path.name for path in (tmp_path / 'checkpoints').iterdir()} == {'2', '4'}


@pytest.mark.slow
def test_losses_agree_on_any_mesh(tmp_path, source):
  def losses_of(mesh, **overrides):
    (tmp_path / mesh).mkdir()
    train(tmp_path / mesh, source, devices=8, mesh=mesh, **overrides)
    return [row['train/loss'] for row in read_metrics(tmp_path / mesh)]

  # Without these rules, parameters are replicated on all eight devices.
  replicated = {'sharding.mlp': None, 'sharding.heads': None}
  expected = losses_of('tensor:8', **replicated)
  for mesh in ('data:8', 'data:4,fsdp:2', 'data:2,fsdp:2,tensor:2'):
    np.testing.assert_allclose(losses_of(mesh), expected, rtol=2e-4, err_msg=mesh)


@pytest.mark.slow
def test_a_run_resumes_on_another_mesh(tmp_path, source):
  straight = train(tmp_path, source)
  (tmp_path / 'moved').mkdir()
  for step, devices, mesh in ((1, 2, 'data:-1'), (3, 4, 'data:2,fsdp:2'), (4, 1, 'data:-1')):
    run = build_run(devices, mesh=mesh, checkpoint_every=1)
    run.config.total_steps = step
    moved = loop.train(run, source, tmp_path / 'moved', lambda parameters: {})
  assert moved.step == 4
  chex.assert_trees_all_close(
    jax.device_get(straight.parameters), jax.device_get(moved.parameters), rtol=1e-3, atol=1e-5
  )


@pytest.mark.slow
@pytest.mark.parametrize('recipe', [clip, coca])
def test_smoke_configs_train_alike_everywhere(tmp_path, recipe):
  """Twenty steps; tests/training/test_processes.py has two processes."""

  def losses_of(name, mesh, devices=8, **overrides):
    made = recipe.get_config('smoke')
    made.update(total_steps=20, batch_size=32, checkpoint_every=20, mesh=mesh, **overrides)
    (tmp_path / name).mkdir()
    run = build.build(made, jax.devices()[:devices])
    train_source = data.open_source('emoji', made.data.split)
    loop.train(run, train_source, tmp_path / name, lambda parameters: {})
    return [row['train/loss'] for row in read_metrics(tmp_path / name)]

  expected = losses_of('one', 'data:1', 1)
  assert len(expected) == 20 and expected[-1] < expected[0]
  for name, mesh, overrides in (
    ('data', 'data:8', {}),
    ('fsdp', 'data:4,fsdp:2', {}),
    ('tensor', 'data:2,fsdp:2,tensor:2', {}),
    ('parts', 'data:8', {'micro_batches': 4}),
    ('parts_fsdp', 'data:4,fsdp:2', {'micro_batches': 4}),
  ):
    np.testing.assert_allclose(
      losses_of(name, mesh, **overrides), expected, rtol=1e-4, err_msg=name
    )


@pytest.mark.slow
def test_the_default_recipe_trains_alike_on_any_mesh(tmp_path):
  """Its data, augmentation, model and objective; 20 steps of 32 pairs."""
  made = clip.get_config()
  made.update(total_steps=20, batch_size=32, log_every=1)
  source = data.open_source('emoji', made.data.split)

  def losses_of(mesh, devices=None):
    made.mesh = mesh
    folder = tmp_path / mesh
    folder.mkdir()
    loop.train(build.build(made, devices), source, folder, lambda parameters: {})
    return [row['train/loss'] for row in read_metrics(folder)]

  expected = losses_of('data:1', jax.devices()[:1])
  assert len(expected) == 20 and expected[-1] < expected[0]
  for mesh in ('data:8', 'data:4,fsdp:2', 'data:2,fsdp:2,tensor:2'):
    np.testing.assert_allclose(losses_of(mesh), expected, rtol=1e-5, err_msg=mesh)


@pytest.fixture
def poisoned(source, monkeypatch):
  """The ids of the batches, of which an example of the third gives a loss that is not finite."""
  batches, _ = data.training_batches(
    source,
    build_run().tokenizer,
    batch_size=8,
    image_size=32,
    captions={'caption': 1},
    seed=0,
  )
  ids = [next(batches)['id'] for _ in range(4)]

  def loss(image, text, scale, id):
    return jnp.where(jnp.any(id == ids[2][0]), jnp.nan, jnp.mean(image * text) * scale)

  reads = {'image': 'image', 'text': 'text', 'scale': 'scale', 'id': 'id'}
  monkeypatch.setitem(METHODS, 'info_nce', stateless(loss, **reads))
  return ids


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, source):
  ids = []

  def poison(state, batch):
    ids.append(np.asarray(batch['id']).tolist())
    if len(ids) == 3:
      sharding = state.parameters['log_scale'].sharding
      state.parameters['log_scale'] = jax.device_put(np.float32(np.nan), sharding)

  with pytest.raises(FloatingPointError, match=r'step 3: loss is nan.*ids are in'):
    train(tmp_path, source, poison)
  written = json.loads((tmp_path / 'bad_step_3.json').read_text())
  assert written['step'] == 3 and written['ids'] == ids[2]
  assert saved_step(tmp_path) == 2


@pytest.mark.slow
def test_bad_steps_are_skipped_and_counted(tmp_path, source, poisoned):
  state = train(tmp_path, source, **{'bad_steps.action': 'skip'})
  rows = read_metrics(tmp_path)
  bad = [step for step, ids in enumerate(poisoned, start=1) if poisoned[2][0] in ids]
  assert [row['train/bad_steps'] for row in rows] == [sum(b <= s for b in bad) for s in range(1, 5)]
  written = json.loads((tmp_path / 'bad_step_3.json').read_text())
  assert written['ids'] == poisoned[2].tolist()
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.parameters))


def test_model_flops_utilization_is_logged(tmp_path, source, monkeypatch):
  chip = CHIPS['v5e']._replace(peak=1e12)
  monkeypatch.setattr(loop, 'chip_of', lambda device: chip)
  train(tmp_path, source)
  run = build_run()
  model = sum(
    flops.analytic(run.config, run.abstract_state.parameters, run.objective, run.sizes).values()
  )
  for row in read_metrics(tmp_path):
    seconds = row['train/step_seconds']
    assert 0 < row['train/data_wait_seconds'] < seconds
    assert row['train/images_per_second'] == pytest.approx(8 / seconds)
    assert row['train/model_flops_utilisation'] == pytest.approx(model / seconds / 2e12)


@pytest.mark.slow
def test_a_trace_is_written(tmp_path, source):
  train(tmp_path, source, profile=1)
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))  # xprof's
  (perfetto,) = (tmp_path / 'profile').rglob('perfetto_trace.json.gz')
  events = json.loads(gzip.decompress(perfetto.read_bytes()))['traceEvents']
  assert {'4'} == {e['args']['step_num'] for e in events if e.get('name') == 'train'}


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'batch_size': 16, 'micro_batches': 3}, r'config\.micro_batches = 3 .* per-shard batch of 2 '),
    ({'bad_steps.action': 'hope'}, r"config\.bad_steps\.action = 'hope'.*'stop' or 'skip'"),
    (
      {'model.remat': 'some'},
      r"remat = 'some' is unknown; use one of \['dots', 'full', 'none', 'pairs'\]",
    ),
    ({'batch_size': 100}, r'config\.batch_size = 100 .* 8 data shards; use a multiple of 8'),
    ({'total_steps': 0}, r'config\.total_steps = 0'),
    ({'seed': -1}, r'config\.seed = -1; use an integer in \[0, 2147483647\]'),
    ({'seed': 2**40}, r'config\.seed = 1099511627776; use'),
    ({'optimizer.clip_norm': -1.0}, r'config\.optimizer\.clip_norm = -1\.0; use'),
    ({'optimizer.learning_rate': float('nan')}, r'config\.optimizer\.learning_rate = nan; use'),
    ({'keep_checkpoints': 0}, r'config\.keep_checkpoints = 0; use'),
    ({'evaluation.batch_size': 0}, r'config\.evaluation\.batch_size = 0; use'),
    ({'model.scale': -1.0}, r'config\.model\.scale = -1\.0; use a number in \(0, inf\)'),
    ({'model.dtype': 'float16'}, r"config\.model\.dtype = 'float16'; use 'float32' or 'bfloat16'"),
    (
      {'model.image.stem': 'convolution', 'model.image.width': 2, 'model.image.heads': 1},
      r'image\.width = 2 .*; use 4 or more',
    ),
    ({'data.crop': (0.9,)}, r'config\.data\.crop = \(0\.9,\); use'),
    ({'model.text.vocabulary': 100}, r'config\.model\.text\.vocabulary = 100 is too small'),
    ({'model.name': 'clap'}, r"model\.name = 'clap'.*clip"),
    ({'model.image.heads': 5}, r'width = 32 does not divide over heads = 5'),
    ({'data.tokenizer': 'nothing.json'}, r"config\.data\.tokenizer = 'nothing\.json' is no file"),
    ({'augmentation.degrees': 200.0}, r'config\.augmentation\.degrees = 200\.0; use .* 0 to 180'),
    ({'augment_on': 'host', 'views': 2}, r"config\.augment_on = 'host' with config\.views = 2"),
    ({'augmentation': {}}, r'config\.data\.size = 40 differs from .* 32'),
    ({'mesh': 'data:3'}, r'does not fit 8 devices'),
    ({'sharding.mlp': 'rows'}, r"config\.sharding\.mlp = 'rows'"),
  ],
)
def test_invalid_configs_are_errors_before_compilation(overrides, message, monkeypatch):
  monkeypatch.setattr(jax.stages.Lowered, 'compile', None)
  with pytest.raises(ValueError, match=message):
    build.build(config(**overrides))


def test_a_workdir_belongs_to_one_config(tmp_path):
  workdir.lock(tmp_path, config())
  workdir.lock(tmp_path, config())
  other = config()
  other.optimizer.learning_rate = 1.0
  with pytest.raises(ValueError, match=r'config\.optimizer\.learning_rate = 0\.\d+ there, 1\.0'):
    workdir.lock(tmp_path, other)
  assert workdir.read_config(tmp_path).total_steps == 4
  workdir.lock(tmp_path, config(**{'mesh': 'data:4,fsdp:2', 'model.remat': 'full'}))
  assert workdir.read_config(tmp_path).mesh == 'data:4,fsdp:2'
  with pytest.raises(ValueError, match='holds no run'):
    workdir.read_config(tmp_path / 'nothing')


def test_a_run_says_what_it_compiles_reads_and_writes(tmp_path, source, monkeypatch):
  """Each wait is opened, and is named once if it lasts."""
  said = []
  monkeypatch.setattr(waiting.waiting, '__enter__', lambda wait: said.append(wait._what))
  monkeypatch.setattr(waiting.waiting, '__exit__', lambda *_: None)
  train(tmp_path, source)
  folder = tmp_path / 'checkpoints'
  assert said.count('compiling and running the first train step') == 1
  assert said.count('compiling and running the first evaluation') == 1
  assert said.index('compiling the initial state, and making it') < said.index(
    'waiting for the batch of step 1'
  )
  assert f'writing the checkpoint of step 2 to {folder}' in said
  saved_step(tmp_path)
  assert said[-1] == f'reading the checkpoint of step 4 from {folder}'


def test_metrics_are_saved_before_each_checkpoint(tmp_path, source, monkeypatch):
  calls = []
  for kind in (Logger, Checkpoints):
    save = kind.save
    monkeypatch.setattr(
      kind, 'save', lambda self, *arguments, save=save: calls.append(save) or save(self, *arguments)
    )
  train(tmp_path, source)
  assert [call.__qualname__ for call in calls] == ['Logger.save', 'Checkpoints.save'] * 2
