"""Steps whose loss or gradient is not finite."""

import json
import pathlib

import jax
import numpy as np
from absl import logging

from contrastive_jax.runtime import processes

# Skipping so many steps in a row leads nowhere.
_MOST_SKIPPED = 10


class BadSteps:
  """Stops the run at a bad step, or counts it where the step itself has skipped it.

  Either way the ids of the batch's examples are kept, in bad_step_STEP.json.
  """

  def __init__(self, workdir: pathlib.Path, *, skip: bool):
    self.count = 0
    self._workdir, self._skip = workdir, skip
    self._in_a_row = 0
    self._pending = None

  def add(self, step: int, metrics, ids: np.ndarray) -> None:
    """Takes note of a step, and checks the one before: the host goes on while the device works."""
    self.check()
    self._pending = step, metrics, ids

  def check(self) -> None:
    """Checks the last step noted.

    Raises:
      FloatingPointError: if it was bad, and bad steps are not skipped, or too many were in a row.
    """
    if self._pending is None:
      return
    (step, metrics, ids), self._pending = self._pending, None
    if not metrics['bad']:
      self._in_a_row = 0
      return
    self.count += 1
    self._in_a_row += 1
    values = {name: float(metrics[name]) for name in ('loss', 'gradient_norm')}
    path = self._workdir / f'bad_step_{step}.json'
    ids = processes.gather(ids)
    if jax.process_index() == 0:
      path.write_text(json.dumps({'step': step} | values | {'ids': ids.tolist()}) + '\n')
    told = ', '.join(f'{name} is {value:.4g}' for name, value in values.items())
    told = f"step {step}: {told}; the batch's example ids are in {path}"
    if self._skip and self._in_a_row < _MOST_SKIPPED:
      logging.warning('skipped %s', told)
      return
    raise FloatingPointError(
      f'{told}. The last checkpoint is kept. Try a lower config.optimizer.learning_rate, a '
      "config.optimizer.clip_norm, float32, or config.bad_steps.action = 'skip'"
    )
