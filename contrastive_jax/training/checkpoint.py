"""Checkpoints of the state and of the place in the data, together."""

import pathlib
from typing import Any

import grain
import orbax.checkpoint as ocp

from contrastive_jax.training.state import TrainState


class Checkpoints:
  """The checkpoints of a run: a folder a step, the newest few kept."""

  def __init__(self, folder: pathlib.Path, *, keep: int = 2):
    self._manager = ocp.CheckpointManager(
      folder.absolute(), options=ocp.CheckpointManagerOptions(max_to_keep=keep)
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
    """The newest state, placed as `abstract` says; sets `batches` to go on after its last batch."""
    restored = self._manager.restore(
      self._manager.latest_step(),
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract),
        data=grain.checkpoint.CheckpointRestore(batches),
        progress=ocp.args.JsonRestore(),
      ),
    )
    return restored.state, restored.progress

  def restore_state(self, abstract: TrainState) -> TrainState:
    """The newest state alone, for evaluation."""
    return self._manager.restore(
      self._manager.latest_step(),
      args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)),
    ).state

  def close(self) -> None:
    """Waits until all is written."""
    self._manager.close()
