"""Parameters are restored alone, on any mesh, from checkpoints of any version."""

import json
import pathlib
import shutil

import chex
import jax
import jax.numpy as jnp
import optax
import pytest
import tensorstore
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from configs import clip
from contrastive_jax.models.definition import Definition
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import build, opening, restore
from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.state import TrainState, plan_state
from tests.training.test_checkpoint import damage

# `checkpoints` of a run of DEFINITION, as the version before `evaluated_fingerprint` wrote it.
EARLIER = pathlib.Path(__file__).parent / 'earlier_checkpoint'
SHARDING = {'embed': 'fsdp', 'mlp': 'tensor'}


def parameters_at(step):
  kernel = step + jnp.arange(32, dtype=jnp.float32).reshape(8, 4)
  return {'dense': {'kernel': kernel, 'bias': kernel[0]}, 'log_scale': jnp.float32(step)}


DEFINITION = Definition(
  init=lambda key: parameters_at(0),
  bind=None,
  axes={'dense': {'kernel': ('embed', 'mlp'), 'bias': ('mlp',)}, 'log_scale': ()},
)


def model_on(mesh='data:8', definition=DEFINITION, **config):
  return opening.OpenModel(
    ConfigDict({'sharding': SHARDING, 'average_decay': 0.9} | config),
    make_mesh(mesh),
    definition,
    tokenizer=None,
  )


def state_at(step, averaged=True):
  parameters = parameters_at(step)
  return TrainState(
    step=jnp.int32(step),
    parameters=parameters,
    optimizer_state=optax.adam(1e-3).init(parameters),
    key=jax.random.key_data(jax.random.key(0)),
    average_norm=jnp.zeros(()),
    average=parameters_at(step + 0.5) if averaged else None,
  )


def write(workdir, steps, **options):
  checkpoints = Checkpoints(workdir / 'checkpoints')
  for step in steps:
    checkpoints.save(state_at(step, **options), {'seen': step})
  checkpoints.close()


def progress_of(workdir, step):
  return workdir / 'checkpoints' / str(step) / 'progress' / 'metadata'


def snapshot(folder):
  return {
    path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b'')
    for path in folder.rglob('*')
  }


def delete_arrays(workdir, step, fields):
  """Deletes the arrays of some fields of a saved state."""
  base = f'file://{workdir}/checkpoints/{step}/state/'
  store = tensorstore.KvStore.open({'driver': 'ocdbt', 'base': base}).result()
  for field in fields:
    # Keys continue with a dot or a slash, which sort before '0'.
    store.delete_range(tensorstore.KvStore.KeyRange(field, f'{field}0')).result()


@pytest.mark.parametrize('mesh', ['data:8', 'data:2,fsdp:2,tensor:2'])
@pytest.mark.parametrize('averaged', [True, False])
def test_the_parameters_to_evaluate_are_sharded_as_in_training(tmp_path, mesh, averaged):
  write(tmp_path, [3], averaged=averaged)
  model = model_on(mesh, average_decay=0.9 if averaged else 0.0)
  parameters, step = restore.restore_parameters(model, tmp_path)
  assert step == 3
  chex.assert_trees_all_equal(parameters, state_at(3, averaged).evaluated)
  _, abstract = plan_state(DEFINITION, optax.adam(1e-3), model.mesh, SHARDING)
  placed = jax.tree.map(lambda leaf: leaf.sharding, (parameters, abstract.parameters))
  assert placed[0] == placed[1]
  if 'fsdp' in mesh:
    assert parameters['dense']['kernel'].sharding.spec == PartitionSpec('fsdp', 'tensor')


@pytest.mark.parametrize(('averaged', 'field'), [(True, 'average'), (False, 'parameters')])
def test_no_other_array_is_read(tmp_path, averaged, field):
  write(tmp_path, [3], averaged=averaged)
  delete_arrays(tmp_path, 3, {*vars(state_at(3))} - {field})
  with pytest.raises(ValueError, match='can be read; nothing was changed'):
    Checkpoints(tmp_path / 'checkpoints').restore(state_at(0, averaged))
  model = model_on(average_decay=0.9 if averaged else 0.0)
  parameters, _ = restore.restore_parameters(model, tmp_path)
  chex.assert_trees_all_equal(parameters, state_at(3, averaged).evaluated)
  delete_arrays(tmp_path, 3, {field})
  with pytest.raises(ValueError, match=r'no checkpoint in .* can be read'):
    restore.restore_parameters(model, tmp_path)


