"""Saves, ranks and restores checkpoints, damaged ones included."""

import resource
import signal

import chex
import jax
import numpy as np
import pytest

from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.state import TrainState

KEY = jax.random.key_data(jax.random.key(0))


def state_at(step):
  arrays = {'kernel': np.full((64, 64), step, np.float32)}
  return jax.device_put(TrainState(step, arrays, (), KEY, np.float32(0)))


def write(folder, steps):
  checkpoints = Checkpoints(folder)
  for step in steps:
    checkpoints.save(state_at(step), {'seen': step})
    checkpoints._manager.wait_until_finished()
  checkpoints.close()


def damage(folder, step, how):
  files = [path for path in (folder / str(step)).rglob('*') if path.is_file()]
  if how == 'bit':
    path = max(files, key=lambda path: path.stat().st_size)
    bits = bytearray(path.read_bytes())
    bits[len(bits) // 2] ^= 1
    return path.write_bytes(bits)
  for path in files if how == 'all' else [path for path in files if how in str(path)]:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  return None


@pytest.mark.parametrize('how', ['all', 'bit', 'state/d/', 'progress/', 'METADATA'])
def test_the_newest_intact_checkpoint_is_restored(tmp_path, how):
  write(tmp_path, [1, 2])
  damage(tmp_path, 2, how)
  checkpoints = Checkpoints(tmp_path)
  state, progress = checkpoints.restore(state_at(0))
  good = 2 if (tmp_path / '2').exists() else 1
  assert good == 1 or how == 'METADATA'  # Orbax restores without METADATA.
  chex.assert_trees_all_equal(state.parameters, state_at(good).parameters)
  assert progress == {'seen': good}
  # The damaged checkpoint is renamed, so its step can be saved again.
  assert len(list(tmp_path.glob('damaged_2_*'))) == 2 - good
  if good == 1:
    checkpoints.save(state_at(2), {'seen': 2})
    checkpoints.close()
    assert Checkpoints(tmp_path).restore(state_at(0))[0].step == 2


def steps_in(folder):
  return {int(path.name) for path in folder.iterdir()}


def evaluate(checkpoints, step, recall):
  checkpoints.save(state_at(step), {})
  checkpoints.rank(step, {} if recall is None else {'recall': recall})


def test_the_newest_and_the_best_are_kept(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2, best='recall')
  for step, recall in enumerate([0.1, 0.5, 0.3, None, 0.4, float('nan')], start=1):
    evaluate(checkpoints, step, recall)
  checkpoints.wait()
  assert steps_in(tmp_path) == {2, 5, 6}
  checkpoints.close()
  # A restart ranks by the metrics of earlier evaluations.
  metrics = {2: {'recall': 0.5, 'accuracy': 0.1}, 5: {'recall': 0.4}, 6: {}}
  checkpoints = Checkpoints(tmp_path, keep=1, best='recall', metrics=metrics)
  evaluate(checkpoints, 7, 0.2)
  assert steps_in(tmp_path) == {2, 7}
  evaluate(checkpoints, 8, 0.6)
  assert steps_in(tmp_path) == {8}
  with pytest.raises(
    ValueError, match=r"config\.keep_best = 'recall' is not a metric.*\['accuracy'\]"
  ):
    checkpoints.rank(8, {'accuracy': 0.1})
  checkpoints.close()


def test_unreadable_checkpoints_are_an_error_and_unchanged(tmp_path):
  write(tmp_path, [1, 2])
  damage(tmp_path, 1, 'all')
  damage(tmp_path, 2, 'all')
  with pytest.raises(ValueError, match=r'no checkpoint in .* can be read.*Step 2: .*Step 1: '):
    Checkpoints(tmp_path).restore(state_at(0))
  assert {path.name for path in tmp_path.iterdir()} == {'1', '2'}


def test_a_full_disk_is_an_error_and_keeps_complete_checkpoints(tmp_path):
  """A limit on the size of files simulates a full disk."""
  write(tmp_path, [1])
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  checkpoints = Checkpoints(tmp_path)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    with pytest.raises(OSError, match=r'cannot be written .*steps \[1\] are complete; free space'):
      checkpoints.save(state_at(2), {'seen': 2})
      checkpoints.close()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)
  state, progress = Checkpoints(tmp_path).restore(state_at(0))
  assert progress == {'seen': 1} and state.step == 1


@pytest.mark.parametrize('last', [False, True])
def test_a_checkpoint_that_cannot_be_read_back_is_an_error(tmp_path, last):
  """Orbax writes no index to a folder with brackets, and reports success."""
  checkpoints = Checkpoints(tmp_path / 'lr[1]')
  checkpoints.save(state_at(1), {'seen': 1})
  with pytest.raises(OSError, match=r'step 1 was saved to .*lr\[1\] but cannot be read back'):
    if last:
      checkpoints.close()
    else:
      checkpoints.save(state_at(2), {'seen': 2})
  checkpoints.close()
