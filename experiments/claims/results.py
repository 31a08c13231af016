"""The results of claims: rows of runs, and what the rule makes of them."""

import ast
import hashlib
import importlib
import inspect
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from configs import claims as recipe
from contrastive_jax import catalogue
from contrastive_jax.evaluation import outcomes
from experiments.claims import claim, statistics

FOLDER = claim.FOLDER / 'results'
KEPT = (*claim.RECALL, *(metric.replace('@1', '@5') for metric in claim.RECALL))
KEPT = (*KEPT, 'heldout_style/zero_shot_group_accuracy@1', 'images_seen', 'parameters', 'seconds')

Folders = Callable[[claim.Arm, int], pathlib.Path]
Row = dict[str, Any]


def read(name: str) -> dict[str, Any]:
  """The result of a claim; {} before it is measured."""
  path = FOLDER / f'{name}.json'
  return json.loads(path.read_text()) if path.exists() else {}


def settings(arm: claim.Arm) -> dict[str, Any]:
  """What an arm changes of the recipe, by path."""
  config = recipe.get_config(arm.method)
  config.update_from_flattened_dict({k: v for k, v in arm.fields.items() if k != 'data.name'})
  base = _flat(recipe.recipe('default'))
  changed = {path: value for path, value in _flat(config).items() if base.get(path) != value}
  changed |= dict.fromkeys(base.keys() - _flat(config).keys())
  for path in ('name', 'variant', 'seed'):
    changed.pop(path, None)
  # As JSON gives it back, such as lists for tuples.
  return json.loads(json.dumps(changed | arm.fields, sort_keys=True))


def _flat(config: ConfigDict) -> dict[str, Any]:
  found = {}
  for name, value in config.items():
    if isinstance(value, ConfigDict):
      found |= {f'{name}.{path}': below for path, below in _flat(value).items()}
    else:
      found[name] = value
  return found


def row(arm: claim.Arm, seed: int) -> Row | None:
  """The row of a run in the results of any claim; None where its settings were others."""
  for name in claim.names():
    for found in read(name).get('rows', ()):
      if found['arm'] == str(arm) and found['seed'] == seed:
        return found if found['settings'] == settings(arm) else None
  return None


def finished(folder: pathlib.Path) -> bool:
  """Whether a workdir holds a finished run."""
  return (folder / 'provenance.json').exists()


def seconds(arm: str) -> float | None:
  """What a run of an arm took; None before the first."""
  found = [r for name in claim.names() for r in read(name).get('rows', ()) if r['arm'] == arm]
  return found[0]['seconds'] if found else None


def source(measured: claim.Claim) -> str:
  """A digest of the module of the method that a claim is about, without docstrings."""
  module, _, name = catalogue.find(measured.paper).where.rpartition('.')
  text = inspect.getsource(inspect.getmodule(getattr(importlib.import_module(module), name)))
  lines = text.splitlines()
  for node in ast.walk(ast.parse(text)):
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    if isinstance(node, kinds) and ast.get_docstring(node) is not None:
      start, end = node.body[0].lineno - 1, node.body[0].end_lineno
      lines[start:end] = [''] * (end - start)
  return hashlib.sha256('\n'.join(filter(str.strip, lines)).encode()).hexdigest()[:12]


def write(name: str, measured: claim.Claim, folder_of: Folders) -> None:
  """Writes the results of a claim, as far as they are measured.

  `source` stays that of the oldest row, so that a later change of the method is noticed.
  """
  rows: dict[tuple[str, int], Row] = {}
  for comparison in measured.comparisons().values():
    for arm in (comparison.baseline, comparison.method):
      for seed in range(comparison.seeds):
        found = _row_of(arm, seed, folder_of(arm, seed), comparison.metrics) or row(arm, seed)
        if found:
          rows[str(arm), seed] = found
  compared = {
    key: compare(comparison, rows, folder_of) for key, comparison in measured.comparisons().items()
  }
  primary = compared.pop('primary')
  if primary is None:
    return
  newest = max(rows.values(), key=lambda found: found['date'])
  earlier = read(name)
  kept = [found for found in earlier.get('rows', ()) if found in rows.values()]
  if len(kept) == len(rows):  # nothing is new; outcomes per query may be gone
    return
  result = {
    'paper': measured.paper,
    **primary,
    'rule': primary['verdict'],
    'source': earlier['source'] if kept else source(measured),
    **{field: newest[field] for field in ('commit', 'versions', 'device', 'date')},
    'secondary': {key: found for key, found in compared.items() if found},
    'rows': list(rows.values()),
  }
  _save(name, result)


