"""Trains, evaluates, exports, compares or plans runs of a config.

python launch.py --config=configs/clip.py
python launch.py --mode=evaluate --workdir=runs/clip-default    or --mode=export
python launch.py --mode=evaluate --model=FOLDER_OR_RUN --data=SOURCE,SOURCE
python launch.py --mode=compare --workdirs=runs/clip-default,runs/coca-default
python launch.py --mode=plan --config=configs/coca.py:large --topology=v5e:16x16
"""

import functools
import pathlib
import sys
import time

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from contrastive_jax import benchmark, data, interop, tasks
from contrastive_jax.evaluation.open import evaluation_length, open_evaluator
from contrastive_jax.planning import plan
from contrastive_jax.report import compare, examples, results
from contrastive_jax.runtime import buckets, processes
from contrastive_jax.runtime.waiting import waiting
from contrastive_jax.training import build, command_line, logger, loop, restore, trackers, workdir
from contrastive_jax.training.batch import batch_shapes
from contrastive_jax.training.state import FROZEN

command_line.accept_none()
_CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, or FILE:VARIANT.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run, or of the results of --model.')
_WORKDIRS = flags.DEFINE_list('workdirs', [], 'Runs to compare; the first is the baseline.')
_MODES = ['train', 'evaluate', 'compare', 'plan', 'export']
_MODE = flags.DEFINE_enum('mode', 'train', _MODES, 'Action.')
_TOPOLOGY = flags.DEFINE_string('topology', 'cpu:8', 'Plan for v5e:16x16, h100:64, …')
_SEARCH = flags.DEFINE_float('search', 300, 'Seconds in which to look for faster settings.')
_MODEL = flags.DEFINE_string('model', None, 'Run, or folder of weights, to evaluate on --data.')
_DATA = flags.DEFINE_string('data', None, 'SOURCE,NAME=SOURCE:SPLIT,… to evaluate --model on.')
_TASKS = flags.DEFINE_list('tasks', [], 'retrieval:FIELD, zero_shot:FIELD=NAMES; default: any.')
_TEMPLATES = flags.DEFINE_multi_string('templates', [], 'Prompts with {}, or a file of them.')
_TOKENIZER = flags.DEFINE_string('tokenizer', None, 'Tokenizer of --model, if it is not beside it.')
_BATCH_SIZE = flags.DEFINE_integer('batch_size', 256, 'Images or texts per batch of --model.')
_LENGTH = flags.DEFINE_integer('sequence_length', None, 'Patches per image of --model (NaFlex).')
_COORDINATOR = flags.DEFINE_string('coordinator', None, 'HOST:PORT of the first process.')
_PROCESSES = flags.DEFINE_integer('processes', None, 'Number of processes, if not detected.')
_PROCESS = flags.DEFINE_integer('process', None, 'Index of this process, from 0.')


