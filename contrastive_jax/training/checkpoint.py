"""Checkpoints of the train state; its step is also the position in the data."""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as policies

from contrastive_jax.runtime import buckets, processes
from contrastive_jax.runtime.waiting import waiting
from contrastive_jax.training.state import TrainState


class Checkpoints:
  """Checkpoints of a run: one folder per step; the newest and the best are kept.

  Args:
    folder: folder of the checkpoints.
    keep: number of the newest checkpoints to keep.
    best: an evaluation metric; the checkpoint with its highest value is kept too. '' for none.
    metrics: metrics of earlier evaluations, by step.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    keep: int = 2,
    best: str = '',
    metrics: Mapping[int, Mapping[str, float]] | None = None,
  ):
    self._folder, self._keep, self._best = folder.absolute(), keep, best
    self._scores = {step: own[best] for step, own in (metrics or {}).items() if best in own}
    self._unverified: int | None = None
    # A bucket renames nothing, which Orbax knows of gs:// alone.
    committed = ocp.options.AtomicityOptions(ocp.options.AtomicityMode.COMMIT_FILE)
    options = ocp.CheckpointManagerOptions(
      preservation_policy=_PreservationPolicy(self._steps_to_keep),
      atomicity_options=committed if buckets.is_bucket(folder) else None,
    )
    with waiting(f'opening {self._folder}'):
      self._manager = ocp.CheckpointManager(self._folder, options=options)

  @property
  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, state: TrainState, progress: dict[str, Any]) -> None:
    """Saves a checkpoint in the background.

    Args:
      state: the train state.
      progress: anything else that training resumes from, as JSON.

    Raises:
      OSError: if this or the previous checkpoint cannot be written, or the previous one cannot be
        read back. Complete checkpoints are kept.
    """
    self.wait()
    with self._explain_errors(), waiting(f'starting to save step {int(state.step)}'):
      self._manager.save(
        int(state.step),
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state.items),
          progress=ocp.args.JsonSave(
            progress
            | {
              'fingerprint': fingerprint(state),
              'evaluated_fingerprint': fingerprint(state.evaluated),
            }
          ),
        ),
      )
    self._unverified = int(state.step)

  def wait(self) -> None:
    """Waits until the last checkpoint is complete, and reads it back; raises like `save`."""
    with self._explain_errors(), self._writing():
      self._manager.wait_until_finished()
    self._verify()

  def rank(self, step: int, metrics: Mapping[str, float]) -> None:
    """Ranks the checkpoint of a step by its evaluation, and deletes a previous best.

    Args:
      step: step of the checkpoint.
      metrics: metrics of its evaluation; empty if there was none.

    Raises:
      ValueError: if the metric `best` is missing.
    """
    if not self._best or not metrics:
      return
    if self._best not in metrics:
      raise ValueError(
        f'config.keep_best = {self._best!r} is not a metric; use one of {[*metrics]}'
      )
    self._scores[step] = metrics[self._best]
    self.wait()
    steps = sorted(self._manager.all_steps())
    for step in {*steps} - self._steps_to_keep(steps):
      self._manager.delete(step)

  def _steps_to_keep(self, steps: Sequence[int]) -> set[int]:
    """The newest steps, and the best: the newest of equal ones, and never NaN."""
    ranked = [(self._scores[step], step) for step in steps if step in self._scores]
    best = [step for score, step in sorted(ranked) if not math.isnan(score)][-1:]
    return {*steps[-self._keep :], *best}

  def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """Restores the newest readable checkpoint; damaged newer ones are renamed.

    Args:
      abstract: shapes, dtypes and shardings of the state.

    Returns:
      The state, and the progress saved with it.

    Raises:
      ValueError: if no checkpoint can be read.
    """
    items = ocp.args.Composite(
      state=ocp.args.StandardRestore(abstract.items), progress=ocp.args.JsonRestore()
    )

    def read(step):
      restored = self._manager.restore(step, args=items)
      return abstract.replace(**restored.state), restored.progress

    def intact(state, progress):
      return progress.get('fingerprint') == fingerprint(state)

    newest = read_newest(self._folder, self._manager.all_steps(), read, intact)
    self._rename_damaged(newest.damaged)
    for name in ('fingerprint', 'evaluated_fingerprint'):
      newest.progress.pop(name, None)
    return newest.tree, newest.progress

  def _rename_damaged(self, errors):
    for step, error in errors.items() if jax.process_index() == 0 else ():
      # Orbax ignores folders with such names. The time makes the name unique.
      name = f'damaged_{step}_{time.time_ns()}'
      (self._folder / str(step)).rename(self._folder / name)
      logging.warning('checkpoint %d cannot be read, and is renamed to %s: %s', step, name, error)
    if errors:
      processes.gather(np.zeros(1))  # waits for the first process
      self._manager.reload()

  def close(self) -> None:
    """Waits until everything is written; raises like `save`."""
    with self._explain_errors(), self._writing():
      self._manager.close()
    self._verify()

  def _writing(self):
    return waiting(f'writing the checkpoint of step {self._unverified} to {self._folder}')

  def _verify(self):
    """Reads the smallest array of the last checkpoint, which also needs its index."""
    step, self._unverified = self._unverified, None
    if step is None or jax.process_index() != 0:
      return
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    item = {'step': jax.ShapeDtypeStruct((), np.int32, sharding=device)}
    try:
      read_part(self._folder / str(step), item)
    except Exception as error:  # As in `read_newest`.
      raise OSError(
        f'the checkpoint of step {step} was saved to {self._folder} but cannot be read back: '
        f'{str(error).splitlines()[0]} Try another --workdir'
      ) from error

  @contextlib.contextmanager
  def _explain_errors(self):
    try:
      yield
    except Exception as error:  # Background failures may have any type.
      self._unverified = None
      raise OSError(
        f'a checkpoint cannot be written to {self._folder}: {str(error).splitlines()[0]} '
        f'Checkpoints of the steps {sorted(self._manager.all_steps())} are complete; free space, '
        'and the same command resumes from there'
      ) from error


class NewestCheckpoint(NamedTuple):
  """The newest readable checkpoint.

  Attributes:
    step: its step.
    tree: the arrays read from its state.
    progress: the JSON saved with it.
    damaged: by step, why each newer checkpoint could not be read.
  """

  step: int
  tree: Any
  progress: dict[str, Any]
  damaged: dict[int, Exception]


def read_newest(
  folder: pathlib.Path,
  steps: Iterable[int],
  read: Callable[[int], tuple[Any, dict[str, Any]]],
  intact: Callable[[Any, dict[str, Any]], bool],
) -> NewestCheckpoint:
  """Reads the newest checkpoint that every process can read; changes no files.

  Args:
    folder: folder of the checkpoints, for the error message.
    steps: steps of the complete checkpoints.
    read: step -> (tree, progress); a checkpoint for which it raises is damaged.
    intact: (tree, progress) -> whether the tree has the bits that were saved.

  Raises:
    ValueError: if no checkpoint can be read.
  """
  damaged = {}
  for step in sorted(steps, reverse=True):
    result: Any = None
    error: Exception | None = None
    try:
      with waiting(f'reading the checkpoint of step {step} from {folder}'):
        result = read(step)
    except Exception as raised:  # The type depends on the damaged file.
      error = raised
    # All processes must agree on a checkpoint.
    if not processes.gather(np.array([error is None])).all():
      damaged[step] = error or OSError('another process cannot read it')
    elif not intact(*result):
      damaged[step] = ValueError('the state differs from the one that was saved')
    else:
      tree, progress = result
      return NewestCheckpoint(step, tree, progress, damaged)
  raise ValueError(
    f'no checkpoint in {folder} can be read; nothing was changed. '
    + ' '.join(f'Step {step}: {error}' for step, error in damaged.items())
  )


def read_part(folder: pathlib.Path, item: dict[str, Any]) -> dict[str, Any]:
  """Reads only some arrays of a saved state.

  Args:
    folder: the checkpoint of one step.
    item: trees of `ShapeDtypeStruct`s with shardings, by field of `TrainState`.

  Returns:
    The arrays, in the structure of `item`.

  Raises:
    ValueError: if the state lacks an array. Damaged files raise exceptions of any type.
  """
  restore_args = ocp.checkpoint_utils.construct_restore_args(item)
  restored = ocp.PyTreeCheckpointHandler().restore(
    folder / 'state',
    args=ocp.args.PyTreeRestore(item, restore_args=restore_args, partial_restore=True),
  )
  # Orbax returns the `ShapeDtypeStruct` of a missing array.
  missing = [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, leaf in jax.tree_util.tree_leaves_with_path(restored)
    if not isinstance(leaf, jax.Array)
  ]
  if missing:
    raise ValueError(f'the saved state has no {", ".join(missing)}')
  return restored


class _PreservationPolicy(policies.PreservationPolicy):
  """Keeps the steps that a function selects from all steps in order."""

  def __init__(self, select: Callable[[Sequence[int]], set[int]]):
    self._select = select

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Whether each checkpoint is kept."""
    steps = [checkpoint.step for checkpoint in checkpoints]
    kept = self._select(steps)
    return [step in kept for step in steps]


def fingerprint(state) -> int:
  """Checksum of all arrays, the same on any mesh. Orbax itself misses most flipped bits."""
  total = 0
  for part in jax.device_get([_sum_of_bits(leaf) for leaf in jax.tree.leaves(state)]):
    total = (31 * total + int(part)) % 2**32
  return total


@jax.jit  # per leaf: most leaves share their shape, and one program of all compiles for long
def _sum_of_bits(leaf) -> jax.Array:
  if leaf.dtype == bool:
    leaf = leaf.astype('uint8')
  bits = jax.lax.bitcast_convert_type(leaf, f'uint{8 * leaf.dtype.itemsize}')
  return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)
