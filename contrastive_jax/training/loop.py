"""The training loop: from a config and a workdir to a trained state."""

import contextlib
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.runtime import processes
from contrastive_jax.runtime.chips import chip_of
from contrastive_jax.runtime.preemption import Preempted, Preemption
from contrastive_jax.sharding.mesh import local_rows, place_rows
from contrastive_jax.training import flops
from contrastive_jax.training.bad_steps import BadSteps
from contrastive_jax.training.build import Run
from contrastive_jax.training.checkpoint import Checkpoints
from contrastive_jax.training.logger import open_logger, read_metrics
from contrastive_jax.training.state import TrainState, start_from
from contrastive_jax.training.timing import Clock, Trace

# Of the data, see `BadExamples`.
_COUNTS = ('seen', 'skipped', 'truncated')

# A trace begins after so many steps, when all is compiled and warm.
_UNTRACED = 3


def train(
  run: Run,
  source: data.Source,
  workdir: pathlib.Path,
  evaluate: Callable[[Any], dict[str, float]],
  initial: Any = None,
  teacher: Any = None,
) -> TrainState:
  """Trains to the config's last step, from the workdir's newest checkpoint if it has one.

  Args:
    run: from `build`.
    source: the training examples.
    workdir: takes metrics.jsonl, TensorBoard events and checkpoints.
    evaluate: parameters -> figures, called every `config.evaluate_every` steps. The checkpoint of
      such a step, where one is due, is complete before it; if it fails or is killed, a resumed run
      evaluates that step first.
    initial: parameters to start from, a nested dict of arrays; default: drawn from the seed.
    teacher: parameters of the frozen target, where a method reads one.

  Returns:
    The last state. A workdir whose run is finished gives it without a step.

  Raises:
    FloatingPointError: at a bad step, see `BadSteps`; the last checkpoint is kept.
    Preempted: after a SIGTERM, when the step that ran then is saved.
    ValueError: when over 1% of the examples cannot be used, or the data has more or fewer of them
      than at the checkpoint.
  """
  config = run.config
  batches, skips = _training_batches(run, source)
  checkpoints = _open_checkpoints(config, workdir)
  bad = BadSteps(workdir, skip=config.bad_steps.action == 'skip')
  state, row = _first_state(run, source, checkpoints, skips, bad, (initial, teacher))
  first = int(state.step)
  unfinished = first > 0 and all(line['step'] != first for line in read_metrics(workdir))
  batches.set_state({'batch': first})
  # However training ends, a checkpoint that is being written is finished.
  with (
    contextlib.closing(checkpoints),
    contextlib.closing(batches),
    open_logger(workdir, step=first, total_steps=config.total_steps) as logger,
    Preemption() as preemption,
    Trace(
      workdir / 'profile', after=first + _UNTRACED, steps=config.profile, until=config.total_steps
    ) as trace,
  ):
    finish = partial(_finish, config, evaluate, checkpoints, logger)
    if unfinished:
      finish(first, row, state)
    clock, ideal = Clock(first), _ideal_seconds(run)
    for step in range(first + 1, config.total_steps + 1):
      with clock.waiting():
        # The step before still runs: a batch is on its way to the devices while they compute.
        batch = run.augment(step, next(batches))
        rows = place_rows(batch, run.mesh, config.batch_size)
      with trace.at(step):
        state, metrics = run.train_step(state, rows)
      trace.end(step, metrics)
      bad.add(step, metrics, batch['id'])
      preempted = step < config.total_steps and preemption.reached(step)
      log, evaluated, save = (
        _is_due(config, every, step)
        for every in ('log_every', 'evaluate_every', 'checkpoint_every')
      )
      save |= preempted or (evaluated and bool(config.keep_best))
      if log or save:
        bad.check()
      row = _metrics_row(run, step, metrics, clock, ideal, skips, bad) if log else {}
      with clock.stopped():
        if save:
          progress = _progress(skips, bad) | {'examples': len(source), 'row': row}
          checkpoints.save(state, progress)
        # An evaluation may outlast the grace period: the resumed run makes up for it.
        if not (preempted and evaluated):
          finish(step, row, state)
      logger.advance(step)
      if preempted:
        logging.warning('%s', stop := Preempted(step))
        raise stop
  return state


