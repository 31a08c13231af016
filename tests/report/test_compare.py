"""The comparison of runs: paired intervals, notes on missing ones, and a self-contained page."""

import dataclasses
import json
import re

import numpy as np
import pytest
from ml_collections import ConfigDict

from contrastive_jax.evaluation import outcomes
from contrastive_jax.evaluation.retrieval import retrieve_by_query
from contrastive_jax.report import compare
from tests.report.pages import find, make_split, parse, text_of

METRICS = [{'step': step, 'train/loss': 5 / step, 's/recall@1': 0.1 * step} for step in (1, 2, 3)]


def make_run(folder, split, *, results=(), metrics=METRICS, **fields):
  """Writes a workdir like a finished run, and reads it for `compare`."""
  folder.mkdir()
  outcomes.write(folder / 'outcomes.npz', [split])
  means = {name: float(o.hits.mean()) for name, o in outcomes.outcomes(split).items()}
  (folder / 'results.json').write_text(json.dumps(means | dict(results)))
  config = ConfigDict({'name': 'clip', 'variant': folder.name, 'model': fields})
  return compare.open_run(folder, config, metrics)


def test_outcomes_round_trip(tmp_path):
  split = make_split(30, name='train[:5%],a=b')
  outcomes.write(tmp_path / 'outcomes.npz', [split, make_split(5, name='b')])
  found, expected = outcomes.read(tmp_path / 'outcomes.npz'), outcomes.outcomes(split)
  assert len(found) == 2 * len(expected)
  for name, outcome in expected.items():
    np.testing.assert_array_equal(found[name].hits, outcome.hits)
    np.testing.assert_array_equal(found[name].captions, outcome.captions)
  assert outcomes.read(tmp_path / 'nothing.npz') == {}


def test_runs_with_several_captions_per_image_have_intervals(tmp_path):
  texts = [[f'{row} {number}' for number in range(1 + row % 5)] for row in range(30)]
  vectors = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)

  def run(name, seed):
    noise = np.random.default_rng(seed)

    def encode(captions):
      rows = vectors[[int(caption.split()[0]) for caption in captions]]
      return rows + noise.normal(size=rows.shape).astype(np.float32)

    found, first = retrieve_by_query(vectors, texts, encode, [1, 5])
    split = make_split(30, captions=[own[0] for own in texts])
    split = dataclasses.replace(split, text_embeddings=first, outcomes=found)
    return make_run(tmp_path / name, split)

  runs = [run('a', 1), run('b', 2)]
  for name, value in runs[0].results.items():
    assert runs[0].outcomes[name].hits.mean() == value
    assert compare._difference(name, *runs)[0] is not None, name
  assert len(np.unique(runs[0].outcomes['heldout_style/text_to_image_recall@1'].captions)) == 30


def test_outcomes_in_float32_are_read(tmp_path):
  """Earlier versions wrote float32."""
  old = np.rec.fromarrays(
    [np.float32([0, 1, 0.5]), np.uint32([7, 8, 8])], names=['hits', 'captions']
  )
  np.savez_compressed(tmp_path / 'outcomes.npz', **{'a/recall@1': old})
  before = outcomes.read(tmp_path / 'outcomes.npz')['a/recall@1']
  after = outcomes.Outcome(np.ones(3), before.captions)
  assert outcomes.difference(before, after).value == 0.5


def draw(seed, N=400, chance=0.5, captions=None):
  hits = (np.random.default_rng(seed).random(N) < chance).astype(np.float32)
  captions = np.arange(N) if captions is None else captions
  return outcomes.Outcome(hits, captions.astype(np.uint32))


def test_the_interval_approximates_the_normal_one():
  """With many independent queries it is 1.96 standard errors of the paired difference."""
  before, after = draw(0), draw(1, chance=0.6)
  found = outcomes.difference(before, after)
  change = after.hits - before.hits
  reach = float(1.96 * change.std() / 20)
  assert found.value == pytest.approx(change.mean())
  assert found.low == pytest.approx(change.mean() - reach, abs=0.1 * reach)
  assert found.high == pytest.approx(change.mean() + reach, abs=0.1 * reach)
  assert found == outcomes.difference(before, after)


def test_the_interval_has_its_nominal_coverage():
  truth, held = 0.1, 0
  for seed in range(200):
    before, after = draw(2 * seed, 100), draw(2 * seed + 1, 100, 0.5 + truth)
    found = outcomes.difference(before, after, resamples=400)
    held += found.low <= truth <= found.high
  assert 180 <= held <= 198


def test_differences_are_paired():
  """A run compared with itself has difference 0 with interval 0."""
  assert outcomes.difference(draw(0), draw(0)) == (0, 0, 0)
  one_more = draw(0)._replace(hits=np.maximum(draw(0).hits, np.arange(400) == 7))
  found = outcomes.difference(draw(0), one_more)
  assert found.high - found.low <= 0.01 < 0.05


def test_queries_of_one_caption_count_as_one():
  """Repeating every query four times does not narrow the interval."""
  once = [draw(seed, 100) for seed in (0, 1)]
  again = [
    outcomes.Outcome(np.repeat(o.hits, 4), np.repeat(o.captions, 4).astype(np.uint32)) for o in once
  ]
  assert outcomes.difference(*once) == pytest.approx(outcomes.difference(*again), abs=1e-9)


