"""The sweeps of losses of views: arms, subsets, measures, tables and plots."""

import collections
import json
import pathlib
import re
from xml.etree import ElementTree

import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import build, command_line
from contrastive_jax.training.config_checks import check_config
from experiments.views import arms, chart, measures, report, subsets

ROOT = pathlib.Path(__file__).parents[2]
ARMS = {str(arm): arm for sweep in arms.SWEEPS.values() for arm in sweep.values()}


CONFIGS = {}  # that were read, by method and fields


def config_of(arm):
  key = arm.method, repr(sorted(arm.fields.items()))
  if key not in CONFIGS:
    CONFIGS[key] = read(arm)
  return CONFIGS[key]


def read(arm):
  """The config of an arm, as launch.py reads it from the command line."""
  launch, values = arms.launch_of(arm, pathlib.Path('runs')), flags.FlagValues()
  arguments = ['launch.py', f'--config={ROOT / launch.config}']
  arguments += [f'--config.{path}={value}' for path, value in launch.fields.items()]
  command_line.accept_none()
  config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=arguments)
  values(arguments)
  return values.config


def test_every_arm_is_a_config():
  mesh = make_mesh()
  for arm in (*ARMS.values(), arms.EMBEDDER):
    config = config_of(arm)
    check_config(config, mesh)
    assert config.evaluation.splits == ('heldout_style',), str(arm)
  for arm in arms.SWEEPS['batches'].values():
    config = config_of(arm)
    assert config.batch_size * config.total_steps == 51_200, 'equal images seen'


@pytest.mark.slow
@pytest.mark.parametrize('name', ARMS)
def test_every_arm_is_a_run(name):
  build.build(config_of(ARMS[name]), examples=1000)


def test_arms_of_a_sweep_differ_in_what_it_is_about():
  for (_, temperature), arm in arms.SWEEPS['temperatures'].items():
    ((_, options),) = config_of(arm).objective.items()
    assert options.scale == pytest.approx(1 / temperature)
  for (name, _), arm in arms.SWEEPS['batches'].items():
    options = config_of(arm).objective.get('decoupled', {})
    assert options.get('sigma', '') == {'DCL': None, 'DCLW': 0.5}.get(name, '')
  for (name, views), arm in arms.SWEEPS['views'].items():
    assert config_of(arm).views == views, name
  settings = [(arm.method, repr(sorted(arm.fields.items()))) for arm in ARMS.values()]
  assert len({*settings}) == len(settings), 'arms of equal settings are one run'


def test_runs_have_folders_of_their_own():
  launches = arms.launches([*arms.SWEEPS], pathlib.Path('runs'))
  assert len({launch.folder for launch in launches}) == len(launches) == len(ARMS) <= 80
  assert not [launch for launch in launches if '{folder}' in str(launch.fields)]


def test_classes_of_the_tail_decay_exponentially():
  sizes = subsets.decaying(83, 2490, 100.0)
  assert sum(sizes) == 2490 and min(sizes) >= 1
  shares = 100.0 ** (-np.arange(83) / 82)
  np.testing.assert_allclose(sizes, 2490 * shares / shares.sum(), atol=1)
  labels = [f'class {k}' for k in range(83) for _ in range(200 - k)]
  drawn = subsets.draw_classes(labels, sizes)
  assert [len(own) for own in drawn.values()] == sizes
  assert all(labels[number] == label for label, own in drawn.items() for number in own)
  assert [*drawn] == sorted(drawn, key=lambda label: -labels.count(label))
  again = subsets.draw_classes(labels, sizes)
  assert all(np.array_equal(drawn[label], again[label]) for label in drawn)
  fewer = subsets.draw_classes(labels, [10] * 3)
  assert all({*fewer[label]} <= {*drawn[label]} for label in fewer)
  with pytest.raises(ValueError, match="'class 0' has 200 examples, and its size is 201"):
    subsets.draw_classes(labels, [201])