@pytest.mark.parametrize('how', ['all', 'state/d/', 'progress/', 'fingerprint'])
def test_a_damaged_checkpoint_is_skipped_and_unchanged(tmp_path, caplog, how):
  write(tmp_path, [1, 2])
  if how == 'fingerprint':
    path = progress_of(tmp_path, 2)
    progress = json.loads(path.read_text())
    path.write_text(json.dumps(progress | {'evaluated_fingerprint': 1}))
  else:
    damage(tmp_path / 'checkpoints', 2, how)
  before = snapshot(tmp_path)
  parameters, step = restore.restore_parameters(model_on(), tmp_path)
  assert step == 1
  chex.assert_trees_all_equal(parameters, state_at(1).average)
  assert snapshot(tmp_path) == before
  assert 'checkpoint 2 cannot be read, and is passed over: ' in caplog.text
  damage(tmp_path / 'checkpoints', 1, 'all')
  with pytest.raises(ValueError, match=r'no checkpoint in .* can be read.*Step 2: .*Step 1: '):
    restore.restore_parameters(model_on(), tmp_path)


def test_a_flipped_bit_of_the_parameters_is_found(tmp_path):
  definition = Definition(
    init=lambda key: {'kernel': jnp.zeros((64, 64))}, bind=None, axes={'kernel': (None, None)}
  )
  checkpoints = Checkpoints(tmp_path / 'checkpoints')
  for step in (1, 2):
    # Random bits do not compress, so a flip changes a number instead of the structure.
    bits = jax.random.bits(jax.random.key(step), (64, 64), 'uint32')
    parameters = {'kernel': jax.lax.bitcast_convert_type(bits, 'float32')}
    checkpoints.save(state_at(step).replace(parameters=parameters, average=None), {})
  checkpoints.close()
  damage(tmp_path / 'checkpoints', 2, 'bit')
  model = model_on(definition=definition, average_decay=0.0)
  assert restore.restore_parameters(model, tmp_path).step == 1


def test_a_checkpoint_of_an_earlier_version_is_restored_and_resumed(tmp_path):
  shutil.copytree(EARLIER, tmp_path / 'checkpoints')
  assert 'evaluated_fingerprint' not in progress_of(tmp_path, 3).read_text()
  parameters, step = restore.restore_parameters(model_on('data:4,fsdp:2'), tmp_path)
  assert step == 3
  chex.assert_trees_all_equal(parameters, state_at(3).average)
  state, progress = Checkpoints(tmp_path / 'checkpoints').restore(state_at(0))
  chex.assert_trees_all_equal(state, state_at(3))
  assert progress == {'seen': 3}


def with_parameters(**parameters):
  """DEFINITION with parameters added or replaced."""
  axes = jax.tree.map(lambda leaf: (None,) * leaf.ndim, parameters)
  return Definition(lambda key: parameters_at(0) | parameters, None, DEFINITION.axes | axes)


@pytest.mark.parametrize(
  ('parameters', 'message'),
  [
    ({'bias': jnp.zeros(())}, 'has no average/bias'),
    ({'log_scale': jnp.zeros(2)}, 'shape'),
    ({'dense': {'kernel': jnp.zeros((8, 4))}}, 'differs from'),
  ],
)
def test_parameters_of_another_model_are_an_error(tmp_path, parameters, message):
  write(tmp_path, [3])
  with pytest.raises(ValueError, match=f'Step 3: .*{message}'):
    restore.restore_parameters(model_on(definition=with_parameters(**parameters)), tmp_path)


def test_a_workdir_without_a_checkpoint_is_an_error_and_not_created(tmp_path):
  with pytest.raises(ValueError, match='nothing has no checkpoint to evaluate; train first'):
    restore.open_run(ConfigDict(), tmp_path / 'nothing')
  assert not (tmp_path / 'nothing').exists()


def test_opening_a_model_ignores_its_objective_and_optimizer():
  config = clip.get_config('smoke')
  config.objective, config.optimizer = ConfigDict({'another': 1.0}), ConfigDict({'another': -1})
  config.update(batch_size=3, total_steps=0)
  assert build.open_model(config).mesh.size == 8


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('evaluation.batch_size', 0, r'config\.evaluation\.batch_size = 0; use'),
    ('model.scale', -1.0, r'config\.model\.scale = -1\.0; use'),
    ('model.text.vocabulary', 100, r'config\.model\.text\.vocabulary = 100 is too small'),
    ('mesh', 'data:3', 'does not fit 8 devices'),
  ],
)
def test_invalid_configs_are_errors(field, value, message):
  config = clip.get_config('smoke')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    build.open_model(config)