def test_different_queries_are_an_error():
  with pytest.raises(ValueError, match='400 queries of one run are not the 400 of the other'):
    outcomes.difference(draw(0), draw(1, captions=np.arange(400)[::-1]))


@pytest.fixture(scope='module')
def compared(tmp_path_factory):
  folder = tmp_path_factory.mktemp('compare')
  clean = make_split(60, noise=0.3)
  runs = [
    make_run(folder / 'a', make_split(60, noise=2.0), width=1, seed=0, results={'b/gap': 0.5}),
    make_run(folder / 'b', clean, width=2, seed=0, deep={'x': 1}, results={'b/gap': 0.25}),
    make_run(folder / '<script>', make_split(30), width=1, seed=0, results={'b/gap': 1.0}),
  ]
  compare.write(folder / 'out' / 'compare.html', runs)
  return runs, (folder / 'out' / 'compare.html').read_text()


def rows_of(tree):
  return {
    text_of(find(row, 'th')[0]): [text_of(cell) for cell in find(row, 'td')]
    for table in find(tree, 'table', 'differences')
    for row in find(table, 'tr')[1:]
  }


def test_the_page_shows_every_difference_and_its_interval(compared):
  runs, page = compared
  rows = rows_of(parse(page))
  for way in ('image_to_text', 'text_to_image'):
    name = f'heldout_style/{way}_recall@1'
    found = outcomes.difference(runs[0].outcomes[name], runs[1].outcomes[name])
    assert found.low > 0
    cells = rows[f'{way.replace("_", " ").capitalize()} recall @1']
    assert cells[0] == f'{100 * runs[0].results[name]:.1f}%'
    assert cells[1] == f'{100 * runs[1].results[name]:.1f}%'
    interval = f'({100 * found.low:+.1f} to {100 * found.high:+.1f})'
    assert cells[2] == f'{100 * found.value:+.1f} {interval}'
    assert re.fullmatch(
      r'[+−][\d.]+', cells[5]
    )  # The third run has other queries, so there is no interval.
  assert rows['Gap'] == ['0.5', '0.25', '−0.25', '1', '+0.5']
  sure = [text_of(cell) for cell in find(parse(page), 'td', 'sure') if text_of(cell)]
  assert sure and all(excludes_zero(cell) for cell in sure)
  assert 'the queries of' in page


def excludes_zero(cell):
  """Whether both ends of the interval have the same sign."""
  low, high = cell.partition('(')[2].rstrip(')').split(' to ')
  return low[0] == high[0]


def test_every_run_has_a_curve_per_measure_in_its_own_style(compared):
  tree = parse(compared[1])
  panels = [find(panel, 'svg')[0] for panel in find(tree, 'div', 'runs')]
  assert len(panels) == 2
  for panel in panels:
    assert [g.get('class') for g in find(panel, 'g')] == ['line0', 'line1', 'line2']
    assert [text_of(text)[0] for text in find(panel, 'text', 'end')] == ['A', 'B', 'C']


def test_the_fields_that_differ_are_shown(compared):
  fields = [
    [text_of(cell) for cell in row]
    for row in find(find(parse(compared[1]), 'table', 'fields')[0], 'tr')
  ]
  assert ['config.model.width', '1', '2', '1'] in fields
  assert ['config.model.deep.x', 'absent', '1', 'absent'] in fields
  assert not any('seed' in field[0] for field in fields)


def test_the_page_runs_no_script_and_escapes_text(compared):
  tree = parse(compared[1])
  assert not list(tree.iter('script'))
  assert any('clip <script>' in text_of(run) for run in find(tree, 'span'))
  [policy] = [meta.get('content') for meta in tree.iter('meta') if meta.get('http-equiv')]
  assert "default-src 'none'" in policy and "script-src 'none'" in policy


def test_runs_that_cannot_be_compared_are_errors(tmp_path):
  one = make_run(tmp_path / 'one', make_split(9))
  with pytest.raises(ValueError, match='--workdirs names 1 runs; give 2 to 6'):
    compare.write(tmp_path / 'compare.html', [one])
  other = make_run(tmp_path / 'other', make_split(9, name='other'))
  with pytest.raises(ValueError, match='share no result'):
    compare.write(tmp_path / 'compare.html', [one, other])
  (tmp_path / 'other' / 'results.json').unlink()
  with pytest.raises(ValueError, match=r'other has no results.json; finish it, or run --mode=eval'):
    compare.open_run(tmp_path / 'other', other.config, [])


def test_a_run_without_outcomes_has_differences_and_a_note(tmp_path, capsys):
  runs = [make_run(tmp_path / name, make_split(20, seed=len(name))) for name in ('a', 'bb')]
  runs[1] = runs[1]._replace(outcomes={})
  compare.write(tmp_path / 'compare.html', runs)
  page = (tmp_path / 'compare.html').read_text()
  assert 'has no outcomes.npz' in page and ' to +' not in page
  assert 'has no outcomes.npz' in capsys.readouterr().out


def test_outcomes_of_another_evaluation_give_no_interval(tmp_path):
  name = 'heldout_style/image_to_text_recall@1'
  runs = [
    make_run(tmp_path / 'a', make_split(20)),
    make_run(tmp_path / 'b', make_split(20, seed=1), results={name: 0.987}),
  ]
  compare.write(tmp_path / 'compare.html', runs)
  page = (tmp_path / 'compare.html').read_text()
  assert f'{name}: the outcomes of {tmp_path}/b are not those of its results.json' in page
