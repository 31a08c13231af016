"""The table of results.json."""

import functools
import pathlib
import statistics

from experiments import records
from experiments.recipe import arms
from experiments.side_by_side import RECALL

RESULTS = pathlib.Path(__file__).with_name('results.json')


def recipe(path: pathlib.Path) -> str:
  """Returns recall on the validation style per arm, and how its mean differs from the recipe's."""
  results = records.read(path)['results']
  mean = lambda arm: statistics.mean(results[arm][metric] for metric in RECALL)  # noqa: E731
  rows = []
  for arm in filter(results.__contains__, arms.ARMS):
    recall = [f'{results[arm][metric]:.1%}' for metric in RECALL]
    difference = f'{100 * (mean(arm) - mean(arms.BASELINE)):+.1f}' if arm != arms.BASELINE else ''
    steps = (arms.FIRST | arms.ARMS[arm])['total_steps']
    rows.append([arm, f'{steps:,}', *recall, difference])
  header = ['', 'steps', *RECALL.values(), 'mean, points']
  return records.markdown('lrrrr', header, rows)


TABLES = {'recipe': functools.partial(recipe, RESULTS)}
