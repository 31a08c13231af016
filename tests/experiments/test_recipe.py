"""The arms of experiments/recipe and the subsets of experiments/styles."""

import collections
import json
import pathlib

import pytest

from configs import clip
from contrastive_jax import data
from experiments import side_by_side
from experiments.recipe import arms
from experiments.recipe import report as recipe_report
from experiments.styles import report as styles_report
from experiments.styles import subsets


def config_of(arm):
  config = clip.recipe('validation')
  config.update_from_flattened_dict(arms.FIRST | arms.ARMS[arm])
  return config


@pytest.mark.parametrize('arm', arms.ARMS)
def test_every_arm_changes_fields_of_the_first_recipe(arm):
  same = config_of(arm).to_json() == config_of(arms.BASELINE).to_json()
  assert same == (arm == arms.BASELINE)


def test_the_chosen_arm_is_the_default_config():
  chosen, default = config_of(arms.CHOSEN), clip.recipe('validation')
  chosen.total_steps = default.total_steps  # the default leaves some of the time
  assert chosen.to_json() == default.to_json()


def test_arms_and_subsets_have_folders_of_their_own():
  root = pathlib.Path('runs')
  runs = [arms.launch_of(arm, root) for arm in arms.ARMS]
  runs += [subsets.launch_of(styles, root) for styles in subsets.SUBSETS]
  assert len({run.folder for run in runs}) == len(runs)
  assert all(run.folder.parent == root for run in runs)


def test_subsets_are_distinct_and_drawn_once():
  assert subsets.draw() == subsets.SUBSETS
  assert len({*subsets.SUBSETS}) == len(subsets.SUBSETS)
  sizes = collections.Counter(map(len, subsets.SUBSETS))
  assert sizes == {1: 6, 2: 6, 3: 6, 4: 6, 5: 6, 6: 1}
  for styles in subsets.SUBSETS:
    assert len({*styles}) == len(styles) and {*styles} <= {*subsets.STYLES}


def test_files_of_all_styles_draw_the_same_concepts(tmp_path):
  subsets.prepare(tmp_path)
  names = (*subsets.STYLES, 'heldout_style')
  sources = {
    name: data.open_source(f'arrayrecord:{tmp_path}/{{split}}.array_record', name) for name in names
  }
  concepts = {name: source.values('hexcode') for name, source in sources.items()}
  first = sorted(concepts['noto'])
  assert len({*first}) == len(first) > 500
  assert all(sorted(found) == first for found in concepts.values())
  captions = {row['hexcode']: row['caption'] for row in sources['heldout_style']}
  assert all(row['caption'] == captions[row['hexcode']] for row in sources['openmoji'])
  written = (tmp_path / 'noto.array_record').stat().st_mtime_ns
  subsets.prepare(tmp_path)
  assert (tmp_path / 'noto.array_record').stat().st_mtime_ns == written


def test_tables_follow_the_results(tmp_path):
  path = tmp_path / 'results.json'
  row = lambda forth, back: dict(zip(side_by_side.RECALL, (forth, back), strict=True))  # noqa: E731
  path.write_text(json.dumps({'results': {'noto': row(0.1, 0.2), 'twemoji': row(0.3, 0.2)}}))
  assert '| 1 | 2 | 20.0% (10.0% to 30.0%) | 20.0% (20.0% to 20.0%) |' in styles_report.styles(path)
  other = 'weight decay 0.1'
  found = {other: row(0.2, 0.1), arms.BASELINE: row(0.2, 0.2)}
  path.write_text(json.dumps({'results': found}))
  table = recipe_report.recipe(path)
  assert '| weight decay 0.1 | 3,000 | 20.0% | 10.0% | -5.0 |' in table
  assert arms.launch_of(other, tmp_path).fields['optimizer.weight_decay'] == 0.1