def control_families() -> None:
  """Applies the control of false discoveries to each family.

  A member that is not measured counts with p = 1, so that a verdict can only be gained later.
  """
  for members in claim.families().values():
    measured = {name: result for name in members if (result := read(name))}
    p = {name: measured[name]['p'] if name in measured else 1.0 for name in members}
    rules = {name: result['rule'] for name, result in measured.items()}
    for name, verdict in statistics.control(rules, p).items():
      _save(name, measured[name] | {'verdict': verdict})


def summary(name: str) -> str:
  """The verdict of a claim in a line."""
  result = read(name)
  if not result:
    return 'not measured'
  low, high = result['interval']
  return (
    f'{result["verdict"]}: {100 * result["difference"]:+.1f} points ({100 * low:+.1f} to '
    f'{100 * high:+.1f}), {result["seeds"]} seeds, p = {result["p"]:.3f}, detectable '
    f'{100 * result["detectable"]:.1f}'
  )


def _save(name: str, result: Mapping[str, Any]) -> None:
  text, path = json.dumps(result, indent=2) + '\n', FOLDER / f'{name}.json'
  if not path.exists() or path.read_text() != text:
    FOLDER.mkdir(exist_ok=True)
    path.write_text(text)


def _row_of(
  arm: claim.Arm, seed: int, folder: pathlib.Path, metrics: tuple[str, ...]
) -> Row | None:
  """The row of a finished workdir."""
  if not finished(folder):
    return None
  found = json.loads((folder / 'results.json').read_text())
  kept = {metric: found[metric] for metric in dict.fromkeys((*metrics, *KEPT)) if metric in found}
  provenance = json.loads((folder / 'provenance.json').read_text())
  return {'arm': str(arm), 'seed': seed, 'settings': settings(arm)} | kept | provenance


def compare(
  comparison: claim.Comparison, rows: Mapping[tuple[str, int], Row], folder_of: Folders
) -> dict[str, Any] | None:
  """What the rows say of a comparison; None with fewer than two pairs of runs."""
  baseline, method = str(comparison.baseline), str(comparison.method)
  seeds = [s for s in range(comparison.seeds) if {(baseline, s), (method, s)} <= rows.keys()]
  if len(seeds) < 2:
    return None

  def value(arm: str, seed: int) -> float:
    return sum(rows[arm, seed][metric] for metric in comparison.metrics) / len(comparison.metrics)

  sign = -1 if comparison.lower_is_better else 1
  found = statistics.paired([sign * (value(method, s) - value(baseline, s)) for s in seeds])
  arms = {
    key: sum(value(arm, s) for s in seeds) / len(seeds)
    for key, arm in (('baseline', baseline), ('method', method))
  }
  return {
    'verdict': statistics.verdict(found, comparison.delta),
    **found._asdict(),
    'bootstrap': _bootstrap(comparison, seeds, folder_of),
    'delta': comparison.delta,
    'means': arms,
    'says': comparison.says,
  }


def _bootstrap(comparison, seeds, folder_of) -> list[float] | None:
  """The interval over seeds and queries; None where a run has no outcomes per query here."""
  runs = []
  for arm in (comparison.baseline, comparison.method):
    found = [outcomes.read(folder_of(arm, seed) / 'outcomes.npz') for seed in seeds]
    if any(metric not in run for run in found for metric in comparison.metrics):
      return None
    runs.append([[run[metric] for metric in comparison.metrics] for run in found])
  return list(statistics.crossed_bootstrap(*runs))
