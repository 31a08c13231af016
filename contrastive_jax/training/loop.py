"""The training loop: from a config and a workdir to a trained state."""

import contextlib
import json
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.data.augmentation import augment, check_strengths
from contrastive_jax.models.definition import Definition, define
from contrastive_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh
from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.logger import Logger
from contrastive_jax.training.objective import Objective
from contrastive_jax.training.optimizer import make_optimizer, make_schedule
from contrastive_jax.training.preemption import Preempted, Preemption
from contrastive_jax.training.rates import hold, parameter_rates
from contrastive_jax.training.state import TrainState, plan_state, start_from
from contrastive_jax.training.step import jit_train_step, make_train_step


class Run(NamedTuple):
  """What a config describes: checked, but nothing of it compiled yet.

  Attributes:
    config: the config.
    mesh: all devices.
    definition: the model.
    tokenizer: texts -> tokens.
    create_state: seed -> the initial state, in place.
    abstract_state: its shapes and shardings.
    train_step: jitted; (state, batch) -> (state, metrics).
    schedule: step -> learning rate.
  """

  config: ConfigDict
  mesh: Mesh
  definition: Definition
  tokenizer: data.Tokenizer
  create_state: Callable[[int], TrainState]
  abstract_state: TrainState
  train_step: Callable
  schedule: Callable


def build(config: ConfigDict, devices: list | None = None) -> Run:
  """Builds all that a config names.

  Args:
    config: the config.
    devices: for the mesh; default all. Others, as of a topology, can be compiled for, not run on.

  Raises:
    ValueError: for whatever in the config cannot work, before anything is compiled.
  """
  mesh = make_mesh(config.mesh, devices)
  _check_config(config, mesh)
  tokenizer = data.open_tokenizer(config.data.tokenizer, config.model.text.length)
  if config.model.text.vocabulary < tokenizer.vocab_size:
    raise ValueError(
      f'config.model.text.vocabulary = {config.model.text.vocabulary} is too small for the '
      f'tokenizer {config.data.tokenizer!r}; use {tokenizer.vocab_size} or more'
    )
  strengths, size = config.augmentation.to_dict(), config.model.image.size
  definition = define(**config.model.to_dict())
  objective = Objective(config.objective.to_dict(), mesh if mesh.size > 1 else None)
  optimizer_fields = config.optimizer.to_dict()
  schedule = make_schedule(
    learning_rate=optimizer_fields.pop('learning_rate'),
    warmup_fraction=optimizer_fields.pop('warmup_fraction'),
    decay=optimizer_fields.pop('decay', 'cosine'),
    total_steps=config.total_steps,
  )
  rates = parameter_rates(
    definition, optimizer_fields.pop('rates', ()), optimizer_fields.pop('layer_decay', 1.0)
  )
  optimizer = make_optimizer(schedule, **optimizer_fields, rates=rates)
  create_state, abstract_state = plan_state(
    definition,
    optimizer,
    mesh,
    config.sharding.to_dict(),
    averaged=config.average_decay > 0,
  )
  train_step = make_train_step(
    hold(definition, rates),
    objective,
    optimizer,
    mesh,
    augment=lambda keys, images: augment(keys, images, size, strengths),
    average_decay=config.average_decay,
    micro_batches=config.micro_batches,
    skip_bad=config.bad_steps.action == 'skip',
    spike=config.bad_steps.spike,
  )
  return Run(
    config=config,
    mesh=mesh,
    definition=definition,
    tokenizer=tokenizer,
    create_state=create_state,
    abstract_state=abstract_state,
    train_step=jit_train_step(train_step, abstract_state, mesh),
    schedule=schedule,
  )


def _check_config(config: ConfigDict, mesh: Mesh) -> None:
  for field in (
    'batch_size',
    'micro_batches',
    'total_steps',
    'log_every',
    'checkpoint_every',
    'evaluate_every',
  ):
    if config[field] < 1:
      raise ValueError(f'config.{field} = {config[field]}; use 1 or more')
  shards = batch_shards(mesh)
  if config.batch_size % shards:
    raise ValueError(
      f"config.batch_size = {config.batch_size} does not divide over the mesh's "
      f'{shards} data shards; use a multiple of {shards}'
    )
  if config.batch_size % (shards * config.micro_batches):
    raise ValueError(
      f'config.micro_batches = {config.micro_batches} does not divide the '
      f'{config.batch_size // shards} pairs a data shard of config.batch_size = '
      f'{config.batch_size}; use a divisor'
    )
  if config.bad_steps.action not in ('stop', 'skip'):
    raise ValueError(
      f"config.bad_steps.action = {config.bad_steps.action!r} is unknown; use 'stop' or 'skip'"
    )
  check_strengths(config.augmentation.to_dict())
  if not config.augmentation and config.data.size != config.model.image.size:
    raise ValueError(
      f'config.data.size = {config.data.size} differs from config.model.image.size = '
      f'{config.model.image.size}, and no config.augmentation resamples; make them equal'
    )


