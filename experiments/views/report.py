"""The tables and plots of results.json."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from contrastive_jax.report import plots
from experiments import records
from experiments.views import arms, chart

RESULTS = pathlib.Path(__file__).with_name('results.json')
Points = list[tuple[float, float]]


class Column(NamedTuple):
  """A column of a table: its header, a row's value, and its format."""

  header: str
  value: str | Callable[[Mapping[str, Any]], float | None]
  format: str = '{:.1%}'


_KNN = Column('k-NN of groups', 'group_neighbours_mean_per_class_recall')
_FINE = Column('k-NN of subgroups', 'subgroup_neighbours_mean_per_class_recall')
_RANK = Column('effective rank', 'effective_rank', '{:.1f}')


def _recall(row: Mapping[str, Any]) -> float:
  return (row['image_to_text_recall@1'] + row['text_to_image_recall@1']) / 2


# What the position of an arm is called, and the columns beside it, by sweep.
_TABLES: dict[str, tuple[str, list[Column]]] = {
  'batches': ('batch', [_KNN]),
  'views': ('views', [_KNN, _RANK]),
  'modalities': (
    'modalities',
    [
      Column('recall@1', _recall),
      Column('effective rank of images', 'effective_rank_image', '{:.1f}'),
    ],
  ),
  'tail': ('batch', [_KNN, _FINE]),
  'balance': ('data', [_KNN, _FINE]),
  'temperatures': (
    'temperature',
    [
      Column('uniformity', 'uniformity', '{:.2f}'),
      Column('tolerance', 'tolerance_subgroup', '{:.3f}'),
      _KNN,
      Column('gradient on the hardest 1%', 'hardest_share'),
    ],
  ),
}


def table(path: pathlib.Path, *, sweep: str) -> str:
  """Returns a row per arm of a sweep."""
  position, columns = _TABLES[sweep]
  return _table(path, sweep, position, columns)


def subsets(path: pathlib.Path, *, targets: tuple[float, ...] = (0.5, 0.75)) -> str:
  """Returns the final recall@5 per arm, and the steps to shares of that on all data."""
  full = records.rows(path).get(str(arms.SWEEPS['subsets']['all data', 1.0]))
  final = Column('recall@5', lambda row: row['curve'][-1][1])
  times = [
    Column(f'steps to {share:.0%} of that of all data', _time_to(share, full), '{:,.0f}')
    for share in targets
  ]
  return _table(path, 'subsets', 'share per round', [final, *times])


def _time_to(share: float, full: Mapping[str, Any] | None):
  def steps(row):
    reached = [step for step, recall in row['curve'] if recall >= share * full['curve'][-1][1]]
    return reached[0] if reached else None

  return steps if full else lambda row: None


def _table(path: pathlib.Path, sweep: str, position: str, columns: list[Column]) -> str:
  known, lines = records.rows(path), []
  if not any(str(arm) in known for arm in arms.SWEEPS[sweep].values()):
    return chart.EMPTY
  for (curve, x), arm in arms.SWEEPS[sweep].items():
    where = f'{x:.0%}' if sweep == 'subsets' else x
    cells = [_cell(column, known.get(str(arm))) for column in columns]
    lines.append([curve, where, *cells])
  header = ['', position, *(column.header for column in columns)]
  return records.markdown('lr' + 'r' * len(columns), header, lines)


def _cell(column: Column, row: Mapping[str, Any] | None) -> str:
  if row is None:
    return ''
  value = column.value(row) if callable(column.value) else row[column.value]
  return 'never' if value is None else column.format.format(value)


def curves(path: pathlib.Path, sweep: str, column: Column) -> dict[str, Points]:
  """Returns the points (position, value) of each curve of a sweep, as far as they are measured."""
  known = records.rows(path)
  found: dict[str, Points] = {name: [] for name, _ in arms.SWEEPS[sweep]}
  for (curve, x), arm in arms.SWEEPS[sweep].items():
    if row := known.get(str(arm)):
      value = column.value(row) if callable(column.value) else row[column.value]
      found[curve].append((x, value))
  return found


def gains(path: pathlib.Path) -> str:
  """Draws the gain of DCL and DCLW over InfoNCE against the batch size."""
  found = curves(path, 'batches', _KNN)
  base = dict(found.pop('InfoNCE'))
  points = {
    name: [(x, 100 * (value - base[x])) for x, value in own if x in base]
    for name, own in found.items()
  }
  panel = chart.Panel('k-NN, points over InfoNCE', 'batch size', points, doubling=True)
  return chart.draw('Gain of DCL and DCLW over InfoNCE against the batch size', [panel])


def views(path: pathlib.Path) -> str:
  """Draws k-NN and effective rank against the number of views."""
  panels = [
    chart.Panel(column.header, 'views', curves(path, 'views', column), style, doubling=True)
    for column, style in ((_KNN, plots.percent), (_RANK, plots.plain))
  ]
  return chart.draw('k-NN and effective rank against the number of views', panels)


def temperatures(path: pathlib.Path) -> str:
  """Draws the columns of the study of temperature against the temperature."""
  panels = [
    chart.Panel(
      column.header,
      'temperature',
      curves(path, 'temperatures', column),
      plots.percent if '%' in column.format else plots.plain,
      logarithmic=True,
    )
    for column in _TABLES['temperatures'][1]
  ]
  return chart.draw('Uniformity, tolerance, k-NN and hard negatives by temperature', panels)


def learned(path: pathlib.Path) -> str:
  """Draws the temperatures that iSogCLR learned against the size of the class."""
  known = records.rows(path)
  points = {
    f'batch of {size}': sorted(known.get(str(arm), {}).get('temperatures', []))
    for (name, size), arm in arms.SWEEPS['tail'].items()
    if name == 'iSogCLR'
  }
  title = 'mean temperature of a class'
  panel = chart.Panel(title, 'examples of the class', points, logarithmic=True, joined=False)
  return chart.draw('Temperatures of iSogCLR against the size of the class', [panel])


def progress(path: pathlib.Path) -> str:
  """Draws recall while it trains on subsets, a panel per share."""
  known, sweep = records.rows(path), arms.SWEEPS['subsets']
  panels = []
  for share in arms.SHARES:
    names = [('all data', 1.0), *(key for key in sweep if key[1] == share)]
    points = {name: known.get(str(sweep[name, x]), {}).get('curve', []) for name, x in names}
    panels.append(chart.Panel(f'recall@5, {share:.0%} of the data', 'step', points, plots.percent))
  return chart.draw('Recall while CLIP trains on subsets', panels)


TABLES = {
  **{name: functools.partial(table, RESULTS, sweep=name) for name in _TABLES},
  'subsets': functools.partial(subsets, RESULTS),
}
FILES = {
  RESULTS.with_name(f'{name}.svg'): functools.partial(function, RESULTS)
  for name, function in {
    'batches': gains,
    'views': views,
    'tail': learned,
    'temperatures': temperatures,
    'subsets': progress,
  }.items()
}
