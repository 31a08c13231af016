"""Compares CoCa to CLIP on the same images with the same image tower.

  python experiments/coca_against_clip/run.py --folder=runs

Trains configs/clip.py and configs/coca.py in turn, resumes unfinished runs, and uses finished ones.
Prints the README's table and writes results.json.
"""

import json
import pathlib
import subprocess
import sys

from absl import app, flags

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parents[1]

RUNS = flags.DEFINE_string('folder', 'runs', 'Holds clip-default and coca-default.')
OVERRIDES = flags.DEFINE_multi_string('override', [], 'FIELD=VALUE of both configs.')
OUTPUT = flags.DEFINE_string('output', str(FOLDER / 'results.json'), 'Output file.')

SPLITS = ('heldout_style', 'heldout_composition')
RECALLS = tuple(
  f'{split}/{way}_recall@{k}'
  for split in SPLITS
  for way in ('image_to_text', 'text_to_image')
  for k in (1, 5)
)
CAPTIONS = tuple(
  f'{split}/{origin}_{score}'
  for split in SPLITS
  for score in ('exact_match', 'bleu_4', 'rouge_l', 'cider')
  for origin in ('caption', 'retrieved_caption')
)


def train(name: str) -> dict[str, float]:
  """Returns the results of a run of `configs/NAME.py`."""
  workdir = pathlib.Path(RUNS.value).absolute() / f'{name}-default'
  if not (workdir / 'results.json').exists():
    fields = [f'--config.{override}' for override in OVERRIDES.value]
    command = ['launch.py', f'--config=configs/{name}.py', f'--workdir={workdir}', *fields]
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
  return json.loads((workdir / 'results.json').read_text())


def main(_):
  """Trains both and compares."""
  results = {name: train(name) for name in ('clip', 'coca')}
  seen = {name: row['images_seen'] for name, row in results.items()}
  if len(set(seen.values())) > 1:
    raise ValueError(f'the runs saw different numbers of images, {seen}; train them alike')
  print('| | CLIP | CoCa |\n|---|---:|---:|')
  for figure in RECALLS + CAPTIONS:
    form = '.2f' if figure.endswith('cider') else '.1%'
    cells = (f'{row[figure]:{form}}' if figure in row else '' for row in results.values())
    print(f'| {figure} | {" | ".join(cells)} |')
  for figure in ('images_seen', 'parameters', 'seconds'):
    print(f'| {figure} | {" | ".join(f"{row[figure]:,.0f}" for row in results.values())} |')
  pathlib.Path(OUTPUT.value).write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
  app.run(main)
