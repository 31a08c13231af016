"""Checkpoints of the state, whose step is the place in the data too."""

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

from contrastive_jax.runtime import processes
from contrastive_jax.training.state import TrainState


class Checkpoints:
  """The checkpoints of a run: a folder a step; the newest few are kept, and the best.

  Args:
    folder: theirs.
    keep: how many of the newest.
    best: a figure of the evaluation; the checkpoint with the highest is kept too. '' for none.
    figures: those of earlier evaluations, by step.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    keep: int = 2,
    best: str = '',
    figures: Mapping[int, Mapping[str, float]] | None = None,
  ):
    self._folder, self._keep, self._best = folder.absolute(), keep, best
    self._ranks = {step: own[best] for step, own in (figures or {}).items() if best in own}
    self._unverified: int | None = None
    self._manager = ocp.CheckpointManager(
      self._folder, options=ocp.CheckpointManagerOptions(preservation_policy=_Preserve(self._kept))
    )

  @property
  def latest_step(self) -> int | None:
    """The newest complete step, or None."""
    return self._manager.latest_step()

  def save(self, state: TrainState, progress: dict[str, Any]) -> None:
    """Saves in the background.

    Args:
      state: the state.
      progress: whatever else goes on from here; JSON.

    Raises:
      OSError: if this one, or the one before, cannot be written, or the one before cannot be read
        back; those that were complete are kept.
    """
    self.wait()
    with self._explained():
      self._manager.save(
        int(state.step),
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state.items),
          progress=ocp.args.JsonSave(
            progress
            | {
              'fingerprint': int(fingerprint(state)),
              'evaluated_fingerprint': int(fingerprint(state.evaluated)),
            }
          ),
        ),
      )
    self._unverified = int(state.step)

  def wait(self) -> None:
    """Waits until the last save is complete, and reads it back; errors as in `save`."""
    with self._explained():
      self._manager.wait_until_finished()
    self._verify()

  def rank(self, step: int, figures: Mapping[str, float]) -> None:
    """Ranks the checkpoint of a step by its evaluation, and deletes the one that was best before.

    Raises:
      ValueError: if there is no figure of the name `best`.
    """
    if not self._best or not figures:
      return
    if self._best not in figures:
      raise ValueError(f'config.keep_best = {self._best!r} is no figure; use one of {[*figures]}')
    self._ranks[step] = figures[self._best]
    self.wait()
    steps = sorted(self._manager.all_steps())
    for old in {*steps} - self._kept(steps):
      self._manager.delete(old)

  def _kept(self, steps: Sequence[int]) -> set[int]:
    """The newest of some steps in order, and the best; of equal ones the newest, never NaN."""
    ranked = [(self._ranks[step], step) for step in steps if step in self._ranks]
    best = [step for rank, step in sorted(ranked) if not math.isnan(rank)][-1:]
    return {*steps[-self._keep :], *best}

  def restore(self, abstract: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """The newest state that can be read, and the progress that was saved with it.

    Args:
      abstract: says how the state is placed.

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
      return progress.get('fingerprint') == int(fingerprint(state))

    found = read_newest(self._folder, self._manager.all_steps(), read, intact)
    self._set_aside(found.damaged)
    for name in ('fingerprint', 'evaluated_fingerprint'):
      found.progress.pop(name, None)
    return found.tree, found.progress

  def _set_aside(self, errors):
    for step, error in errors.items() if jax.process_index() == 0 else ():
      # Orbax takes the name for no step. The time, so that an earlier one is not written over.
      name = f'damaged_{step}_{time.time_ns()}'
      (self._folder / str(step)).rename(self._folder / name)
      logging.warning('checkpoint %d cannot be read, and is %s now: %s', step, name, error)
    if errors:
      processes.gather(np.zeros(1))  # until the first process has renamed them
      self._manager.reload()

  def close(self) -> None:
    """Waits until all is written; errors as in `save`."""
    with self._explained():
      self._manager.close()
    self._verify()

  def _verify(self):
    """Reads back the smallest array of the last checkpoint, which takes its index but few bytes."""
    step, self._unverified = self._unverified, None
    if step is None or jax.process_index() != 0:
      return
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    item = {'step': jax.ShapeDtypeStruct((), np.int32, sharding=device)}
    try:
      read_part(self._folder / str(step), item)
    except Exception as error:  # As in `read_newest`.
      raise OSError(
        f'the checkpoint of step {step} was saved to {self._folder} and cannot be read back: '
        f'{str(error).splitlines()[0]} Try another --workdir'
      ) from error

  @contextlib.contextmanager
  def _explained(self):
    try:
      yield
    except Exception as error:  # What fails in the background keeps its own type, or loses it.
      raise OSError(
        f'a checkpoint cannot be written to {self._folder}: {str(error).splitlines()[0]} '
        f'Complete are those of the steps {sorted(self._manager.all_steps())}; with space, '
        'the same command goes on from there'
      ) from error


