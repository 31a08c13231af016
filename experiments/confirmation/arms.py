"""The methods that may be confirmed, how three of them are chosen, and the runs."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence

from configs import claims as recipe
from experiments import side_by_side

BASELINE = 'clip'
# The objectives for the towers of CLIP that need no weights or teacher to start with.
CANDIDATES = (
  *('barlip', 'byolip', 'coca', 'compa', 'compa_modular', 'cuaxu', 'debiased', 'decoupled'),
  *('gram', 'grouped', 'hard_negative', 'hardness_weighted', 'isogclr', 'reweighted', 'rocket'),
  *('siamlip', 'slip', 'soft_targets', 'sogclr', 'swalip'),
)
CHOSEN = 3
SELECTION_SEEDS = (0, 1)
SEEDS = (100, 101, 102)  # of no run before

Results = Mapping[str, Mapping[str, float]]


def name_of(stage: str, method: str, seed: int) -> str:
  """The name of a run, the key of its row."""
  return f'{stage}, {method}, seed {seed}'


def rows(results: Results, stage: str, method: str, seeds: Sequence[int]) -> list[dict[str, float]]:
  """The rows of a method's runs, in the order of the seeds, as far as they are measured."""
  names = (name_of(stage, method, seed) for seed in seeds)
  return [dict(results[name]) for name in names if name in results]


def recall(row: Mapping[str, float]) -> float:
  """The mean of both directions."""
  return statistics.mean(row[metric] for metric in side_by_side.RECALL)


def choose(results: Results) -> list[str]:
  """The methods of the highest recall on the validation style; [] before all are measured."""
  found = {method: rows(results, 'selection', method, SELECTION_SEEDS) for method in CANDIDATES}
  if any(len(own) < len(SELECTION_SEEDS) for own in found.values()):
    return []
  mean = {method: statistics.mean(map(recall, own)) for method, own in found.items()}
  return sorted(mean, key=mean.__getitem__, reverse=True)[:CHOSEN]


def selection(folder: pathlib.Path) -> list[side_by_side.Launch]:
  """The runs of all candidates and of CLIP by the recipe of the claims, on a validation style."""
  return [
    _launch('selection', method, seed, f'configs/claims.py:{method}-validation', folder)
    for seed in SELECTION_SEEDS
    for method in (BASELINE, *CANDIDATES)
  ]


def confirmation(methods: Sequence[str], folder: pathlib.Path) -> list[side_by_side.Launch]:
  """The runs of some methods and of CLIP by the default recipe, at its full length."""
  return [
    _launch('confirmation', method, seed, recipe.path_of(method), folder)
    for seed in SEEDS
    for method in (BASELINE, *methods)
  ]


def _launch(stage: str, method: str, seed: int, config: str, folder: pathlib.Path):
  name = name_of(stage, method, seed)
  # Evaluated at the end alone
  fields = {'seed': seed, 'evaluate_every': 1_000_000, 'evaluation.probes': ()}
  if method == BASELINE:
    fields['objective'] = {'info_nce': 1.0}  # whatever configs/clip.py adds to it
  return side_by_side.Launch(name, folder / side_by_side.folder_name(name), config, fields)
