"""Tables, plot and pages follow from the results, the catalogue and docstrings."""

import dataclasses
import functools
import json
import re
import shutil
from xml.etree import ElementTree

import pytest

from contrastive_jax import catalogue, losses
from experiments import records
from experiments.claims import claim, pages, plot, report, results, statistics, tables

DECOUPLED = catalogue.PAPERS[31]


@functools.cache
def kept():
  """What a row keeps; all claims are read for it."""
  return {*results.KEPT, *claim.metrics()}


def write(folder, name, change, **fields):
  """Writes a claim's results, as of runs whose metrics differ by a change and by the seed."""
  measured = claim.read(name)
  rows = {
    (str(arm), seed): dict.fromkeys(kept(), 0.1 + gain * (0.8 + 0.1 * seed))
    | {'arm': str(arm), 'seed': seed}
    for comparison in measured.comparisons().values()
    for arm, gain in ((comparison.baseline, 0.0), (comparison.method, change))
    for seed in range(comparison.seeds)
  }
  compared = {
    key: results.compare(comparison, rows, lambda arm, seed: folder / 'none')
    for key, comparison in measured.comparisons().items()
  }
  primary = compared.pop('primary')
  found = {'paper': measured.paper, **primary, 'rule': primary['verdict'], 'secondary': compared}
  found |= {'source': results.source(measured), 'commit': 'a' * 40, 'versions': {}}
  found |= {'device': 'cpu: an abacus', 'date': '2026-01-01', 'rows': list(rows.values())}
  path = folder / f'{name}.json'
  path.write_text(json.dumps(found | fields))
  return path


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """A folder with results of all claims but SLIP, one of each verdict among them."""
  folder = tmp_path_factory.mktemp('results')
  for name in {*claim.names()} - {'slip'}:
    write(folder, name, 0.02)
  write(folder, 'reweighted', -0.02)
  write(folder, 'coca', 0.001)
  write(folder, 'isogclr', 0.012, verdict=statistics.CANNOT_TELL)
  return folder


@pytest.fixture
def measured(written, tmp_path, monkeypatch):
  """The path of each claim's results, which a test may change."""
  monkeypatch.setattr(results, 'FOLDER', tmp_path)
  shutil.copytree(written, tmp_path, dirs_exist_ok=True)
  return {name: tmp_path / f'{name}.json' for name in claim.names()}


def rows(table):
  """The cells of a table by its first column."""
  lines = [line.strip('|').split('|') for line in table.splitlines() if line.startswith('|')]
  return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_the_overview_has_a_row_per_claim(measured):
  table = rows(tables.overview(*measured.values()))
  assert {claim.read(name).method for name in claim.names()} < table.keys()
  assert table['SLIP'] == ['not measured', '', '', '', '1.0', '0 of 3', '', 'equal steps', 'clip']
  verdict, difference, bootstrap, detectable, delta, seeds, p, *_ = table['decoupled']
  assert re.fullmatch(r'\+2\.0 \(\+1\.\d to \+2\.\d\)', difference)
  assert (bootstrap, delta, seeds, p, verdict) == ('', '1.0', '5', '< 0.001', 'holds')
  assert 0 < float(detectable) < 1
  assert [table[name][0] for name in ('reweighted InfoNCE', 'CoCa', 'iSogCLR')] == [
    'reverses',
    'no difference',
    "can't tell",
  ]


def test_an_interrupted_measurement_shows_its_seeds(measured, tmp_path):
  write(tmp_path, 'decoupled', 0.02, seeds=3, bootstrap=[-0.00004, 0.03])
  cells = rows(tables.overview(measured['decoupled']))['decoupled']
  assert '3 of 5' in cells and '+0.0 to +3.0' in cells


def test_a_claim_shows_all_comparisons_and_arms(measured):
  table = rows(tables.comparisons(measured['decoupled']))
  primary, second, third = [*table][2:]
  assert [primary, second, third] == [f'batch of {b}, equal images seen' for b in (32, 128, 512)]
  assert table[primary][0] == 'holds' and table[second][0] == ''  # only the primary has a verdict
  assert table[second][-2:] == ['decoupled: 12.0%', 'clip: 10.0%']
  assert '2026-01-01, commit aaaaaaa, cpu: an abacus.' in tables.comparisons(measured['decoupled'])
  arms = rows(tables.arms(measured['decoupled']))
  assert len(arms) == 2 + 6 and arms['clip'][:2] == ['5', '10.0%']
  assert not tables.arms(measured['slip'])


