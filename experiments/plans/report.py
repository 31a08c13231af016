"""The tables of results.json."""

import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')


HEADER = (
  *('config', 'batch', 'topology', 'flags, --config.', 'per chip', 'state + activations, GiB'),
  *('loss, GiB', 'model FLOPs per step', 'traced to analytic', 'seconds per step, estimate'),
  'of peak, estimate',
)
ESTIMATE = (*HEADER[:5], *HEADER[-2:])  # of README.md


def plans(path: pathlib.Path, columns: tuple[str, ...] = HEADER) -> str:
  """Returns a row per plan."""
  align = {'config': 'l', 'topology': 'l', 'flags, --config.': 'l'}
  results = map(_row, records.read(path)['results'].values())
  rows = ([row[name] for name in columns] for row in results)
  return records.markdown(''.join(align.get(name, 'r') for name in columns), columns, rows)


def _row(plan: dict) -> dict[str, str]:
  """Returns the cells of a plan by column."""
  flags = (flag.removeprefix('--config.') for flag in plan['flags'])
  cells = [plan['config'], f'{plan["batch_size"]:,}', plan['topology'], ' '.join(flags) or 'none']
  if not plan['fits']:
    over = (plan['needed_bytes'] - plan['available_bytes']) / 2**30
    cells += [f'no, {over:.1f} GiB over', *[''] * (len(HEADER) - 5)]
    return dict(zip(HEADER, cells, strict=True))
  gib = {kind: size / 2**30 for kind, size in plan['memory']['kinds'].items()}
  times = plan['estimate']
  cells += [
    f'{plan["needed_bytes"] / 2**30:.1f} of {plan["available_bytes"] / 2**30:.0f} GiB',
    f'{gib["parameters"] + gib["optimizer"]:.1f} + {gib["activations"]:.1f}',
    f'{plan["memory"]["loss"] / 2**30:.2f}',
    f'{plan["flops"]["analytic"]["all"]:.3g}',
    f'{plan["flops"]["traced_to_analytic"]:.4f}',
    f'{times["step_seconds_overlapped"]:.2f} to {times["step_seconds_in_turn"]:.2f}',
    f'{times["utilisation_in_turn"]:.0%} to {times["utilisation_overlapped"]:.0%}',
  ]
  return dict(zip(HEADER, cells, strict=True))


TABLES = {
  'plans': functools.partial(plans, RESULTS),
  'estimates': functools.partial(plans, RESULTS, columns=ESTIMATE),
}
