"""The training loop: from a run and a workdir to a trained state."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.data.batches import BadExamples
from contrastive_jax.runtime import processes
from contrastive_jax.runtime.chips import chip_of
from contrastive_jax.runtime.preemption import Preempted, Preemption
from contrastive_jax.runtime.waiting import waiting
from contrastive_jax.sharding.mesh import local_rows, place_rows
from contrastive_jax.training import flops
from contrastive_jax.training.bad_steps import BadSteps
from contrastive_jax.training.batch import batch_shapes
from contrastive_jax.training.build import Run
from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.logger import Logger, NullLogger, open_logger, read_metrics
from contrastive_jax.training.state import TrainState, start_from
from contrastive_jax.training.timing import Profiler, StepTimer
from contrastive_jax.training.trackers import Tracking
from contrastive_jax.training.workers import worker_count

# Steps before a trace, so that it contains no compilation.
_STEPS_BEFORE_TRACE = 3


def train(
  run: Run,
  source: data.Source,
  workdir: pathlib.Path,
  evaluate: Callable[[Any], dict[str, float]],
  initial: Any = None,
  target: Any = None,
  tracking: Tracking | None = None,
) -> TrainState:
  """Trains to `config.total_steps`, resuming from the newest checkpoint in the workdir.

  Args:
    run: the run, from `build`.
    source: the training examples.
    workdir: folder for metrics.jsonl, TensorBoard events and checkpoints.
    evaluate: parameters -> metrics, called every `config.evaluate_every` steps. The checkpoint of
      such a step is complete before; a run interrupted in an evaluation repeats it on resume.
    initial: initial parameters, a nested dict of arrays; None to initialize them from the seed.
    target: parameters of the frozen target, where a method reads one.
    tracking: takes the lines of metrics.jsonl too; None for no tracker.

  Returns:
    The final state. If the run is finished already, it is restored, and no step is taken.

  Raises:
    FloatingPointError: at a bad step, see `BadSteps`. The last checkpoint is kept.
    Preempted: after a SIGTERM, once the current step is saved.
    ValueError: if over 1% of the examples are bad, or the number of examples is not that of the
      checkpoint.
  """
  config = run.config
  batches, bad_examples = _training_batches(run, source)
  counts = _Counts(bad_examples, BadSteps(workdir, skip=config.bad_steps.action == 'skip'))
  checkpoints = _open_checkpoints(config, workdir)
  state, row = _first_state(run, source, checkpoints, counts, (initial, target))
  first = int(state.step)
  is_logged = first == 0 or any(line['step'] == first for line in read_metrics(workdir))
  batches.set_state({'batch': first})
  # Closing waits until the last checkpoint is written, however training ends.
  with (
    contextlib.closing(checkpoints),
    contextlib.closing(batches),
    open_logger(workdir, step=first, total_steps=config.total_steps, tracking=tracking) as logger,
    Preemption() as preemption,
    Profiler(
      workdir / 'profile',
      after=first + _STEPS_BEFORE_TRACE,
      steps=config.profile,
      until=config.total_steps,
    ) as profiler,
  ):
    loop = _Loop(
      run, len(source), evaluate, batches, counts, checkpoints, logger, preemption, profiler
    )
    if not is_logged:
      loop.evaluate_and_log(first, row, state)
    return loop.run_steps(state)


class _Counts:
  """Counts of bad examples and bad steps, over all processes."""

  _NAMES = ('seen', 'skipped', 'truncated')  # attributes of `BadExamples`

  def __init__(self, examples: BadExamples, steps: BadSteps):
    self.examples, self.steps = examples, steps

  def total(self) -> dict[str, int]:
    """Sums the counts over processes, all of which must call this."""
    local = np.array([[getattr(self.examples, name) for name in self._NAMES]])
    counts = processes.gather(local).sum(axis=0).tolist()
    return dict(zip(self._NAMES, counts, strict=True)) | {'bad_steps': self.steps.count}

  def restore(self, progress: dict[str, Any]) -> None:
    """Continues from the counts of a checkpoint."""
    self.steps.count = progress['bad_steps']
    # Saved counts are sums over processes, so one process continues from them.
    if jax.process_index() == 0:
      for name in self._NAMES:
        setattr(self.examples, name, progress[name])


@dataclasses.dataclass
class _Loop:
  """What the steps of one call of `train` use; `run_steps` is the loop."""

  run: Run
  examples: int  # of the source
  evaluate: Callable[[Any], dict[str, float]]
  batches: Iterator[dict[str, np.ndarray]]
  counts: _Counts
  checkpoints: Checkpoints
  logger: Logger | NullLogger
  preemption: Preemption
  profiler: Profiler
  _compiled: set[str] = dataclasses.field(default_factory=set)

  def run_steps(self, state: TrainState) -> TrainState:
    """Takes the remaining steps, and returns the final state."""
    run, config, bad_steps = self.run, self.run.config, self.counts.steps
    first = int(state.step)
    timer = StepTimer(first)
    for step in range(first + 1, config.total_steps + 1):
      with timer.waiting(), waiting(f'waiting for the batch of step {step}'):
        # The devices still compute the previous step while this batch is loaded and transferred.
        batch = run.augment(step, next(self.batches))
        shape = self._shapes.at(step - 1)
        device_batch = place_rows(batch, run.mesh, shape.batch_size)
      own = run.at(step)
      program = 'train step' if own is run else 'train step without patch dropout'
      program += f' of {shape.length} patches' if shape.length else ''
      with self.profiler.annotate(step), self._compiling(program):
        state, metrics = own.train_step(state, device_batch)
      self.profiler.end(step, metrics)
      bad_steps.add(step, metrics, batch['id'])
      preempted = step < config.total_steps and self.preemption.reached(step)
      log = _is_due(config, 'log_every', step)
      evaluate = _is_due(config, 'evaluate_every', step)
      save = preempted or _is_due(config, 'checkpoint_every', step)
      save = save or (evaluate and bool(config.keep_best))
      if log or save:
        bad_steps.check()
      row = self._metrics_row(step, metrics, timer) if log else {}
      with timer.paused():
        if save:
          progress = self.counts.total() | {'examples': self.examples, 'row': row}
          self.logger.save()
          self.checkpoints.save(state, progress)
        # An evaluation may outlast the grace period, so it is left to the resumed run.
        if not (preempted and evaluate):
          self.evaluate_and_log(step, row, state)
      self.logger.advance(step)
      if preempted:
        error = Preempted(step)
        logging.warning('%s', error)
        raise error
    return state

  def evaluate_and_log(self, step: int, row: dict[str, float], state: TrainState) -> None:
    """Evaluates the state if that is due at this step, and writes a line of metrics."""
    metrics = {}
    if _is_due(self.run.config, 'evaluate_every', step):
      self.checkpoints.wait()
      with self._compiling('evaluation'):
        metrics = self.evaluate(state.evaluated)
    if row | metrics:
      self.logger.write(step, row | metrics)
    self.checkpoints.rank(step, metrics)

  def _compiling(self, program: str) -> contextlib.AbstractContextManager:
    """A context for the use of a program, which says that its first use compiles it."""
    if program in self._compiled:
      return contextlib.nullcontext()
    self._compiled.add(program)
    return waiting(f'compiling and running the first {program}')

  def _metrics_row(self, step, metrics, timer: StepTimer) -> dict[str, float]:
    row = {f'train/{name}': float(value) for name, value in metrics.items() if name != 'bad'}
    before = timer.step
    seconds, waiting = timer.seconds_per_step(step)
    images = self._shapes.images(step) - self._shapes.images(before)
    shape = self._shapes.at(step - 1)
    if shape.length:
      row |= {'train/sequence_length': shape.length, 'train/batch_size': shape.batch_size}
    counts = self.counts.total()
    if (ideal := _ideal_seconds(self.run.at(step))) is not None:
      row['train/model_flops_utilisation'] = ideal / seconds
    return row | {
      'train/learning_rate': float(self.run.schedule(step - 1)),
      'train/images_per_second': images / (seconds * (step - before)),
      'train/step_seconds': seconds,
      'train/data_wait_seconds': waiting,
      'train/skipped': counts['skipped'],
      'train/truncated': counts['truncated'],
      'train/bad_steps': counts['bad_steps'],
    }

  @functools.cached_property
  def _shapes(self) -> data.BatchShapes:
    return batch_shapes(self.run.config)


def _ideal_seconds(run: Run) -> float | None:
  """Mean seconds per step at the chips' peak FLOPs; None if the peak is unknown."""
  if (chip := chip_of(run.mesh.devices.flat[0])) is None:
    return None
  given = run.config, run.abstract_state.parameters, run.objective, run.sizes
  parts = flops.analytic(*given, teacher=run.teacher)
  return sum(parts.values()) / (chip.peak * run.mesh.size)


