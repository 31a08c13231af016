"""All evaluation protocols on finished runs.

  python -m experiments.protocols.run --workdir=runs/clip-default --workdir=runs/coca-default

With --stamps=FILE, written by tux_paint.py, also on images of another domain. Adds the runs to
results.json, by the names of their folders, and prints its table.
"""

import pathlib
import time

from absl import app, flags

from configs import clip
from contrastive_jax import data
from contrastive_jax.evaluation.open import open_evaluator
from contrastive_jax.evaluation.probing import PROBES
from contrastive_jax.training import restore, workdir
from experiments import records
from experiments.protocols import report

WORKDIRS = flags.DEFINE_multi_string('workdir', None, 'Folder of a finished run.', required=True)
STAMPS = flags.DEFINE_string('stamps', None, 'JSON Lines of tux_paint.py.')
OUTPUT = flags.DEFINE_string('output', str(report.RESULTS), 'Output file.')


def evaluate(folder: pathlib.Path) -> dict[str, float]:
  """Returns the metrics of a run by all protocols, and the seconds."""
  config = workdir.read_config(folder)
  # The evaluation follows today's configs/clip.py, whatever the run's config.
  evaluation = clip.get_config().evaluation
  for field in ('probe_split', 'pairs', 'partners'):
    config.evaluation[field] = evaluation[field]
  config.evaluation.probes = tuple(PROBES)
  config.evaluation.texts = ('caption', 'names')
  if STAMPS.value:
    stamps = f'stamps=jsonl:{pathlib.Path(STAMPS.value).absolute()}'
    config.evaluation.splits = (*config.evaluation.splits, stamps)
  run = restore.open_run(config, folder)
  parameters = restore.restore_parameters(run, folder).parameters
  source = data.open_source(config.data.name, config.data.split, config.data.folder or None)
  start = time.perf_counter()
  evaluator = open_evaluator(config, run.definition, run.tokenizer, run.mesh, source)
  metrics, _ = evaluator.finish(parameters)
  return metrics | {'seconds': time.perf_counter() - start}


def main(_):
  """Evaluates, writes and prints."""
  output = pathlib.Path(OUTPUT.value)
  results = records.rows(output)
  results |= {pathlib.Path(name).name: evaluate(pathlib.Path(name)) for name in WORKDIRS.value}
  records.write(output, results, resumed=True)
  print(report.protocols(output))


if __name__ == '__main__':
  app.run(main)