def train(
  run: Run,
  source: data.Source,
  workdir: pathlib.Path,
  evaluate: Callable[[Any], dict[str, float]],
  initial: Any = None,
) -> TrainState:
  """Trains to the config's last step, from the workdir's newest checkpoint if it has one.

  Args:
    run: from `build`.
    source: the training examples.
    workdir: takes metrics.jsonl, TensorBoard events and checkpoints.
    evaluate: parameters -> figures, called every `config.evaluate_every` steps.
    initial: parameters to start from, a nested dict of arrays; default: drawn from the seed.

  Returns:
    The last state. A workdir whose run is finished gives it without a step.

  Raises:
    FloatingPointError: at a loss or gradient that is not finite; the last checkpoint is kept.
    Preempted: after a SIGTERM, when the step that ran then is saved.
    ValueError: when over 1% of the examples cannot be used.
  """
  config = run.config
  batches, skips = _training_batches(run, source)
  checkpoints = Checkpoints(workdir / 'checkpoints', keep=config.keep_checkpoints)
  if checkpoints.latest_step is None:
    state = run.create_state(config.seed)
    state = state if initial is None else start_from(state, initial)
  else:
    state, progress = checkpoints.restore(run.abstract_state, batches)
    skips.seen, skips.skipped = progress['seen'], progress['skipped']
    logging.info('continuing after step %d', checkpoints.latest_step)
  first = int(state.step)
  place = batch_sharding(run.mesh)
  # However training ends, a checkpoint that is being written is finished.
  with (
    contextlib.closing(checkpoints),
    Logger(workdir, step=first, total_steps=config.total_steps) as logger,
    Preemption() as preemption,
  ):
    clock, previous, ids = _Clock(first), None, None
    for step in range(first + 1, config.total_steps + 1):
      batch = next(batches)
      state, metrics = run.train_step(
        state, {k: jax.make_array_from_process_local_data(place, v) for k, v in batch.items()}
      )
      # Checked one step late, so that the host prepares a batch while the device works.
      if previous is not None:
        _check_finite(step - 1, previous, ids, workdir)
      previous, ids = metrics, batch['id']
      last = step == config.total_steps
      row = {}
      if last or step % config.log_every == 0:
        _check_finite(step, metrics, ids, workdir)
        row = {f'train/{name}': float(value) for name, value in metrics.items()}
        row['train/learning_rate'] = float(run.schedule(step - 1))
        row['train/images_per_second'] = config.batch_size * clock.steps_per_second(step)
        row['train/skipped'] = skips.skipped
      if last or step % config.evaluate_every == 0:
        with clock.stopped():
          row |= evaluate(state.evaluated)
      if row:
        logger.write(step, row)
      preempted = not last and preemption.reached(step)
      if last or preempted or step % config.checkpoint_every == 0:
        _check_finite(step, metrics, ids, workdir)
        with clock.stopped():
          checkpoints.save(state, batches, {'seen': skips.seen, 'skipped': skips.skipped})
      logger.advance(step)
      if preempted:
        stop = Preempted(step)
        logging.warning('%s', stop)
        raise stop
  return state


def restore(run: Run, workdir: pathlib.Path) -> TrainState:
  """The state of the workdir's newest checkpoint.

  Raises:
    ValueError: if it has none.
  """
  checkpoints = Checkpoints(workdir / 'checkpoints')
  if checkpoints.latest_step is None:
    raise ValueError(f'workdir {workdir} has no checkpoint to evaluate; train first')
  return checkpoints.restore_state(run.abstract_state)


def _training_batches(run: Run, source: data.Source):
  """This process's batches, and their skips."""
  config = run.config
  return data.training_batches(
    source,
    run.tokenizer,
    batch_size=config.batch_size // jax.process_count(),
    image_size=config.data.size,
    captions=config.data.captions.to_dict(),
    crop=config.data.crop or None,
    seed=config.seed,
    shard=jax.process_index(),
    shards=jax.process_count(),
  )


def _check_finite(step: int, metrics, ids: np.ndarray, workdir: pathlib.Path) -> None:
  values = {name: float(metrics[name]) for name in ('loss', 'gradient_norm')}
  if all(map(math.isfinite, values.values())):
    return
  path = workdir / f'not_finite_{step}.json'
  path.write_text(json.dumps({'step': step, 'ids': ids.tolist()}))
  raise FloatingPointError(
    f'step {step}: {", ".join(f"{name} is {value}" for name, value in values.items())}. '
    f"The last checkpoint is kept; the batch's example ids are in {path}. "
    'Try a lower config.optimizer.learning_rate, a config.optimizer.clip_norm, or float32'
  )


class _Clock:
  """Counts steps by the second, without the time in which it is stopped."""

  def __init__(self, step: int):
    self._step, self._start = step, time.perf_counter()

  def steps_per_second(self, step: int) -> float:
    """Since the last call."""
    now = time.perf_counter()
    rate = (step - self._step) / (now - self._start)
    self._step, self._start = step, now
    return rate

  @contextlib.contextmanager
  def stopped(self):
    """Leaves out the time of what is done within."""
    start = time.perf_counter()
    yield
    self._start += time.perf_counter() - start
