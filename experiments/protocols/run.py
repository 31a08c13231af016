"""All evaluation protocols on finished runs.

  python experiments/protocols/run.py --workdir=runs/clip-default --workdir=runs/coca-default

With --stamps=FILE, written by tux_paint.py, also on images of another domain. Prints the README's
table and writes results.json.
"""

import json
import pathlib
import re
import sys
import time

from absl import app, flags

FOLDER = pathlib.Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1]))
from configs import clip  # noqa: E402
from contrastive_jax import data  # noqa: E402
from contrastive_jax.evaluation.evaluator import PROBES  # noqa: E402
from contrastive_jax.evaluation.open import open_evaluator  # noqa: E402
from contrastive_jax.training import restore, workdir  # noqa: E402

# Metrics of the table; results.json has other cutoffs too.
SHOWN = re.compile(r'.*(@1|accuracy|per_class_recall|exact_match|cider|seconds)')

WORKDIRS = flags.DEFINE_multi_string('workdir', None, 'Folder of a finished run.', required=True)
STAMPS = flags.DEFINE_string('stamps', None, 'JSON Lines of tux_paint.py.')
OUTPUT = flags.DEFINE_string('output', str(FOLDER / 'results.json'), 'Output file.')


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
  """Evaluates, prints and writes."""
  results = {pathlib.Path(name).name: evaluate(pathlib.Path(name)) for name in WORKDIRS.value}
  pathlib.Path(OUTPUT.value).write_text(json.dumps(results, indent=2) + '\n')
  print(f'| | {" | ".join(results)} |\n|---|{"---:|" * len(results)}')
  names = dict.fromkeys(name for row in results.values() for name in row)
  for figure in filter(SHOWN.fullmatch, names):
    form = '.2f' if figure.endswith('cider') else '.1f' if figure == 'seconds' else '.1%'
    cells = (f'{row[figure]:{form}}' if figure in row else '' for row in results.values())
    print(f'| {figure} | {" | ".join(cells)} |')


if __name__ == '__main__':
  app.run(main)