def test_values_are_shown_in_the_unit_of_their_metric(measured):
  table = rows(tables.comparisons(measured['mv_dhel']))
  methods = ['mv_dhel views=5', 'pairwise_nt_xent views=5']
  assert table['effective rank'][-2:] == [f'{name}: 0.1' for name in methods]
  assert table['five views, k-NN, equal steps'][-1] == f'{methods[1]}: 10.0%'
  assert tables.numbers(claim.read('mv_dhel').secondary['rank'], {})[3] == '1.0'
  assert [tables.unit_of(name).show(0.0421) for name in ('step_seconds', 'modality_gap')] == [
    '42.1',
    '0.042',
  ]
  # The plot of the verdicts is in points.
  primary = [metric for name in claim.names() for metric in claim.read(name).primary.metrics]
  assert {tables.unit_of(metric) for metric in primary} == {tables.POINTS}


def test_a_single_pair_of_runs_has_a_difference_and_no_interval(measured):
  cells = rows(tables.comparisons(measured['mv_dhel']))['MV-InfoNCE, five views']
  assert cells[1:7] == ['+1.6', '', '', '1.0', '1', '']


def test_each_paper_of_views_has_one_claim():
  papers = [claim.read(name).paper for name in claim.families()['views']]
  assert sorted(number for number in papers if number != 'NNCLR') == [
    *(5, 16, 26, 29, 31, 33, 39, 44, 59)
  ]


def test_a_method_that_has_changed_since_is_told(measured, tmp_path):
  path = write(tmp_path, 'coca', 0.001, source='0' * 12)
  note = "CoCa: measured before the method's source changed, at aaaaaaa."
  assert note in tables.overview(path) and note in tables.comparisons(path)
  assert 'measured before' not in tables.overview(measured['decoupled'])


def test_a_formula_that_is_our_reading_is_told(measured, monkeypatch):
  ours = dataclasses.replace(DECOUPLED, grade='U', checked='')
  monkeypatch.setitem(catalogue.PAPERS, 31, ours)
  assert 'decoupled, our reading' in rows(tables.overview(measured['decoupled']))
  assert 'it is our reading of the paper.' in pages.page(ours)


def test_the_plot_shows_each_verdict_by_a_color_and_a_symbol(measured):
  text = plot.draw(*measured.values())
  assert text == plot.draw(*measured.values())
  ElementTree.fromstring(text)
  assert len({kind for kind, _ in plot.MARKS.values()}) == len(plot.MARKS)
  assert len({symbol for _, symbol in plot.MARKS.values()}) == len(plot.MARKS)
  for verdict, (kind, symbol) in plot.MARKS.items():
    assert f'>{verdict}</text>' in text and symbol in text and f'.{kind} {{' in text
  assert text.count('not measured') == 1
  assert ElementTree.fromstring(plot.draw(measured['slip'])) is not None  # nothing is measured


def test_a_page_has_formula_config_and_claim(measured):
  text = pages.page(DECOUPLED)
  assert f'> “{DECOUPLED.abstract}”\n' in text and DECOUPLED.url in text
  assert '.. autofunction:: contrastive_jax.losses.decoupled\n' in text
  assert '```{literalinclude} ../../configs/methods/decoupled.py' in text
  assert '**decoupled, batch of 32, equal images seen: holds.**' in text
  assert '<!-- table claims/decoupled ' in text
  both = pages.page(catalogue.PAPERS[11])
  for name in ('rocket.Rocket', 'byolip.SiamLip', 'byolip.ByoLip'):
    assert f'.. autoclass:: contrastive_jax.methods.{name}\n' in both
  assert both.index('**CLIP-rocket, ') < both.index('**BYOLIP, ') < both.index('**SiamLIP, ')
  assert 'It is a baseline' in pages.page(catalogue.BASES['CLIP'])


def test_the_hash_of_a_page_is_of_row_docstring_and_results(measured, tmp_path, monkeypatch):
  found = [pages.digest(DECOUPLED)]
  found.append(pages.digest(dataclasses.replace(DECOUPLED, summary='Another.')))
  write(tmp_path, 'decoupled', 0.03)
  found.append(pages.digest(DECOUPLED))
  monkeypatch.setattr(losses.decoupled, '__doc__', 'Another.')
  found.append(pages.digest(DECOUPLED))
  assert len(set(found)) == 4
  assert f'Generated by `{records.COMMAND}`: {found[-1]} -->' in pages.page(DECOUPLED)


