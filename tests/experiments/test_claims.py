"""Claims: the statistics, the rule, and results from the files of runs."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from configs import claims as recipe
from configs import text
from contrastive_jax import catalogue, data, tasks
from contrastive_jax.evaluation import outcomes
from contrastive_jax.training import build
from experiments.claims import claim, results, statistics, tables
from tests.doubles import slow_but

ROOT = pathlib.Path(__file__).parents[2]
CLAIMS = {name: claim.read(name) for name in claim.names()}
ARMS = {str(arm): arm for measured in CLAIMS.values() for arm, _ in measured.runs()}


def test_the_interval_is_students_for_paired_samples():
  baseline, method = np.random.default_rng(0).normal(size=(2, 5))
  found, expected = statistics.paired(method - baseline), stats.ttest_rel(method, baseline)
  assert found.p == pytest.approx(expected.pvalue)
  assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
  assert found.difference == pytest.approx((method - baseline).mean()) and found.seeds == 5


@pytest.mark.parametrize('seeds', [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (5, 20))])
def test_the_detectable_difference_is_detected_as_often_as_promised(seeds):
  noise = np.random.default_rng(0).normal(size=(4000, seeds))
  # On average over samples, as the deviation is estimated.
  detectable = np.mean([statistics.paired(row).detectable for row in noise])
  found = [statistics.paired(row + detectable).p < 0.05 for row in noise]
  assert np.mean(found) == pytest.approx(statistics.POWER, abs=0.12)


def test_arms_that_are_one_computation_do_not_differ():
  found = statistics.paired([0.0, 0.0, 0.0])
  assert found.p == 1 and found.interval == (0, 0)
  assert statistics.verdict(found, 0.01) == statistics.NO_DIFFERENCE
  with pytest.raises(ValueError, match='1 pair of runs has no interval'):
    statistics.paired([0.1])


@pytest.mark.parametrize(
  ('difference', 'interval', 'expected'),
  [
    (0.02, (0.01, 0.03), 'holds'),
    (-0.02, (-0.03, -0.01), 'reverses'),
    (0.002, (-0.004, 0.008), 'no difference'),
    (0.005, (0.001, 0.009), 'no difference'),  # sure, and too small to matter
    (0.009, (0.002, 0.016), "can't tell"),
    (0.02, (-0.01, 0.05), "can't tell"),
  ],
)
def test_the_rule(difference, interval, expected):
  found = statistics.Paired(difference, interval, 0.01, 0.01, 5)
  assert statistics.verdict(found, 0.01) == expected


def test_false_discoveries_are_controlled_over_a_family():
  p = {'a': 0.01, 'b': 0.04, 'c': 0.2, 'd': 0.9, 'e': 1.0}
  verdicts = {'a': 'holds', 'b': 'reverses', 'c': 'holds', 'd': 'no difference'}
  found = statistics.control(verdicts, p)
  # Benjamini and Hochberg's bounds are 0.02, 0.04, 0.06, …
  assert found == {'a': 'holds', 'b': 'reverses', 'c': "can't tell", 'd': 'no difference'}
  # A claim that is not measured makes the others harder.
  assert statistics.control(verdicts, p | {'f': 1.0})['b'] == "can't tell"


def drawn(hits, texts):
  return outcomes.Outcome(np.asarray(hits, float), outcomes.checksums(texts))


def test_seeds_and_queries_are_resampled_apart():
  random = np.random.default_rng(0)
  texts = [f'text {i // 2}' for i in range(400)]
  pairs = [random.random((2, 400)) < [[0.3], [0.4]] for _ in range(4)]
  baseline, method = ([[drawn(pair[i], texts)] for pair in pairs] for i in range(2))
  low, high = statistics.crossed_bootstrap(baseline, method)
  mean = np.mean([pair[1].mean() - pair[0].mean() for pair in pairs])
  assert low < mean < high
  # One run is no seed to resample: the interval is that of the queries.
  alone = statistics.crossed_bootstrap(baseline[:1], method[:1])
  expected = outcomes.difference(baseline[0][0], method[0][0])
  np.testing.assert_allclose(alone, expected[1:], atol=0.01)
  # Runs that vary widen it.
  wild = [[drawn(np.full(400, i % 2), texts)] for i in range(4)]
  assert np.ptp(statistics.crossed_bootstrap(baseline, wild)) > 3 * np.ptp([low, high])
  with pytest.raises(ValueError, match='on other queries'):
    statistics.crossed_bootstrap(baseline, [[drawn(np.ones(400), ['a'] * 400)]] * 4)


def test_the_recipe_is_frozen():
  """Fields may be added; those of claims that were measured keep their values."""
  frozen = json.loads((ROOT / 'tests' / 'experiments' / 'claims_recipe.json').read_text())
  now = json.loads(recipe.recipe('default').to_json())

  def check(found, expected, path):
    for name, value in expected.items():
      if isinstance(value, dict):
        check(found[name], value, f'{path}.{name}')
      else:
        assert found[name] == value, f'configs/claims.py changed {path}.{name}'

  check(now, frozen, 'config')


@pytest.mark.parametrize(
  ('split', 'digest'),
  [
    (recipe.recipe('default').data.split, '7f0eb4718458081b'),
    (text.get_config().data.split, '7e9cb402bd329370'),
    (text.get_config().evaluation.splits[0], 'a6a5eb593858a28e'),
  ],
)
def test_styles_that_join_the_emoji_leave_the_recipes_examples_in_order(split, digest):
  source = data.open_source('emoji', split)
  order = map(' '.join, zip(source.values('vendor'), source.values('hexcode'), strict=True))
  assert hashlib.sha256('\n'.join(order).encode()).hexdigest()[:16] == digest


def config_of(arm):
  config = recipe.get_config(arm.method)
  fields = dict(arm.fields)
  if 'task' not in config:
    fields.pop('data.name', '')
  config.update_from_flattened_dict(fields)
  return config


@pytest.mark.parametrize('name', sorted(ARMS))
def test_every_arm_is_a_config(name):
  arm, config = ARMS[name], config_of(ARMS[name])
  settings = results.settings(arm)
  assert json.loads(json.dumps(settings)) == settings
  if 'task' not in config:
    steps = config.total_steps * config.batch_size
    assert steps in (51_200, 153_600), 'equal images seen, or equal views'


@pytest.mark.parametrize('name', sorted(ARMS))
def test_the_fields_of_every_arm_are_in_its_config(name):
  """A run sets them by flags, which cannot add a field."""
  config = recipe.get_config(ARMS[name].method)
  for path in ARMS[name].fields:
    *parents, field = path.split('.')
    assert field in functools.reduce(lambda own, parent: own[parent], parents, config), path


# Of each method the arm that changes most: the others are opened and built in the same way.
CHANGED = {arm.method: str(arm) for arm in sorted(ARMS.values(), key=lambda arm: len(arm.fields))}


@pytest.mark.parametrize('name', slow_but(sorted(ARMS), *CHANGED.values()))
def test_every_arm_is_a_run(name):
  config = config_of(ARMS[name])
  if 'task' in config:
    try:
      tasks.open_task(config)
    except ValueError as error:
      if 'install' not in str(error):
        raise
      pytest.skip(str(error))
    return
  if config.teacher:
    config.teacher = 'untrained'  # in place of a run
  run = build.build(config, examples=1000)
  # Of the first split a row keeps the recall, where there are texts.
  assert run.config.evaluation.splits[0] == 'heldout_style' or run.config.evaluation.numbers


def test_arms_that_share_a_name_are_one():
  arms = [arm for measured in CLAIMS.values() for arm, _ in measured.runs()]
  assert all(ARMS[str(arm)] == arm for arm in arms)


@pytest.mark.parametrize('name', CLAIMS)
def test_a_claim_is_of_a_paper(name):
  measured = CLAIMS[name]
  papers = catalogue.PAPERS if isinstance(measured.paper, int) else catalogue.BASES
  assert papers[measured.paper].where
  for comparison in measured.comparisons().values():
    assert comparison.seeds >= 1 and comparison.delta > 0 and comparison.says
  assert measured.primary.seeds >= 3
  assert len(results.source(measured)) == 12


SOURCE = '''"""Losses."""

def loss(x):
  """Half."""
  return half(x)

def half(x):
  return x / 2
'''


def test_the_source_of_a_method_is_its_module_without_docstrings(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  found = []
  for name, change in {'a': ('', ''), 'b': ('Half.', 'A\n  half.'), 'c': ('/ 2', '/ 3')}.items():
    (tmp_path / f'a_method_{name}.py').write_text(SOURCE.replace(*change))
    paper = dataclasses.replace(catalogue.PAPERS[31], where=f'a_method_{name}.loss')
    monkeypatch.setitem(catalogue.PAPERS, 31, paper)
    found.append(results.source(CLAIMS['decoupled']))
  assert found[0] == found[1] != found[2]


MEASURED = claim.Claim(
  method='clip',
  paper=31,
  primary=claim.Comparison(claim.Arm('decoupled'), says='equal steps', seeds=3),
  family='image-text',
)
FIRST, SECOND = MEASURED.primary.baseline, MEASURED.primary.method


def finish(folder, recall):
  """Writes the files that a finished run leaves."""
  folder.mkdir(parents=True)
  queries = [f'text {i}' for i in range(100)]
  hits = np.arange(100) < round(100 * recall)
  arrays = {
    metric: np.rec.fromarrays(drawn(hits, queries), names=outcomes.Outcome._fields)
    for metric in claim.RECALL
  }
  np.savez(folder / 'outcomes.npz', **arrays)
  found = dict.fromkeys(claim.RECALL, float(hits.mean())) | {'seconds': 1.0}
  (folder / 'results.json').write_text(json.dumps(found))
  provenance = {'commit': 'abc', 'versions': {}, 'device': 'cpu', 'date': '2026-01-01'}
  (folder / 'provenance.json').write_text(json.dumps(provenance))


@pytest.fixture
def measured(tmp_path, monkeypatch):
  """The folder of the runs; results are written to a folder of their own."""
  monkeypatch.setattr(results, 'FOLDER', tmp_path / 'results')
  monkeypatch.setattr(claim, 'names', lambda: ['decoupled'])

  def folder_of(arm, seed):
    return tmp_path / 'runs' / f'{arm.method}-{seed}'

  return folder_of


def test_results_follow_from_the_files_of_runs(measured):
  for seed, (baseline, method) in enumerate([(0.10, 0.15), (0.12, 0.17), (0.11, 0.17)]):
    finish(measured(FIRST, seed), baseline)
    results.write('decoupled', MEASURED, measured)
    assert results.read('decoupled').get('seeds', 0) == (seed if seed > 1 else 0)
    finish(measured(SECOND, seed), method)
  results.write('decoupled', MEASURED, measured)
  results.control_families()
  found = results.read('decoupled')
  assert found['verdict'] == 'holds' and found['seeds'] == 3 and len(found['rows']) == 6
  assert found['difference'] == pytest.approx(0.16 / 3)
  assert found['bootstrap'][0] < found['difference'] < found['bootstrap'][1]
  assert {'commit', 'versions', 'device', 'date', 'p', 'interval', 'secondary'} <= found.keys()
  assert 'holds: +5.3 points' in tables.summary(results.path_of('decoupled'))


def test_rows_outlive_the_workdirs(measured, tmp_path):
  for seed in range(3):
    finish(measured(FIRST, seed), 0.1)
    finish(measured(SECOND, seed), 0.2)
  results.write('decoupled', MEASURED, measured)
  before = results.read('decoupled')
  (tmp_path / 'runs').rename(tmp_path / 'gone')
  results.write('decoupled', MEASURED, measured)
  after = results.read('decoupled')
  assert after['rows'] == before['rows'] and after['bootstrap'] == before['bootstrap']
  # A row of other settings is measured anew.
  changed = dataclasses.replace(SECOND, fields={'batch_size': 64}, label=str(SECOND))
  assert results.row(SECOND, 0) and results.row(changed, 0) is None


def test_a_comparison_that_joins_a_measured_claim_is_settled(measured, tmp_path):
  for seed in range(3):
    finish(measured(FIRST, seed), 0.1)
    finish(measured(SECOND, seed), 0.2)
  results.write('decoupled', MEASURED, measured)
  before = results.read('decoupled')
  (tmp_path / 'runs').rename(tmp_path / 'gone')
  further = dataclasses.replace(MEASURED.primary, says='one way', metrics=claim.RECALL[:1])
  results.write('decoupled', dataclasses.replace(MEASURED, secondary={'one': further}), measured)
  after = results.read('decoupled')
  assert after['secondary'].pop('one')['difference'] == pytest.approx(0.1)
  assert after == before


@pytest.mark.slow
def test_the_runner_trains_stops_and_goes_on(tmp_path):
  """Two arms with two seeds of a tiny recipe, through launch.py."""
  script = f"""
import pathlib
from absl import app
from configs import claims
from experiments.claims import claim, results, run

tiny = {{'total_steps': 2, 'batch_size': 16, 'checkpoint_every': 1}}
measured = claim.Claim(
  method='decoupled', paper=31, family='image-text',
  primary=claim.Comparison(claim.Arm('decoupled', tiny), claim.Arm('clip', tiny), 'x', seeds=2),
)
claim.read = lambda name: measured
claim.names = lambda: ['decoupled']
results.FOLDER = pathlib.Path({str(tmp_path / 'results')!r})
app.run(run.main)
"""
  command = [sys.executable, '-c', script, '--jobs=1', f'--workdir={tmp_path / "runs"}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout + done.stderr
  found = json.loads((tmp_path / 'results' / 'decoupled.json').read_text())
  assert found['seeds'] == 2 and len(found['rows']) == 4
  again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  assert '0 runs of 0 arms remain' in again.stdout
