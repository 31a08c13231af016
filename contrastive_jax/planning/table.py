"""Prints a plan as tables."""

from typing import Any

import rich.console
import rich.table

from contrastive_jax.sharding.mesh import AXES

PARTS = ('compute', 'memory', 'interconnect')  # of a step's time


def show(plan: dict[str, Any]) -> None:
  """Prints the tables of a plan from `plan.plan`."""
  console = rich.console.Console()
  if not console.is_terminal:
    console.width = 120  # for the parameters' names
  for table in (_parameters, _memory, _flops, _collectives, _estimate):
    if (made := table(plan)) is not None:
      console.print(made)
  console.print(verdict(plan), soft_wrap=True, highlight=False)


def verdict(plan: dict[str, Any]) -> str:
  """Says whether the config fits, or by how much not, and which setting is the fastest."""
  needed, available = plan['needed_bytes'], plan['available_bytes']
  mesh = ','.join(f'{axis}:{plan["mesh"][axis]}' for axis in AXES)
  where = f'{plan["config"]} at batch {plan["batch_size"]:,} on {plan["topology"]} ({mesh})'
  lines = []
  if plan['simulated'] and plan['chip'] != 'CPU':
    lines.append(f'Compiled for CPU devices in place of {plan["chip"]}: everything is an estimate.')
  if examples := plan.get('normalized_together'):
    lines.append(
      f'Batch norm in the towers normalizes each micro-batch, {examples:,} examples, by its own '
      'statistics.'
    )
  if plan['fits']:
    lines.append(f'{where} fits: {_size(needed)} of {_size(available)} per device.')
  else:
    over = _size(needed - available)
    lines.append(
      f'{where} does not fit: it needs {_size(needed)} per device, {over} over {_size(available)}.'
    )
  lines += [f'With {" ".join(one["flags"])}: {_outcome(one)}.' for one in plan['settings']]
  if (fastest := plan['fastest']) is not None:
    lines.append(f'Fastest: {" ".join(fastest["flags"])}{_reasons(plan, fastest)}.')
  elif plan['fits'] and any(one['fits'] is not None for one in plan['settings']):
    lines.append('No other setting is faster.')
  return '\n'.join(lines)


def _outcome(setting) -> str:
  """Says whether a setting fits, and how long its step takes."""
  if setting['fits'] is None:
    return 'not tried, for time'
  over = setting['needed_bytes'] - setting['available_bytes']
  if over > 0:
    return f'it is {_size(over)} over'
  if (times := setting.get('estimate')) is None:
    return 'it fits'
  seconds = f'{times["step_seconds_overlapped"]:.3f} to {times["step_seconds_in_turn"]:.3f} s'
  return f'it fits, {_size(setting["needed_bytes"])}, {seconds}'


def _reasons(plan, setting) -> str:
  """Says which parts of the step change against the config's own setting."""
  if 'estimate' not in plan or 'estimate' not in setting:
    return ''
  changes = []
  for part in PARTS:
    before, after = (one['estimate'][f'{part}_seconds'] for one in (plan, setting))
    changes.append(f'{part} {before:.3f} to {after:.3f} s')
  return f' ({", ".join(changes)})'


def _parameters(plan):
  table = _table('parameter', 'shape', 'sharded along', 'per device')
  for row in plan['parameters']:
    sharded = ', '.join(
      f'{axis} ({plan["mesh"][axis]})' for axis in row['axes'] if axis is not None
    )
    shape = ' × '.join(map(str, row['shape']))
    table.add_row(row['name'], shape, sharded or 'replicated', _size(row['bytes']))
  table.add_section()
  table.add_row('total', '', '', _size(sum(row['bytes'] for row in plan['parameters'])))
  return table


def _memory(plan):
  table = _table('memory', 'per device')
  for kind, size in plan['memory']['kinds'].items():
    if size:
      table.add_row(kind, _size(size))
  table.add_section()
  table.add_row('total', _size(plan['needed_bytes']))
  loss = plan['memory']['loss']
  table.add_row('of which the loss, at most', 'does not fit' if loss is None else _size(loss))
  return table


def _flops(plan):
  counted = plan['flops']
  table = _table('FLOPs per step, all devices', '')
  for part, number in counted['analytic'].items():
    if number:
      table.add_row(f'analytic: {part}', f'{number:.4g}')
  table.add_row('traced, without remat', f'{counted["traced_without_remat"]:.4g}')
  table.add_row('traced to analytic', f'{counted["traced_to_analytic"]:.4f}')
  table.add_row('traced, this step', f'{counted["traced"]:.4g}')
  return table


def _collectives(plan):
  if 'collectives' not in plan:
    return None
  table = _table('collective', 'per step', 'sent per device')
  for kind, total in plan['collectives'].items():
    table.add_row(kind, f'{total["count"]:,}', _size(total['bytes']))
  return table


def _estimate(plan):
  if 'estimate' not in plan:
    return None
  times = plan['estimate']
  table = _table(f"estimate, by {plan['chip']}'s specifications", '')
  for part in PARTS:
    table.add_row(part, f'{times[f"{part}_seconds"]:.3f} s')
  table.add_row('of which latency', f'{times["latency_seconds"]:.3f} s')
  for way, said in (('overlapped', 'all overlapped'), ('in_turn', 'nothing overlapped')):
    share = f'{times[f"utilisation_{way}"]:.0%} of peak'
    table.add_row(f'step, {said}', f'{times[f"step_seconds_{way}"]:.3f} s, {share}')
  return table


def _table(first, *others):
  return rich.table.Table(first, *(rich.table.Column(name, justify='right') for name in others))


def _size(number: float) -> str:
  """Formats bytes in GiB, MiB or KiB."""
  for power, unit in ((30, 'GiB'), (20, 'MiB'), (10, 'KiB')):
    if abs(number) >= 2**power:
      return f'{number / 2**power:.2f} {unit}'
  return f'{number:.0f} B'