def test_every_paper_is_in_the_table(measured):
  text = pages.papers(*measured.values())
  numbers = re.findall(r'^\| (\d+) \|', text, re.MULTILINE)
  assert sorted(map(int, numbers)) == [*range(1, 85)]
  assert rows(text)['61'][3] == 'not to be built' and catalogue.PAPERS[61].reason in text
  assert rows(text)['9'][-1] == 'holds'
  assert rows(text)['31'][-1] == 'decoupled: holds; DCL: holds'
  assert rows(text)['11'][-1].endswith('; SwALIP: holds; BYOLIP: holds; SiamLIP: holds')
  assert rows(text)['29'][3] == 'built' and rows(text)['1'][3] == 'planned'
  assert 'So far the hard loss, for two views' in text


def contradictions(name):
  """Yields the fields of a claim's results that are not those of its rows."""
  measured, found = claim.read(name), results.read(name)
  rows = {(row['arm'], row['seed']): row for row in found['rows']}
  stored = {'primary': found | {'verdict': found['rule']}, **found['secondary']}
  for key, comparison in measured.comparisons().items():
    expected = results.compare(comparison, rows, lambda arm, seed: records.ROOT / 'none')
    for field, value in (expected or {}).items():
      if field not in ('bootstrap', 'says') and stored[key][field] != approximately(value):
        yield f'{key}: {field} = {stored[key][field]}, and its rows give {value}'


def approximately(value):
  """A value as JSON has it, within rounding."""
  kept = list(value) if isinstance(value, tuple) else value
  return kept if isinstance(value, str) else pytest.approx(kept, abs=1e-9)


def test_results_follow_from_their_rows():
  for name in claim.names():
    wrong = [*contradictions(name)] if results.read(name) else []
    remedy = f'restore results/{name}.json, or run `python -m experiments.claims.run {name}`'
    assert not wrong, f'{remedy}: {wrong}'


def test_verdicts_follow_from_their_families():
  for members in claim.families().values():
    found = {name: result for name in members if (result := results.read(name))}
    p = {name: found[name]['p'] if name in found else 1.0 for name in members}
    expected = statistics.control({name: result['rule'] for name, result in found.items()}, p)
    assert {name: result['verdict'] for name, result in found.items()} == expected, (
      'run `python -m experiments.claims.run`, which settles the verdicts of each family'
    )


@pytest.mark.parametrize(
  ('field', 'value'),
  [('difference', 0.03), ('interval', [0.0, 0.1]), ('p', 0.5), ('rule', 'reverses'), ('seeds', 9)],
)
def test_a_result_that_is_edited_by_hand_is_noticed(measured, tmp_path, field, value):
  assert not [*contradictions('decoupled')]
  write(tmp_path, 'decoupled', 0.02, **{field: value})
  (wrong,) = contradictions('decoupled')
  assert wrong.startswith(f'primary: {"verdict" if field == "rule" else field} = ')


def test_every_page_is_of_a_built_paper():
  known = {path for path in report.FILES if path.parent == pages.FOLDER}
  stray = sorted(path.name for path in set(pages.FOLDER.glob('*')) - known)
  assert not stray, f'docs/methods/ has {stray}, which no paper that is built has; remove them'


def test_the_benchmarks_show_every_table():
  shown = (records.ROOT / 'docs' / 'benchmarks.md').read_text()
  for path in sorted(records.FOLDER.glob('*/report.py')):
    if (name := path.parent.name) != 'claims':
      own = re.findall(r'<!-- table (\S+)', path.with_name('README.md').read_text())
      missing = [
        table for table in (*own, 'provenance') if f'<!-- table {name}/{table} ' not in shown
      ]
      assert not missing, f'add `<!-- table {name}/TABLE -->` to docs/benchmarks.md for {missing}'


@pytest.mark.parametrize('text', [None, 'Edited by hand.\n'])
def test_a_file_that_is_edited_or_missing_is_noticed_and_mended(tmp_path, text):
  path = tmp_path / 'page.md'
  if text:
    path.write_text(text)
  with pytest.raises(
    ValueError, match=r'page\.md is missing or differs .* -m experiments\.records'
  ):
    records.update_file(path, lambda: 'Generated.\n', check=True)
  assert path.exists() == bool(text)
  records.update_file(path, lambda: 'Generated.\n')
  records.update_file(path, lambda: 'Generated.\n', check=True)
  assert path.read_text() == 'Generated.\n'