def _is_due(config: ConfigDict, every: str, step: int) -> bool:
  """Whether a step is of the rhythm that a field gives; the last step is of every one."""
  return step == config.total_steps or step % config[every] == 0


def _first_state(run, source, checkpoints, skips, bad, initial) -> tuple[TrainState, dict]:
  """The newest checkpoint's, with all that goes on from there, or a new one; and its metrics."""
  if checkpoints.latest_step is None:
    state = run.create_state(run.config.seed)
    return start_from(state, *initial), {}
  state, progress = checkpoints.restore(run.abstract_state)
  had = progress.get('examples', len(source))
  if had != len(source) and int(state.step) < run.config.total_steps:
    raise ValueError(
      f'config.data.name = {run.config.data.name!r} has {len(source)} examples, and had {had} at '
      f'step {int(state.step)}: in another order, some would come twice and some not at all; put '
      'the data back as it was, or begin in another --workdir'
    )
  bad.count = progress['bad_steps']
  # The counts are of all processes; they are added up again when they are next written.
  if jax.process_index() == 0:
    for name in _COUNTS:
      setattr(skips, name, progress[name])
  logging.info('continuing after step %d', checkpoints.latest_step)
  return state, progress.get('row', {})


def _finish(config, evaluate, checkpoints, logger, step, row, state) -> None:
  """Evaluates the state where that is due, and writes the line of its step."""
  figures = {}
  if _is_due(config, 'evaluate_every', step):
    checkpoints.wait()
    figures = evaluate(state.evaluated)
  if row | figures:
    logger.write(step, row | figures)
  checkpoints.rank(step, figures)


def _progress(skips, bad) -> dict[str, int]:
  own = np.array([[getattr(skips, name) for name in _COUNTS]])
  counts = processes.gather(own).sum(axis=0).tolist()
  return dict(zip(_COUNTS, counts, strict=True)) | {'bad_steps': bad.count}


def _metrics_row(run, step, metrics, clock, ideal, skips, bad) -> dict[str, float]:
  row = {f'train/{name}': float(value) for name, value in metrics.items() if name != 'bad'}
  seconds, waited = clock.seconds_per_step(step)
  progress = _progress(skips, bad)
  if ideal is not None:
    row['train/model_flops_utilisation'] = ideal / seconds
  return row | {
    'train/learning_rate': float(run.schedule(step - 1)),
    'train/images_per_second': run.config.batch_size / seconds,
    'train/step_seconds': seconds,
    'train/data_wait_seconds': waited,
    'train/skipped': progress['skipped'],
    'train/truncated': progress['truncated'],
    'train/bad_steps': progress['bad_steps'],
  }


def _ideal_seconds(run: Run) -> float | None:
  """Of a step whose chips do the model's operations at their published peak; None without one."""
  if (chip := chip_of(run.mesh.devices.flat[0])) is None:
    return None
  model = sum(
    flops.analytic(run.config, run.abstract_state.parameters, run.objective, run.sizes).values()
  )
  return model / (chip.peak * run.mesh.size)


def _open_checkpoints(config: ConfigDict, workdir: pathlib.Path) -> Checkpoints:
  return Checkpoints(
    workdir / 'checkpoints',
    keep=config.keep_checkpoints,
    best=config.keep_best,
    figures={line['step']: line for line in read_metrics(workdir)},
  )


def _training_batches(run: Run, source: data.Source):
  """This process's batches, and their skips."""
  config, inputs, texts = run.config, run.definition.inputs, {}
  for name, setting in (('tokens', 'captions'), ('second_tokens', 'second_captions')):
    if name in inputs:
      texts[setting] = data.parse_captions(config.data[setting], setting)
  return data.training_batches(
    source,
    run.tokenizer,
    batch_size=config.batch_size,
    image_size=config.data.get('size', 0),
    prompts=config.data.prompts,
    keep=config.texts if config.texts > 1 else None,
    crop=config.data.get('crop') or None,
    inputs=inputs,
    numbers=config.data.numbers,
    nodes=config.data.nodes,
    labels=config.data.labels,
    **texts,
    subset=config.data.subset,
    replacement=config.data.replacement,
    workers=config.data.workers,
    seed=config.seed,
    rows=local_rows(run.mesh, config.batch_size),
  )
