"""The results of claims: rows of runs, and what the rule makes of them."""

import ast
import hashlib
import importlib
import inspect
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from configs import claims as recipe
from contrastive_jax import catalogue
from contrastive_jax.evaluation import outcomes
from experiments.claims import claim, statistics

FOLDER = claim.FOLDER / 'results'
# What a row keeps beside the metrics of its claim, for claims that share the run.
KEPT = (
  *claim.RECALL,
  *(metric.replace('@1', '@5') for metric in claim.RECALL),
  'heldout_style/zero_shot_group_accuracy@1',
  'heldout_style/modality_gap',
  'heldout_style/separability',
  'images_seen',
  'parameters',
  'seconds',
  'step_seconds',
)

Folders = Callable[[claim.Arm, int], pathlib.Path]
Row = dict[str, Any]


def path_of(name: str) -> pathlib.Path:
  """The file of a claim's result."""
  return FOLDER / f'{name}.json'


def read(name: str) -> dict[str, Any]:
  """The result of a claim; {} before it is measured."""
  return read_file(path_of(name))


def read_file(path: pathlib.Path) -> dict[str, Any]:
  """The result in a file; {} if there is none."""
  return json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}


def settings(arm: claim.Arm) -> dict[str, Any]:
  """What an arm changes of the recipe, by path; all fields of a task."""
  config = recipe.get_config(arm.method)
  config.update_from_flattened_dict(arm.fields)
  shared = ConfigDict() if 'task' in config else recipe.recipe('default')
  base, own = (flatten_dict(c.to_dict(), sep='.') for c in (shared, config))
  changed = {path: own.get(path) for path in own.keys() | base.keys()}
  changed = {path: value for path, value in changed.items() if base.get(path) != value}
  for path in ('name', 'variant', 'seed'):
    changed.pop(path, None)
  # As JSON gives it back, such as lists for tuples.
  return json.loads(json.dumps(changed, sort_keys=True))


def rows() -> dict[tuple[str, int], Row]:
  """The rows of all results, by arm and seed."""
  found = [row for name in claim.names() for row in read(name).get('rows', ())]
  return {(row['arm'], row['seed']): row for row in reversed(found)}  # the first of equal ones


def row(arm: claim.Arm, seed: int) -> Row | None:
  """The row of a run in the results of any claim; None where its settings were others."""
  return matching(rows(), arm, seed)


def matching(known: Mapping[tuple[str, int], Row], arm: claim.Arm, seed: int) -> Row | None:
  """The one of known rows that is of a run; None where its settings were others."""
  found = known.get((str(arm), seed))
  return found if found and found['settings'] == settings(arm) else None


def finished(folder: pathlib.Path) -> bool:
  """Whether a workdir holds a finished run."""
  return (folder / 'provenance.json').exists()


def seconds(arm: str) -> float | None:
  """What a run of an arm took; None before the first."""
  return next((row['seconds'] for (name, _), row in rows().items() if name == arm), None)


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
  known, rows_of, earlier = rows(), {}, read(name)
  metrics = dict.fromkeys((*KEPT, *claim.metrics()))
  for arm, seed in measured.runs():
    if found := _row_of(arm, seed, folder_of(arm, seed), metrics) or matching(known, arm, seed):
      rows_of[str(arm), seed] = found
  kept = [found for found in earlier.get('rows', ()) if found in rows_of.values()]
  before = {'primary': earlier, **earlier.get('secondary', {})}
  compared = {
    key: compare(comparison, rows_of, folder_of, before.get(key, {}))
    for key, comparison in measured.comparisons().items()
  }
  primary = compared.pop('primary')
  if primary is None or 'verdict' not in primary:
    return
  newest = max(rows_of.values(), key=lambda found: found['date'])
  result = {
    'paper': measured.paper,
    **primary,
    'rule': primary['verdict'],
    'source': earlier['source'] if kept else source(measured),
    **{field: newest[field] for field in ('commit', 'versions', 'device', 'date')},
    'secondary': {key: found for key, found in compared.items() if found},
    'rows': list(rows_of.values()),
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


def _save(name: str, result: Mapping[str, Any]) -> None:
  text, path = json.dumps(result, indent=2) + '\n', path_of(name)
  if not path.exists() or path.read_text() != text:
    FOLDER.mkdir(exist_ok=True)
    path.write_text(text)


def _row_of(arm: claim.Arm, seed: int, folder: pathlib.Path, metrics: Iterable[str]) -> Row | None:
  """The row of a finished workdir."""
  if not finished(folder):
    return None
  found = json.loads((folder / 'results.json').read_text())
  kept = {metric: found[metric] for metric in metrics if metric in found}
  provenance = json.loads((folder / 'provenance.json').read_text())
  return {'arm': str(arm), 'seed': seed, 'settings': settings(arm)} | kept | provenance


def compare(
  comparison: claim.Comparison,
  rows: Mapping[tuple[str, int], Row],
  folder_of: Folders,
  before: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any] | None:
  """What the rows say of a comparison; None without a pair of runs.

  A single pair has a difference alone. The interval over queries is that of `before`, what equal
  rows said: it takes long, and outcomes per query may be gone.
  """
  baseline, method = str(comparison.baseline), str(comparison.method)
  seeds = [s for s in range(comparison.seeds) if {(baseline, s), (method, s)} <= rows.keys()]
  if not seeds:
    return None

  def value(arm: str, seed: int) -> float:
    return sum(rows[arm, seed][metric] for metric in comparison.metrics) / len(comparison.metrics)

  sign = -1 if comparison.lower_is_better else 1
  differences = [sign * (value(method, s) - value(baseline, s)) for s in seeds]
  arms = {
    key: sum(value(arm, s) for s in seeds) / len(seeds)
    for key, arm in (('baseline', baseline), ('method', method))
  }
  shown = {'delta': comparison.delta, 'means': arms, 'says': comparison.says}
  if len(seeds) == 1:
    return {'difference': differences[0], 'seeds': 1, **shown}
  found = statistics.paired(differences)
  known = before['bootstrap'] if before.get('difference') == found.difference else None
  return {
    'verdict': statistics.verdict(found, comparison.delta),
    **found._asdict(),
    'bootstrap': known or _bootstrap(comparison, seeds, folder_of),
    **shown,
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