def main(_) -> None:
  """Checks the flags, connects to the run's other processes, and runs the mode."""
  logging.set_verbosity(logging.WARNING)
  command_line.check_flags(sys.argv[1:])
  if _MODE.value == 'compare':
    compare_runs([buckets.open_path(folder) for folder in _WORKDIRS.value], _WORKDIR.value)
    return
  if _MODEL.value or _DATA.value:
    evaluate_model()
    return
  if (config := _CONFIG.value) is None and _WORKDIR.value is None:
    raise app.UsageError('give --config=configs/clip.py, or the --workdir of a run to resume')
  folder = buckets.open_path(_WORKDIR.value or workdir.default_workdir(config))
  if _MODE.value == 'train':
    command_line.check_saves(folder)
  config = workdir.upgrade(config or workdir.read_config(folder))
  if 'task' in config:
    return run_task(config, folder)
  command_line.set_up_programs(config)
  if _MODE.value == 'plan':
    plan.run(config, _TOPOLOGY.value, folder, _SEARCH.value)
    return
  command_line.set_up_process(config)
  joined = processes.distributed(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  with joined, workdir.unlocking():
    run_mode(config, folder)


def evaluate_model() -> None:
  """Evaluates --model on --data, without a config."""
  if not (_MODEL.value and _DATA.value) or _MODE.value != 'evaluate' or _CONFIG.value:
    raise app.UsageError('--model and --data go together, with --mode=evaluate, without --config')
  command_line.set_up_process(ConfigDict())
  with processes.distributed(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value):
    options = _TASKS, _TEMPLATES, _TOKENIZER, _BATCH_SIZE, _LENGTH, _WORKDIR
    benchmark.run(_MODEL.value, _DATA.value, **{flag.name: flag.value for flag in options})


def run_task(config: ConfigDict, folder: pathlib.Path) -> None:
  """Trains and evaluates a config of a task, such as configs/methods/rankmixup.py."""
  if _MODE.value != 'train':
    raise app.UsageError(f'config.task = {config.task!r} has --mode=train alone')
  command_line.set_up_process(config)
  with workdir.unlocking():
    results.print_table(tasks.run(config, folder))


def compare_runs(folders: list[pathlib.Path], output: str | None) -> None:
  """Writes compare.html to a folder, by default the parent folder of the first run."""
  runs = [compare.open_run(f, workdir.read_config(f), logger.read_metrics(f)) for f in folders]
  parent = (folders or [pathlib.Path()])[0].resolve().parent
  compare.write((buckets.open_path(output) if output else parent) / 'compare.html', runs)


def open_source(name: str, split: str, folder: str | None):
  """Opens a source on the first process, which stores its indices, and then on the others."""
  action = functools.partial(data.open_source, name, split, folder)
  return processes.first_then_others(action, f'opens {name}, split {split}')


def run_mode(config, folder: pathlib.Path) -> None:
  """Runs --mode=train, evaluate or export; the first two write results.json and report.html."""
  start = time.perf_counter()
  # Opening raises all errors of the config, before anything is written or compiled.
  train, data_folder = _MODE.value == 'train', config.data.folder or None
  if train and config.tracker:
    trackers.find_tracker(config.tracker)
  source = open_source(config.data.name, config.data.split, data_folder) if train else None
  run = build.build(config, examples=source.rows) if train else restore.open_run(config, folder)
  if _MODE.value == 'export':
    parameters = restore.restore_parameters(run, folder).parameters
    options = run.tokenizer, evaluation_length(config)
    return print(interop.export_run(config.to_dict(), parameters, folder, *options))
  evaluator = open_evaluator(
    config, run.definition, run.tokenizer, run.mesh, source, open_source=open_source
  )
  if train:
    evaluator.check_best(config.keep_best)
  is_new = train and not workdir.has_checkpoint(folder)
  read = functools.partial(
    interop.initial_parameters,
    fields=config.model.to_dict(),
    mean=config.data.get('mean', ()),
    std=config.data.get('std', ()),
  )
  frozen = is_new and FROZEN in run.objective.targets
  weights = (
    read(config.init_from if is_new else '', towers=config.init_towers),
    read(config.teacher if frozen else '', field='teacher'),
  )
  processes.on_first_process(lambda: workdir.lock(folder, config), 'locks the workdir')
  if is_first := jax.process_index() == 0:
    logger.print_parameters(jax.eval_shape(run.definition.init, jax.random.key(0)))
  with trackers.open_tracker(config, folder) if train else trackers.Tracking() as tracking:
    if train:
      state = loop.train(run, source, folder, evaluator, *weights, tracking=tracking)
      parameters, step = state.evaluated, int(state.step)
    else:
      parameters, step = restore.restore_parameters(run, folder)
    with waiting('compiling and running the final evaluation'):
      metrics, splits = evaluator.finish(parameters)
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    images = batch_shapes(config).images(step)
    metrics |= {'step': step, 'images_seen': images, 'parameters': count}
    metrics['seconds'] = time.perf_counter() - start
    if is_first:
      with waiting(f'writing the report to {folder}'):
        lines = logger.read_metrics(folder)
        metrics = results.write(folder, config, metrics, splits, lines)
      tracking.finish(metrics, folder / 'report.html', lambda: examples.strips(splits))


if __name__ == '__main__':
  app.run(main)
