"""The one entry: trains, evaluates or exports what a config describes.

python launch.py --config=configs/clip.py
python launch.py --mode=evaluate --workdir=runs/clip-default    or --mode=export
"""

import json
import pathlib
import time
from functools import partial

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from contrastive_jax import data, interop
from contrastive_jax.evaluation import report
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.sharding.mesh import split_cpu
from contrastive_jax.training import logger, loop, workdir

_CONFIG = config_flags.DEFINE_config_file('config', None, 'A file of configs/, or FILE:VARIANT.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; default runs/NAME-VARIANT.')
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'evaluate', 'export'], 'What to do.')


def main(_) -> None:
  """Runs the mode, and leaves results.json and report.html in the workdir."""
  start = time.perf_counter()
  logging.set_verbosity(logging.WARNING)
  split_cpu()
  if (config := _CONFIG.value) is None and _WORKDIR.value is None:
    raise app.UsageError('give --config=configs/clip.py, or the --workdir of a run to go on with')
  folder = pathlib.Path(_WORKDIR.value or workdir.default_workdir(config))
  config = config or workdir.read_config(folder)
  # All that can be wrong shows here, before anything is written or compiled.
  run = loop.build(config)
  if _MODE.value == 'export':
    parameters = loop.restore(run, folder).evaluated
    return print(interop.export_run(config.to_dict(), parameters, folder, run.tokenizer.end_id))
  source, evaluator = open_data(run)
  train = _MODE.value == 'train'
  first = interop.initial_parameters(config.init_from if train else '', config.model.to_dict())
  workdir.claim(folder, config)
  logger.print_parameters(run.abstract_state.parameters)
  state = loop.train(run, source, folder, evaluator, first) if train else loop.restore(run, folder)
  finish(run, state, evaluator, folder, start)


def open_data(run: loop.Run) -> tuple[data.Source, Evaluator]:
  """The training examples, and the evaluator of the held-out splits."""
  config = run.config
  open_split = partial(data.open_source, config.data.name, folder=config.data.folder or None)
  source = open_split(config.data.split)
  return source, Evaluator(
    run.definition,
    run.tokenizer,
    {split: open_split(split) for split in config.evaluation.splits},
    run.mesh,
    image_size=config.model.image.size,
    batch_size=config.evaluation.batch_size,
    classes={field: sorted(set(source.values(field))) for field in config.evaluation.zero_shot},
    templates=config.evaluation.templates,
    probes={kind: open_split(config.evaluation.probe_split) for kind in config.evaluation.probes},
    captions=config.evaluation.get('captions', {}),
    candidates=source,
  )


def finish(run: loop.Run, state, evaluator: Evaluator, folder: pathlib.Path, start: float) -> None:
  """Evaluates a last time, and writes and shows what came out."""
  figures, splits = evaluator.finish(state.evaluated)
  results = figures | {
    'step': int(state.step),
    'images_seen': int(state.step) * run.config.batch_size,
    'parameters': sum(leaf.size for leaf in jax.tree.leaves(state.parameters)),
    'seconds': time.perf_counter() - start,
  }
  (folder / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
  report.write(
    folder / 'report.html',
    title=f'{run.config.name} {run.config.variant}',
    summary={
      'data': f'{run.config.data.name}, {run.config.data.split}',
      'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'parameters': f'{results["parameters"]:,}',
      'images seen': f'{results["images_seen"]:,}',
      'seconds': f'{results["seconds"]:.0f}',
    },
    results=results,
    metrics=logger.read_metrics(folder),
    splits=splits,
  )
  logger.print_results(results)
  print(f'{folder}/report.html shows the curves, retrieved pictures and mistakes')


if __name__ == '__main__':
  app.run(main)
