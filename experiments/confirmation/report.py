"""The tables of results.json."""

import functools
import pathlib
import statistics
from collections.abc import Mapping

from experiments import records
from experiments.claims import claim
from experiments.claims import statistics as rule
from experiments.confirmation import arms
from experiments.side_by_side import RECALL

RESULTS = pathlib.Path(__file__).with_name('results.json')


def selection(path: pathlib.Path) -> str:
  """Returns recall of each method on the validation style, the best first."""
  results = records.rows(path)
  means = {}
  for method in (arms.BASELINE, *arms.CANDIDATES):
    if own := arms.rows(results, 'selection', method, arms.SELECTION_SEEDS):
      means[method] = [statistics.mean(row[metric] for row in own) for metric in RECALL]
  order = sorted(means, key=lambda method: -sum(means[method]))
  chosen = arms.choose(results)
  rows = [
    [method, *(f'{value:.1%}' for value in means[method]), 'yes' if method in chosen else '']
    for method in order
  ]
  return records.markdown('lrrl', ['', *RECALL.values(), 'chosen'], rows)


def confirmation(path: pathlib.Path) -> str:
  """Returns recall on the held-out style at full length, and how methods differ from CLIP."""
  results = records.rows(path)
  methods = arms.BASELINE, *arms.choose(results)
  found = {each: arms.rows(results, 'confirmation', each, arms.SEEDS) for each in methods}
  differences, rows = _differences(found), []
  for method, own in found.items():
    if own:
      cells = [f'{statistics.mean(row[metric] for row in own):.1%}' for metric in RECALL]
      rows.append([method, len(own), *cells, differences.get(method, '')])
  return records.markdown('lrrrl', ['', 'seeds', *RECALL.values(), 'points beside CLIP'], rows)


def _differences(found: Mapping[str, list[dict[str, float]]]) -> dict[str, str]:
  """The mean difference from CLIP over pairs of seeds, its interval and verdict, by method."""
  clip, paired = found[arms.BASELINE], {}
  for method, own in found.items():
    pairs = [arms.recall(row) - arms.recall(other) for row, other in zip(own, clip, strict=False)]
    if method != arms.BASELINE and len(pairs) > 1:
      paired[method] = rule.paired(pairs)
  verdicts = rule.control(
    {method: rule.verdict(each, claim.Comparison.delta) for method, each in paired.items()},
    {
      method: paired[method].p if method in paired else 1.0
      for method in found.keys() - {arms.BASELINE}
    },
  )
  return {
    method: f'{100 * each.difference:+.1f} ({100 * each.interval[0]:+.1f} to '
    f'{100 * each.interval[1]:+.1f}): {verdicts[method]}'
    for method, each in paired.items()
  }


TABLES = {
  'selection': functools.partial(selection, RESULTS),
  'confirmation': functools.partial(confirmation, RESULTS),
}