def _is_due(config: ConfigDict, every: str, step: int) -> bool:
  """Whether an action is due at a step, by the field with its interval; always at the last step."""
  return step == config.total_steps or step % config[every] == 0


def _first_state(run, source, checkpoints, counts, initial) -> tuple[TrainState, dict]:
  """The state to start from, and its row of metrics; restores the counts of a checkpoint."""
  if checkpoints.latest_step is None:
    with waiting('compiling the initial state, and making it'):
      parameters, target = initial
      teacher = None if run.teacher is None else run.teacher.parameters
      return start_from(run.create_state(run.config.seed), parameters, target, teacher), {}
  state, progress = checkpoints.restore(run.abstract_state)
  examples = progress.get('examples', len(source))
  if examples != len(source) and int(state.step) < run.config.total_steps:
    raise ValueError(
      f'config.data.name = {run.config.data.name!r} has {len(source)} examples, but had {examples} '
      f'at step {int(state.step)}, so the order of examples would differ; restore the data, or '
      'start in another --workdir'
    )
  counts.restore(progress)
  logging.info('resuming after step %d', checkpoints.latest_step)
  return state, progress.get('row', {})


def _open_checkpoints(config: ConfigDict, workdir: pathlib.Path) -> Checkpoints:
  return Checkpoints(
    workdir / 'checkpoints',
    keep=config.keep_checkpoints,
    best=config.keep_best,
    metrics={int(line['step']): line for line in read_metrics(workdir)},
  )