class Found(NamedTuple):
  """The newest readable checkpoint.

  Attributes:
    step: its step.
    tree: what was read of its state.
    progress: the JSON saved with it.
    damaged: why each newer checkpoint was passed over, by step.
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
) -> Found:
  """Reads the newest checkpoint that every process can read; changes nothing.

  Args:
    folder: the checkpoints' folder.
    steps: the complete steps in it.
    read: step -> (tree, progress); any exception passes over the step.
    intact: (tree, progress) -> whether the tree has the bits that were saved.

  Raises:
    ValueError: if no checkpoint can be read.
  """
  damaged = {}
  for step in sorted(steps, reverse=True):
    read_here, error = None, None
    try:
      read_here = read(step)
    except Exception as raised:  # What a damaged file raises depends on which one it is.
      error = raised
    # What one process cannot read, none uses.
    if not processes.gather(np.array([error is None])).all():
      damaged[step] = error or OSError('another process cannot read it')
    elif not intact(*read_here):
      damaged[step] = ValueError('the state has other bits than were saved')
    else:
      return Found(step, *read_here, damaged)
  raise ValueError(
    f'no checkpoint in {folder} can be read; nothing was changed. '
    + ' '.join(f'Step {step}: {error}' for step, error in damaged.items())
  )


def read_part(folder: pathlib.Path, item: dict[str, Any]) -> dict[str, Any]:
  """Reads some arrays of a saved state, and opens no other.

  Args:
    folder: the checkpoint of one step.
    item: trees of `ShapeDtypeStruct`s with shardings, by field of `TrainState`.

  Raises:
    ValueError: if the state lacks an array. A damaged file raises exceptions of any type.
  """
  how = ocp.checkpoint_utils.construct_restore_args(item)
  restored = ocp.PyTreeCheckpointHandler().restore(
    folder / 'state', args=ocp.args.PyTreeRestore(item, restore_args=how, partial_restore=True)
  )
  # Orbax leaves an array as it was asked for where there is none.
  missing = [
    jax.tree_util.keystr(path, simple=True, separator='/')
    for path, leaf in jax.tree_util.tree_leaves_with_path(restored)
    if not isinstance(leaf, jax.Array)
  ]
  if missing:
    raise ValueError(f'the state that was saved has no {", ".join(missing)}')
  return restored


class _Preserve(policies.PreservationPolicy):
  """Orbax's policy of a function from steps in order to those that are kept."""

  def __init__(self, kept: Callable[[Sequence[int]], set[int]]):
    self._kept = kept

  def should_preserve(self, checkpoints, *, context) -> list[bool]:
    """Whether each checkpoint is kept."""
    steps = [checkpoint.step for checkpoint in checkpoints]
    kept = self._kept(steps)
    return [step in kept for step in steps]


@jax.jit
def fingerprint(state) -> jax.Array:
  """A sum of all bits, the same on any mesh; Orbax itself takes most flipped bits for data."""
  total = jnp.uint32(0)
  for leaf in jax.tree.leaves(state):
    bits = jax.lax.bitcast_convert_type(leaf, f'uint{8 * leaf.dtype.itemsize}')
    total = 31 * total + jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)
  return total
