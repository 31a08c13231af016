"""Bad steps: stop the run, or count those that the train step skipped."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
from absl import logging

from contrastive_jax.runtime import processes

# Bad steps in a row after which a run that skips them stops.
_MAX_CONSECUTIVE = 10


class BadSteps:
  """Stops the run at a bad step, or counts it if the train step skips bad steps.

  `guard` says which steps are bad. In both cases bad_step_STEP.json holds the loss, the gradient
  norm and the ids of the batch's examples.

  Attributes:
    count: number of bad steps.
  """

  def __init__(self, workdir: pathlib.Path, *, skip: bool):
    self.count = 0
    self._workdir, self._skip = workdir, skip
    self._consecutive = 0
    self._pending: tuple[int, Any, np.ndarray] | None = None

  def add(self, step: int, metrics, ids: np.ndarray) -> None:
    """Adds a step and checks the previous one, so the host does not wait for this one.

    Args:
      step: number of the step.
      metrics: its metrics on the devices; `loss`, `gradient_norm` and `bad` are read.
      ids: ids of the examples in this process's batch.

    Raises:
      FloatingPointError: see `check`.
    """
    self.check()
    self._pending = step, metrics, ids

  def check(self) -> None:
    """Checks the step added last, and waits for its metrics.

    Raises:
      FloatingPointError: if it was bad, unless bad steps are skipped and fewer than 10 came in a
        row.
    """
    if self._pending is None:
      return
    (step, metrics, ids), self._pending = self._pending, None
    if not metrics['bad']:
      self._consecutive = 0
      return
    self.count += 1
    self._consecutive += 1
    values = {name: float(metrics[name]) for name in ('loss', 'gradient_norm')}
    path = self._workdir / f'bad_step_{step}.json'
    ids = processes.gather(ids)
    if jax.process_index() == 0:
      path.write_text(json.dumps({'step': step} | values | {'ids': ids.tolist()}) + '\n')
    found = ', '.join(f'{name} is {value:.4g}' for name, value in values.items())
    message = f"step {step}: {found}; the batch's example ids are in {path}"
    if self._skip and self._consecutive < _MAX_CONSECUTIVE:
      logging.warning('skipped %s', message)
      return
    raise FloatingPointError(
      f'{message}. The last checkpoint is kept. Try a lower config.optimizer.learning_rate, a '
      "config.optimizer.clip_norm, float32, or config.bad_steps.action = 'skip'"
    )
