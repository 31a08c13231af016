"""A plan as a person reads it."""

from typing import Any

import rich.console
import rich.table

from contrastive_jax.sharding.mesh import AXES


def show(figures: dict[str, Any]) -> None:
  """Prints the tables of a plan, from `plan.plan`."""
  console = rich.console.Console()
  if not console.is_terminal:
    console.width = 120  # for the parameters' names
  for table in (_parameters, _memory, _flops, _collectives, _estimate):
    if (made := table(figures)) is not None:
      console.print(made)
  console.print(verdict(figures), soft_wrap=True, highlight=False)


def verdict(figures: dict[str, Any]) -> str:
  """Whether it fits, and if not, by how much it does not and what would make it fit."""
  needed, available = figures['needed_bytes'], figures['available_bytes']
  mesh = ','.join(f'{axis}:{figures["mesh"][axis]}' for axis in AXES)
  where = (
    f'{figures["config"]} at batch {figures["batch_size"]:,} on {figures["topology"]} ({mesh})'
  )
  lines = []
  if figures['simulated'] and figures['chip'] != 'CPU':
    lines.append(f'Compiled for CPU devices in place of {figures["chip"]}: all is an estimate.')
  if figures['fits']:
    lines.append(f'{where} fits: {_size(needed)} of {_size(available)} a device.')
    return '\n'.join(lines)
  lines.append(
    f'{where} does not fit: it needs {_size(needed)} a device, {_size(needed - available)} over '
    f'{_size(available)}.'
  )
  for remedy in figures['remedies']:
    least = '' if remedy['compiled'] else 'at least '
    said = {
      True: 'it fits',
      False: f'it is {least}{_size(remedy.get("over_bytes", 0))} over',
      None: 'not tried, for time',
    }
    name, flags = ' and '.join(remedy['names']), ' '.join(remedy['flags'])
    lines.append(f'With {name} ({flags}): {said[remedy["fits"]]}.')
  return '\n'.join(lines)


def _parameters(figures):
  table = _table('parameter', 'shape', 'cut along', 'on a device')
  for row in figures['parameters']:
    cut = ', '.join(f'{axis} ({figures["mesh"][axis]})' for axis in row['axes'] if axis is not None)
    shape = ' × '.join(map(str, row['shape']))
    table.add_row(row['name'], shape, cut or 'copied', _size(row['bytes']))
  table.add_section()
  table.add_row('all', '', '', _size(sum(row['bytes'] for row in figures['parameters'])))
  return table


def _memory(figures):
  table = _table('memory', 'on a device')
  for kind, size in figures['memory']['kinds'].items():
    if size:
      table.add_row(kind, _size(size))
  table.add_section()
  table.add_row('all', _size(figures['needed_bytes']))
  loss = figures['memory']['loss']
  table.add_row('of it for the loss, at most', 'does not fit' if loss is None else _size(loss))
  return table


def _flops(figures):
  counted = figures['flops']
  table = _table('FLOPs a step, all devices', '')
  for part, number in counted['analytic'].items():
    if number:
      table.add_row(f'analytic: {part}', f'{number:.4g}')
  table.add_row('traced, nothing recomputed', f'{counted["traced_without_remat"]:.4g}')
  table.add_row('traced to analytic', f'{counted["traced_to_analytic"]:.4f}')
  table.add_row('traced, of this step', f'{counted["traced"]:.4g}')
  return table


def _collectives(figures):
  if 'collectives' not in figures:
    return None
  table = _table('collective', 'a step', 'sent by a device')
  for kind, total in figures['collectives'].items():
    table.add_row(kind, f'{total["count"]:,}', _size(total['bytes']))
  return table


def _estimate(figures):
  if 'estimate' not in figures:
    return None
  times = figures['estimate']
  table = _table(f"an estimate, by {figures['chip']}'s published figures", '')
  for part in ('compute', 'memory', 'interconnect'):
    table.add_row(part, f'{times[f"{part}_seconds"]:.3f} s')
  for way, said in (('overlapped', 'all overlapped'), ('in_turn', 'one after the other')):
    share = f'{times[f"utilisation_{way}"]:.0%} of peak'
    table.add_row(f'step, {said}', f'{times[f"step_seconds_{way}"]:.3f} s, {share}')
  return table


def _table(first, *others):
  return rich.table.Table(first, *(rich.table.Column(name, justify='right') for name in others))


def _size(number: float) -> str:
  """Bytes as GiB, MiB or KiB."""
  for power, unit in ((30, 'GiB'), (20, 'MiB'), (10, 'KiB')):
    if abs(number) >= 2**power:
      return f'{number / 2**power:.2f} {unit}'
  return f'{number:.0f} B'
