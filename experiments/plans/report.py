"""The tables of results.json."""

import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')

# Fields that say which code a plan is about, in place of a setting.
_CODE = ('model.attention=xla', 'gather_bytes=0')
HEADER = (
  *('config', 'batch', 'topology', 'flags, --config.', 'per chip', 'state + activations, GiB'),
  *('loss, GiB', 'model FLOPs per step', 'traced to analytic', 'compute', 'memory'),
  *('interconnect', 'of which latency', 'seconds per step, estimate', 'of peak, estimate'),
)
LEFT = ('config', 'topology', 'flags, --config.', 'collective')


def plans(path: pathlib.Path, group: str) -> str:
  """Returns a row per plan of a group."""
  rows = map(_row, records.read(path)['results'][group].values())
  return _table(HEADER, ([row[name] for name in HEADER] for row in rows))


def estimates(path: pathlib.Path) -> str:
  """Returns a row per config and topology, with the estimates before and after."""
  results = records.read(path)['results']
  earlier = {_place(plan): _row(plan) for plan in results['before'].values()}
  taken = ('per chip', 'seconds per step, estimate', 'of peak, estimate')
  rows = []
  for plan in results['after'].values():
    new, old = _row(plan), earlier[_place(plan)]
    rows.append(
      [*(new[name] for name in (*HEADER[:4], *taken)), *(old[name] for name in taken[1:])]
    )
  return _table((*HEADER[:4], *taken, 'before: seconds', 'of peak'), rows)


def attention(path: pathlib.Path) -> str:
  """Returns a row per model size and topology, with XLA's attention and the fused one."""
  header = (
    *('pixels', 'topology', 'flags, --config.', 'temporaries: xla', 'splash'),
    *('activations: xla', 'splash', 'seconds, xla', 'splash'),
  )
  planned = records.read(path)['results']['attention'].values()
  rows = []
  planned = list(planned)
  for both in zip(planned[::2], planned[1::2], strict=True):
    flags = [flag for flag in _flags(both[0]) if 'size' not in flag and 'attention' not in flag]
    pixels = '336' if any('336' in flag for flag in both[0]['flags']) else '224'
    cells = [f'{_temporaries(one):.1f} GiB' for one in both]
    cells += [f'{one["memory"]["kinds"]["activations"] / 2**30:.1f} GiB' for one in both]
    rows.append(
      [pixels, both[0]['topology'], ' '.join(flags) or 'none', *cells, *map(_seconds, both)]
    )
  return _table(header, rows)


def collectives(path: pathlib.Path) -> str:
  """Returns a row per kind of collective of CLIP's plans, before and after."""
  found = {}
  for group in ('before', 'after'):
    for one in records.read(path)['results'][group].values():
      if one['config'] == 'clip:vit_l14':
        for kind, total in one['collectives'].items():
          found.setdefault((one['topology'], kind), {})[group] = total
  header = (
    'topology',
    'collective',
    'before: per step',
    'sent per chip',
    'after: per step',
    'sent',
  )
  rows = []
  for (topology, kind), totals in sorted(found.items()):
    cells = []
    for group in ('before', 'after'):
      total = totals.get(group, {'count': 0, 'bytes': 0})
      cells += [f'{total["count"]:,}', f'{total["bytes"] / 2**20:,.1f} MiB']
    rows.append([topology, kind, *cells])
  return _table(header, rows)


def _table(header, rows) -> str:
  return records.markdown(''.join('l' if name in LEFT else 'r' for name in header), header, rows)


def _place(plan: dict) -> tuple[str, str]:
  return plan['config'], plan['topology']


def _flags(plan: dict) -> list[str]:
  return [flag.removeprefix('--config.') for flag in plan['flags']]


def _temporaries(plan: dict) -> float:
  kinds = plan['memory']['kinds']
  return (kinds['activations'] + kinds.get('temporaries', 0.0)) / 2**30


def _seconds(plan: dict) -> str:
  times = plan['estimate']
  return f'{times["step_seconds_overlapped"]:.2f} to {times["step_seconds_in_turn"]:.2f}'


def _row(plan: dict) -> dict[str, str]:
  """Returns the cells of a plan by column."""
  flags = [flag for flag in _flags(plan) if flag not in _CODE]
  gib = {kind: size / 2**30 for kind, size in plan['memory']['kinds'].items()}
  times = plan['estimate']
  cells = [
    *(plan['config'], f'{plan["batch_size"]:,}', plan['topology'], ' '.join(flags) or 'none'),
    f'{plan["needed_bytes"] / 2**30:.1f} of {plan["available_bytes"] / 2**30:.0f} GiB',
    f'{gib["parameters"] + gib["optimizer"]:.1f} + {gib["activations"]:.1f}',
    f'{plan["memory"]["loss"] / 2**30:.2f}',
    f'{plan["flops"]["analytic"]["all"]:.3g}',
    f'{plan["flops"]["traced_to_analytic"]:.4f}',
    *(f'{times[f"{part}_seconds"]:.3f} s' for part in ('compute', 'memory', 'interconnect')),
    f'{times["latency_seconds"]:.3f} s',
    _seconds(plan),
    f'{times["utilisation_in_turn"]:.0%} to {times["utilisation_overlapped"]:.0%}',
  ]
  return dict(zip(HEADER, cells, strict=True))


TABLES = {
  'plans': functools.partial(plans, RESULTS, group='after'),
  'before': functools.partial(plans, RESULTS, group='before'),
  'estimates': functools.partial(estimates, RESULTS),
  'attention': functools.partial(attention, RESULTS),
  'collectives': functools.partial(collectives, RESULTS),
}