def _training_batches(run: Run, source: data.Source):
  """Opens this process's batches, and the counter of their bad examples."""
  config, inputs, shapes = run.config, run.definition.inputs, batch_shapes(run.config)
  texts: dict[str, Any] = {}
  for name, setting in (('tokens', 'captions'), ('second_tokens', 'second_captions')):
    if name in inputs:
      given = config.data[setting]
      lines = [given] if isinstance(given, str) else given
      texts[setting] = [data.parse_captions(line, setting) for line in lines]
  augmentation = data.TextAugmentation(**config.data.text_augmentation)
  augmentation.open()
  return data.training_batches(
    source,
    run.tokenizer,
    batch_size=config.batch_size,
    image_size=config.data.get('size', 0),
    prompts=config.data.prompts,
    keep=config.texts if config.texts > 1 else None,
    augment_texts=augmentation if augmentation.changes else None,
    crop=config.data.get('crop') or None,
    inputs=inputs,
    numbers=config.data.numbers,
    nodes=config.data.nodes,
    labels=config.data.labels,
    classes=config.data.classes,
    number=config.data.number,
    audio=config.data.audio,
    voices=config.data.voices,
    audio_size=config.model.get('audio', {}).get('size', 0),
    audio_seconds=config.data.audio_seconds,
    negatives=config.data.negatives,
    negative_rules=config.data.negative_rules,
    negative_captions=config.data.negative_captions,
    teacher_tokenizer=None if run.teacher is None else run.teacher.tokenize,
    table=getattr(run.teacher, 'table', None),
    **texts,
    subset=config.data.subset,
    replacement=config.data.replacement,
    shuffle=config.data.shuffle,
    shuffle_buffer=config.data.shuffle_buffer,
    workers=worker_count(config.data.workers, source, run.mesh),
    seed=config.seed,
    rows=functools.partial(local_rows, run.mesh),
    shapes=shapes.shapes if shapes.shapes[0].length else (),
  )