def test_centers_cover_the_features_from_afar():
  random = np.random.default_rng(0)
  features = np.repeat(10 * np.eye(5), 20, axis=0) + 0.1 * random.normal(size=(100, 5))
  centers = subsets.k_centers(features, 20)
  assert len({*centers}) == 20
  assert {number // 20 for number in centers[:5]} == {*range(5)}, 'a center per cluster'
  assert subsets.k_centers(features, 5) == centers[:5]
  gaps = np.linalg.norm(features[:, None] - features[centers], axis=2)
  radii = [gaps[:, :count].min(1).max() for count in range(1, 20)]
  assert radii == sorted(radii, reverse=True)
  for count in range(1, 20):
    assert gaps[centers[count], :count].min() == pytest.approx(radii[count - 1])


def test_the_hardest_share_is_that_of_the_diagnostics():
  first, second = np.random.default_rng(0).normal(size=(2, 101, 8)).astype(np.float32)
  first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
  expected = diagnostics.hard_negative_shares(
    first, second, scales=jnp.array([5.0]), hardest=(1, 10)
  )[0]
  assert measures.hardest_share(first, second, 5.0) == pytest.approx(float(expected[0]), rel=1e-4)
  # Of the hardest tenth alone, the hardest hundredth has more.
  assert measures.hardest_share(first, second, 5.0, 0.1) > float(expected[0])
  assert measures.hardest_share(first, second, 0.0, 0.1) == pytest.approx(0.1)


def test_temperatures_are_averaged_by_class():
  assert measures.by_class(np.array([1.0, 2.0, 6.0]), ['b', 'a', 'b']) == [(1, 2.0), (2, 3.5)]


def row(value):
  """A fabricated row, with all that any sweep shows."""
  metrics = dict.fromkeys(
    [
      *('group_neighbours_mean_per_class_recall', 'subgroup_neighbours_mean_per_class_recall'),
      *('image_to_text_recall@1', 'text_to_image_recall@1', 'effective_rank', 'uniformity'),
      *('effective_rank_image', 'tolerance_subgroup', 'hardest_share'),
    ],
    value,
  )
  curve = [(40 * step, value * min(1.0, 0.11 * step)) for step in range(1, 11)]
  return metrics | {'curve': curve, 'temperatures': [(1, value), (100, 2 * value)]}


@pytest.fixture
def measured(tmp_path):
  path = tmp_path / 'results.json'
  values = {name: 0.2 + 0.001 * number for number, name in enumerate(ARMS)}
  path.write_text(json.dumps({'results': {name: row(value) for name, value in values.items()}}))
  return path


@pytest.mark.parametrize('name', report.TABLES)
def test_a_table_has_a_row_per_arm(name, measured, tmp_path):
  table = report.TABLES[name]
  text = table.func(measured, **table.keywords)
  assert len(text.splitlines()) == 2 + len(arms.SWEEPS[name]) and 'never' not in text
  assert table.func(tmp_path / 'none.json', **table.keywords) == chart.EMPTY


def test_arms_that_are_not_measured_are_empty_cells(measured):
  found = json.loads(measured.read_text())
  del found['results']['decoupled_images']
  measured.write_text(json.dumps(found))
  counts = collections.Counter(report.table(measured, sweep='batches').splitlines())
  assert counts['| DCL | 128 | |'] == 1
  assert len(report.curves(measured, 'batches', report._KNN)['DCL']) == 5
  assert 'polyline' in report.gains(measured)


def test_the_time_to_an_accuracy_is_the_first_that_reaches_it(measured):
  found = json.loads(measured.read_text())
  slow = str(arms.SWEEPS['subsets']['random', 0.05])
  found['results'][slow]['curve'] = [[40, 0.0], [400, 0.14]]
  measured.write_text(json.dumps(found))
  lines = report.subsets(measured).splitlines()
  assert re.search(r'\| all data \| 100% \| \d+\.\d% \| 200 \| 280 \|', lines[2])
  assert '| random | 5% | 14.0% | 400 | never |' in lines


@pytest.mark.parametrize('path', report.FILES, ids=lambda path: path.name)
def test_plots_are_drawn_from_the_results(path, measured, tmp_path):
  function = report.FILES[path].func
  text = function(measured)
  ElementTree.fromstring(text)
  assert chart.EMPTY not in text and text.count('<circle') >= 4
  assert chart.EMPTY in function(tmp_path / 'none.json')
