"""Checkpoints of the state and of the place in the data, together."""

import pathlib
import time
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from absl import logging

from contrastive_jax.training.state import TrainState


class Checkpoints:
  """The checkpoints of a run: a folder a step, the newest few kept."""

  def __init__(self, folder: pathlib.Path, *, keep: int = 2):
    self._folder = folder.absolute()
    self._manager = ocp.CheckpointManager(
      self._folder, options=ocp.CheckpointManagerOptions(max_to_keep=keep)
    )

  @property
  def latest_step(self) -> int | None:
    """The newest complete step, or None."""
    return self._manager.latest_step()

  def save(self, state: TrainState, batches, progress: dict[str, Any]) -> None:
    """Saves in the background; whatever `progress` holds must be JSON."""
    self._manager.save(
      int(state.step),
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        data=grain.checkpoint.CheckpointSave(batches),
        progress=ocp.args.JsonSave(progress),
      ),
    )

  def restore(self, abstract: TrainState, batches) -> tuple[TrainState, dict[str, Any]]:
    """The newest state that can be read; sets `batches` to go on after its last batch.

    Args:
      abstract: says how the state is placed.
      batches: the iterator that was given to `save`.

    Returns:
      The state and the progress.

    Raises:
      ValueError: if no checkpoint can be read.
    """
    restored = self._restore(
      state=ocp.args.StandardRestore(abstract),
      data=grain.checkpoint.CheckpointRestore(batches),
      progress=ocp.args.JsonRestore(),
    )
    return restored.state, restored.progress

  def restore_state(self, abstract: TrainState) -> TrainState:
    """The newest state that can be read, alone, for evaluation; errors as in `restore`."""
    return self._restore(state=ocp.args.StandardRestore(abstract)).state

  def _restore(self, **items):
    errors = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        restored = self._manager.restore(step, args=ocp.args.Composite(**items))
      except Exception as error:  # What a damaged file raises depends on which one it is.
        if jax.process_count() > 1:
          raise  # The others would have to go back too, and may not have seen it.
        errors[step] = error
        continue
      self._set_aside(errors)
      return restored
    raise ValueError(
      f'no checkpoint in {self._folder} can be read; nothing was changed. '
      + ' '.join(f'Step {step}: {error}' for step, error in errors.items())
    )

  def _set_aside(self, errors):
    for step, error in errors.items():
      # Orbax takes the name for no step. The time, so that an earlier one is not written over.
      name = f'damaged_{step}_{time.time_ns()}'
      (self._folder / str(step)).rename(self._folder / name)
      logging.warning('checkpoint %d cannot be read, and is %s now: %s', step, name, error)
    if errors:
      self._manager.reload()

  def close(self) -> None:
    """Waits until all is written."""
    self._manager.close()
