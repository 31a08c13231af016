"""The choice of methods in experiments/confirmation, and its tables."""

import json
import pathlib

import pytest

from configs import claims as recipe
from experiments.confirmation import arms, report
from experiments.side_by_side import RECALL

ROOT = pathlib.Path(__file__).parents[2]
BEST = ['slip', 'rocket', 'cuaxu']


def row(recall):
  return dict.fromkeys(RECALL, recall)


@pytest.fixture
def measured():
  """Selections in which three methods are the best."""
  return {
    arms.name_of('selection', method, seed): row(0.3 + 0.01 * (3 - BEST.index(method)))
    if method in BEST
    else row(0.3)
    for method in (arms.BASELINE, *arms.CANDIDATES)
    for seed in arms.SELECTION_SEEDS
  }


def test_the_best_are_chosen_once_all_are_measured(measured):
  assert arms.choose(measured) == BEST
  measured.popitem()
  assert arms.choose(measured) == []


def test_runs_have_folders_of_their_own_and_configs():
  folder = pathlib.Path('runs')
  runs = arms.selection(folder) + arms.confirmation(BEST, folder)
  assert len({run.folder for run in runs}) == len(runs)
  assert all((ROOT / run.config.partition(':')[0]).exists() for run in runs)
  assert not {*arms.SEEDS} & {*arms.SELECTION_SEEDS, *range(5)}, 'seeds of claims'


@pytest.mark.parametrize('method', arms.CANDIDATES)
def test_candidates_are_selected_with_the_recipes_of_the_claims(method):
  clip, own = (recipe.get_config(f'{name}-validation') for name in ('clip', method))
  assert own.objective != clip.objective
  assert own.data.split == clip.data.split and own.total_steps == clip.total_steps
  assert own.evaluation.splits == clip.evaluation.splits


def test_the_table_tells_the_difference_from_clip(measured, tmp_path):
  gains = {'clip': 0.0, 'slip': 0.02, 'rocket': 0.02, 'cuaxu': -0.001}
  for index, seed in enumerate(arms.SEEDS):
    for method, gain in gains.items():
      found = row(0.5 + gain * (1 + 0.1 * index))
      measured[arms.name_of('confirmation', method, seed)] = found
  path = tmp_path / 'results.json'
  path.write_text(json.dumps({'results': measured}))
  lines = report.confirmation(path).splitlines()[2:]
  assert [line.split('|')[1].strip() for line in lines] == ['clip', *BEST]
  assert '+2.2 (+1.7 to +2.7): holds' in lines[1] and 'no difference' in lines[3]
  assert report.selection(path).count('| yes |') == 3
