"""Compares runs: curves on common plots, and differences of results with intervals."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import rich.console
import rich.table
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from contrastive_jax.evaluation import outcomes
from contrastive_jax.report import curves, formatting, page, plots

MAX_RUNS = 6  # more lines would be hard to tell apart
LEVEL = 0.95  # confidence level

_WIDTH = 150  # width of a drawn interval, in SVG units


class Run(NamedTuple):
  """The files of a finished run."""

  folder: pathlib.Path
  config: ConfigDict
  metrics: Sequence[Mapping[str, float]]
  results: Mapping[str, float]
  outcomes: Mapping[str, outcomes.Outcome]


def open_run(folder: pathlib.Path, config: ConfigDict, metrics) -> Run:
  """Reads the results of a run.

  Raises:
    ValueError: if it has none.
  """
  path = folder / 'results.json'
  if not path.exists():
    raise ValueError(
      f'workdir {folder} has no results.json; finish it, or run --mode=evaluate --workdir={folder}'
    )
  found = outcomes.read(folder / 'outcomes.npz')
  return Run(folder, config, metrics, json.loads(path.read_text()), found)


def write(path: pathlib.Path, runs: Sequence[Run]) -> None:
  """Compares runs to the first one, on a page and on the terminal.

  Args:
    path: the page to write.
    runs: two to six runs.

  Raises:
    ValueError: if there are fewer or more runs, or they share no result.
  """
  if not 2 <= len(runs) <= MAX_RUNS:
    raise ValueError(f'--workdirs names {len(runs)} runs; give 2 to {MAX_RUNS}, comma-separated')
  shared = [name for name in runs[0].results if all(name in run.results for run in runs)]
  if not shared:
    raise ValueError('the runs of --workdirs share no result; compare runs with the same splits')
  names = [chr(ord('A') + index) for index in range(len(runs))]
  rows, notes = _compare(runs, names, shared)
  text = page.render(
    'compare.html',
    runs=[
      {'name': name, 'folder': str(run.folder), 'title': f'{run.config.name} {run.config.variant}'}
      for name, run in zip(names, runs, strict=True)
    ],
    fields=_differing([run.config for run in runs]),
    tables=_tables(rows),
    panels=_panels(runs, names),
    notes=notes,
    level=LEVEL,
    width=_WIDTH,
  )
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding='utf-8')
  _print(rows, notes, names)
  print(f'{path} shows the curves and the intervals')


def _compare(runs, names, shared) -> tuple[list[dict], list[str]]:
  """Returns the rows of the comparison, one per shared result, and notes on missing intervals."""
  notes = [
    f'{name} has no outcomes.npz, so that its differences have no interval; write it with '
    f'--mode=evaluate --workdir={run.folder}'
    for name, run in zip(names, runs, strict=True)
    if not run.outcomes
  ]
  rows = []
  for name in shared:
    first = formatting.parse_metric(name, runs[0].results[name])
    others = []
    for run in runs[1:]:
      other = formatting.parse_metric(name, run.results[name])
      found, amiss = _difference(name, runs[0], run)
      notes += [f'{name}: {amiss}'] if amiss else []
      sure = found is not None and (found.low > 0 or found.high < 0)
      others.append(
        {'metric': other, 'difference': found, 'text': _signed(first, other), 'sure': sure}
      )
    rows.append({'metric': first, 'others': others})
  return rows, notes


def _difference(name: str, first: Run, other: Run) -> tuple[outcomes.Difference | None, str]:
  """Returns the difference with its interval, or None and the reason."""
  if not all(name in run.outcomes for run in (first, other)):
    return None, ''
  for run in (first, other):
    if not math.isclose(run.outcomes[name].hits.mean(), run.results[name], abs_tol=1e-4):
      return None, f'the outcomes of {run.folder} are not those of its results.json: no interval'
  try:
    return outcomes.difference(first.outcomes[name], other.outcomes[name], level=LEVEL), ''
  except ValueError:
    return None, f'the queries of {other.folder} are not those of {first.folder}: no interval'


def _signed(first: formatting.Metric, other: formatting.Metric) -> str:
  """Formats a difference; fractions in percentage points."""
  change = other.value - first.value
  if formatting.is_fraction(first.name):
    text = f'{100 * change:+.1f}'
  else:
    text = f'{change:+,.0f}' if float(change).is_integer() else f'{change:+,.4g}'
  return text.replace('-', '−')


def _tables(rows) -> list[dict]:
  """Groups rows into tables; the intervals of a table share an axis."""
  groups = {}
  for row in rows:
    groups.setdefault(row['metric'].group, []).append(row)
  tables = []
  for group, members in groups.items():
    found = [e['difference'] for row in members for e in row['others'] if e['difference']]
    reach = max((abs(end) for d in found for end in (d.low, d.high)), default=0) or 1
    axis = plots.Axis(-reach, reach, 4, _WIDTH - 4)
    for entry in (entry for row in members for entry in row['others'] if entry['difference']):
      entry['positions'] = [axis(value) for value in entry['difference']]
      entry['interval'] = ' to '.join(f'{100 * v:+.1f}' for v in entry['difference'][1:])
      entry['interval'] = entry['interval'].replace('-', '−')
    tables.append({'group': group, 'rows': members, 'reach': reach if found else None})
  return tables


def _differing(configs: Sequence[ConfigDict]) -> list[dict]:
  """Returns the fields in which the configs differ, with the value of each."""
  fields = ({'config': json.loads(json.dumps(config.to_dict()))} for config in configs)
  flat = [flatten_dict(each, sep='.') for each in fields]
  fields = dict.fromkeys(field for config in flat for field in config)
  return [
    {'field': field, 'values': [config.get(field, 'absent') for config in flat]}
    for field in fields
    if len({repr(config.get(field, 'absent')) for config in flat}) > 1
  ]


def _panels(runs, names) -> dict[str, list[dict]]:
  """Lays out one plot per measure, at its first cutoff, with one curve per run."""
  series = [curves.read(run.metrics) for run in runs]
  steps = [line['step'] for run in runs for line in run.metrics]
  x_axis = plots.horizontal(0, max(steps, default=0) or 1, integer=True)
  groups, indices = {}, {name: index for index, name in enumerate(names)}
  for group, measure in dict.fromkeys(key for found in series for key in found):
    lines = [found.get((group, measure), {}) for found in series]
    kinds = sorted({kind for found in lines for kind in found}, key=curves.order)
    for kind in kinds[:1] if kinds[0].startswith('@') else kinds:
      own = {name: found[kind] for name, found in zip(names, lines, strict=True) if kind in found}
      title = measure + (f' {kind}' if kind.startswith('@') else f'_{kind}' if kind else '')
      groups.setdefault(group, []).append(
        curves.panel(title, own, x_axis, style='runs', indices=indices)
      )
  return dict(sorted(groups.items(), key=lambda item: item[0] != 'train'))


def _print(rows, notes, names) -> None:
  result = rich.table.Column('result', overflow='fold')
  table = rich.table.Table(result, rich.table.Column(names[0], justify='right'))
  for name in names[1:]:
    table.add_column(name, justify='right')
    table.add_column(f'{name} − {names[0]}, {LEVEL:.0%} interval', justify='right')
  for row in rows:
    cells = [row['metric'].text]
    for entry in row['others']:
      interval = f' ({entry["interval"]})' if 'interval' in entry else ''
      text = f'{entry["text"]}{interval}'
      cells += [entry['metric'].text, f'[bold]{text}[/bold]' if entry['sure'] else text]
    table.add_row(row['metric'].name, *cells)
  console = rich.console.Console()
  console.print(table)
  for note in notes:
    console.print(note, markup=False)
