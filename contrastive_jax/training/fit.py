"""A small training loop for fits with a step of their own, which resume bit for bit.

The loop of `training.loop` trains an encoder on a pipeline, by `config.objective`. This one takes
any pure step, such as those of a classifier, of a replay buffer on a stream, or of two networks
with an optimizer each.
"""

import contextlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import struct

from contrastive_jax.models.definition import (
  Definition,
  join_statistics,
  set_training,
  updated_statistics,
)
from contrastive_jax.runtime.preemption import Preempted, Preemption
from contrastive_jax.runtime.waiting import waiting
from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.logger import open_logger
from contrastive_jax.training.timing import StepTimer

Metrics = dict[str, jax.Array]


class Fit(NamedTuple):
  """What is fitted, and how.

  Attributes:
    init: key -> the first state: a pytree of arrays, all that a step depends on but its batch, such
      as parameters, optimizer state, memory and a replay buffer.
    step: (state, batch, key) -> (state, metrics); pure. The key is the step's own. Metrics are
      scalars by name, 'loss' among them.
    batch: step, from 0 -> its batch, arrays by name. A function of the step alone, so that a
      resumed fit sees the same batches.
  """

  init: Callable[[jax.Array], Any]
  step: Callable[[Any, Any, jax.Array], tuple[Any, Metrics]]
  batch: Callable[[int], Mapping[str, np.ndarray]]


class Learner(struct.PyTreeNode):
  """The state of one network with its optimizer, see `learn`.

  Attributes:
    parameters: what is trained.
    statistics: running statistics of its layers, a nested dict; {} without any.
    optimizer: optax's state.
  """

  parameters: Any
  statistics: Any
  optimizer: optax.OptState

  @property
  def evaluated(self) -> Any:
    """The parameters to bind for an evaluation."""
    return join_statistics(self.parameters, self.statistics)


def learn(
  definition: Definition,
  optimizer: optax.GradientTransformation,
  loss: Callable[[Any, Any, jax.Array], tuple[jax.Array, Metrics]],
) -> tuple[Callable[[jax.Array], Learner], Callable[[Learner, Any, jax.Array], Any]]:
  """`Fit.init` and `Fit.step` of one network with one optimizer.

  Args:
    definition: the network.
    optimizer: an optax transformation.
    loss: (module, batch, key) -> (scalar, metrics). Batch norms normalize by the batch.

  Returns:
    (init, step), whose state is a `Learner` and whose metrics have the 'loss'.
  """

  def init(key: jax.Array) -> Learner:
    parameters, statistics = definition.part(definition.init(key))
    return Learner(parameters, statistics, optimizer.init(parameters))

  def step(state: Learner, batch, key: jax.Array) -> tuple[Learner, Metrics]:
    def loss_and_effects(parameters):
      module = definition.bind(join_statistics(parameters, state.statistics))
      set_training(module)
      value, metrics = loss(module, batch, key)
      return value, (metrics, updated_statistics(module))

    gradient_of = jax.value_and_grad(loss_and_effects, has_aux=True)
    (value, (metrics, statistics)), gradient = gradient_of(state.parameters)
    updates, moments = optimizer.update(gradient, state.optimizer, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    return Learner(parameters, statistics, moments), {'loss': value, **metrics}

  return init, step


class _Fitted(struct.PyTreeNode):
  """The state of a fit with its step, in the form that `Checkpoints` keeps."""

  step: jax.Array
  fitted: Any

  @property
  def items(self) -> dict[str, Any]:
    """The fields by name."""
    return dict(vars(self))

  @property
  def evaluated(self):
    """What is evaluated: the whole state."""
    return self.fitted


def fit(
  task: Fit,
  workdir: pathlib.Path,
  *,
  total_steps: int,
  seed: int = 0,
  log_every: int = 100,
  checkpoint_every: int = 1000,
) -> Any:
  """Takes the steps of a fit, resuming from the newest checkpoint in the workdir.

  Args:
    task: what is fitted.
    workdir: folder for metrics.jsonl, TensorBoard events and checkpoints.
    total_steps: number of steps.
    seed: of the first state and of the steps' keys.
    log_every: steps between lines of metrics.jsonl, with metrics as 'train/NAME'.
    checkpoint_every: steps between checkpoints.

  Returns:
    The state after the last step. If it is in the workdir, no step is taken.

  Raises:
    FloatingPointError: if the loss of a logged or saved step is not finite. The last checkpoint
      is kept.
    Preempted: after a SIGTERM, once the current step is saved.
  """
  key = jax.random.key(seed)

  def create():
    return _Fitted(jnp.zeros((), jnp.int32), task.init(jax.random.fold_in(key, 0)))

  def advance(state: _Fitted, batch):
    own = jax.random.fold_in(key, state.step + 1)
    fitted, metrics = task.step(state.fitted, batch, own)
    return _Fitted(state.step + 1, fitted), metrics

  create, advance = jax.jit(create), jax.jit(advance, donate_argnums=0)
  checkpoints = Checkpoints(workdir / 'checkpoints', keep=1)
  # Closing waits until the last checkpoint is written, however the fit ends.
  with contextlib.closing(checkpoints):
    state = create() if checkpoints.latest_step is None else _restore(checkpoints, create)
    first = int(state.step)
    timer = StepTimer(first)
    with (
      open_logger(workdir, step=first, total_steps=total_steps) as logger,
      Preemption() as preemption,
    ):
      for step in range(first + 1, total_steps + 1):
        with waiting(f'computing step {step}'):
          state, metrics = advance(state, task.batch(step - 1))
        last = step == total_steps
        preempted = not last and preemption.reached(step)
        log = last or step % log_every == 0
        save = last or preempted or step % checkpoint_every == 0
        row = _row(step, metrics) if log or save else {}
        if log:
          logger.write(step, row | {'train/step_seconds': timer.seconds_per_step(step)[0]})
        if save:
          with timer.paused():
            checkpoints.save(state, {})
        logger.advance(step)
        if preempted:
          error = Preempted(step)
          logging.warning('%s', error)
          raise error
  return state.fitted


def _restore(checkpoints: Checkpoints, create: Callable[[], _Fitted]) -> Any:
  """The state of the newest checkpoint."""
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  abstract = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device),
    jax.eval_shape(create),
  )
  return checkpoints.restore(abstract)[0]


def _row(step: int, metrics: Metrics) -> dict[str, float]:
  """The metrics of a step by their names in metrics.jsonl.

  Raises:
    FloatingPointError: if the loss is not finite.
  """
  row = {f'train/{name}': float(value) for name, value in metrics.items()}
  if not np.isfinite(row.get('train/loss', 0.0)):
    raise FloatingPointError(
      f'the loss of step {step} is {row["train/loss"]}; try a lower learning rate'
    )
  return row
