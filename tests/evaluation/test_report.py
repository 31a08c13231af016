"""Laws of the report: self-contained, complete, harmless, and honest about right and wrong."""

import dataclasses
import re

import html5lib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax.evaluation import report

SUMMARY = {'Configuration': 'configs/clip.py', 'Parameters': '2,412,033'}
RESULTS = {
  'heldout_style/image_to_text_recall@1': 0.3117,
  'heldout_style/image_to_text_recall@10': 0.6623,
  'heldout_style/text_to_image_recall@1': 0.2904,
  'heldout_style/group_zero_shot_top5': 0.7311,
  'heldout_style/median_rank': 7,
  'heldout_composition/text_to_image_recall@5': 0.5151,
  'unknown/deep/alignment': -1.0371,
  'evaluation_seconds': 9.132,
}
METRICS = [
  {'step': 50, 'train/loss': 5.1, 'train/scale': 14.3},
  {'step': 100, 'train/loss': 4.2, 'train/scale': 15.1, 'validation/image_to_text_recall@1': 0.1},
]


def make_split(N=40, captions=None, seed=0, name='heldout_style', noise=0.9):
  """Noisy pairs; by default every third caption occurs twice."""
  generator = np.random.default_rng(seed)
  captions = captions or [f'caption {row - 1 if row % 3 == 1 else row}' for row in range(N)]
  meaning = generator.normal(size=(N, 8))

  def embed():
    embeddings = meaning + noise * generator.normal(size=meaning.shape)
    return (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)

  images = generator.integers(0, 256, size=(N, 16, 16, 3), dtype=np.uint8)
  return report.Retrieved(name, images, captions, embed(), embed())


def write(folder, **changes):
  inputs = {
    'title': 'clip',
    'summary': SUMMARY,
    'results': RESULTS,
    'metrics': METRICS,
    'splits': (),
  }
  report.write(folder / 'report.html', **(inputs | changes))
  return (folder / 'report.html').read_text(encoding='utf-8')


def parse(page):
  """The page as an ElementTree; raises on anything that is not valid HTML."""
  parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
  return parser.parse(page)


def text_of(element):
  return ' '.join(''.join(element.itertext()).split())


def find(element, tag, kind=''):
  """The descendants of a tag and a class; the tag may be SVG's, which has a namespace."""
  return [
    child
    for child in element.iter()
    if str(child.tag).rpartition('}')[2] == tag
    and (not kind or kind in child.get('class', '').split())
  ]


@pytest.fixture(scope='module')
def split():
  return make_split()


@pytest.fixture(scope='module')
def tree(split, tmp_path_factory):
  return parse(write(tmp_path_factory.mktemp('report'), splits=[split, make_split(9, name='b')]))


def test_asks_nothing_of_the_network(tree):
  for element in tree.iter():
    if not isinstance(element.tag, str):
      continue
    assert element.tag not in ('script', 'iframe', 'object', 'embed', 'base', 'form')
    for name, value in element.attrib.items():
      if name in ('src', 'srcset', 'href', 'poster', 'data', 'action') or 'href' in str(name):
        assert value.startswith(('data:', '#')), (element.tag, name, value)
      assert 'url(' not in value
  for style in tree.iter('style'):
    assert 'url(' not in style.text and '@import' not in style.text
  policy = next(meta for meta in tree.iter('meta') if meta.get('http-equiv'))
  assert "default-src 'none'" in policy.get('content')


def test_same_inputs_give_the_same_page(tmp_path, split):
  assert write(tmp_path, splits=[split]) == write(tmp_path, splits=[split])


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(codec='utf-8', exclude_categories=('C', 'Z')), min_size=1))
def test_text_is_shown_never_interpreted(tmp_path_factory, text):
  text = f'</span><script>alert(1)</script>"\'>&amp;{text}'
  inputs = {'title': text, 'summary': {text: text}, 'results': {f'{text}/{text}@1': 0.5}}
  metrics = [{'step': 1, f'{text}/{text}': 1.0}]
  split = make_split(2, [text, 'other'], name=text)
  splits = [dataclasses.replace(split, generated=['other', text])]
  page = write(tmp_path_factory.mktemp('report'), metrics=metrics, splits=splits, **inputs)
  tree = parse(page)
  assert not list(tree.iter('script'))
  assert text_of(next(tree.iter('h1'))) == text
  for kind in ('query', 'text', 'muted'):
    assert text in [text_of(line) for line in find(tree, 'p', kind)]
  assert text in [image.get('alt') for image in tree.iter('img')]


def test_every_result_is_shown_under_its_name(tree):
  cells = {
    cell.get('title').rsplit(': ', 1)[0]: (text_of(cell), cell.get('title').rsplit(': ', 1)[1])
    for cell in tree.iter('td')
    if '/' in cell.get('title', '') or '_' in cell.get('title', '')
  }
  assert cells.keys() == RESULTS.keys()
  for name, value in RESULTS.items():
    shown, exact = cells[name]
    assert float(exact) == value
    if 'recall' in name or 'zero_shot' in name:
      assert shown.endswith('%') and abs(float(shown[:-1]) - 100 * value) <= 0.0501
    else:
      assert float(shown.replace('−', '-')) == pytest.approx(value, rel=1e-3)


def test_chance_counts_distinct_captions(tmp_path):
  split = make_split(8, ['one', 'two', 'three', 'four'] * 2)
  tree = parse(write(tmp_path, splits=[split]))
  assert 'Chance 25%' in [text_of(line) for line in find(tree, 'p', 'muted')]


def test_every_metric_has_a_curve_with_its_last_value(tree):
  curves = [text_of(panel) for panel in find(tree, 'svg') if find(panel, 'text')]
  assert len(curves) == 3
  assert curves[0].endswith('4.2') and curves[2].endswith('15.1')
  assert curves[1].endswith('@1 10%')


def figures_of(tree, title):
  return [f for f in tree.iter('figure') if title in text_of(next(f.iter('figcaption')))]


def test_marks_agree_with_numpy(tree, split):
  similarity = split.image_embeddings.astype(np.float64) @ split.text_embeddings.T
  captions = np.array(split.captions)
  seen = set()
  figure = figures_of(tree, 'Pictures retrieved')[0]
  for query in find(figure, 'div', 'own'):
    caption = text_of(find(query, 'p', 'query')[0])
    source = next(query.iter('img')).get('src')
    row = next(r for r, image in enumerate(split.images) if report._picture(image) == source)
    assert captions[row] == caption
    nearest = np.argsort(-similarity[:, row])
    found = next(
      child for item in find(figure, 'li') if query in list(item) for child in find(item, 'ol')
    )
    assert len(found) == report.FOUND
    for item, expected in zip(found, nearest, strict=False):
      picture, mark = next(item.iter('img')), find(item, 'svg', 'mark')[0]
      assert picture.get('src') == report._picture(split.images[expected])
      verdict = 'right' if captions[expected] == caption else 'wrong'
      assert item.get('class') == mark.get('aria-label') == verdict
      seen.add(verdict)
    rank = 1 + int(np.argmax(captions[nearest] == caption))
    assert f'{"first" if rank == 1 else f"at rank {rank}"} of 40' in text_of(query)
  assert seen == {'right', 'wrong'}


def test_captions_are_distinct_best_first_and_rightly_marked(tree, split):
  similarity = split.image_embeddings.astype(np.float64) @ split.text_embeddings.T
  captions = np.array(split.captions)
  _, first = np.unique(captions, return_index=True)
  for item in find(figures_of(tree, 'Captions retrieved')[0], 'li', 'with-picture'):
    own = text_of(find(item, 'p', 'query')[0])
    source = next(item.iter('img')).get('src')
    row = next(r for r, image in enumerate(split.images) if report._picture(image) == source)
    assert captions[row] == own
    expected = captions[first[np.argsort(-similarity[row, first])]][: report.FOUND]
    found = list(find(item, 'ol')[0])
    assert [text_of(find(li, 'span', 'text')[0]) for li in found] == list(expected)
    for li, caption in zip(found, expected, strict=True):
      assert li.get('class') == ('right' if caption == own else 'wrong')


def test_worst_mistakes_are_those_of_the_largest_margin(tree, split):
  similarity = split.image_embeddings @ split.text_embeddings.T
  captions = np.array(split.captions)
  right = captions[:, None] == captions
  margin = np.where(right, -2, similarity).max(1) - np.where(right, similarity, -2).max(1)
  figure = figures_of(tree, 'worst mistakes')[0]
  shown = [float(m) for m in re.findall(r'margin of (\d\.\d+)', text_of(figure))]
  expected = np.sort(margin[margin > 0])[::-1][: report.MISTAKES]
  np.testing.assert_allclose(shown, expected, atol=0.0051)
  assert f'{np.sum(margin > 0)} of the 40 pictures' in text_of(figure)
  for item in find(figure, 'li'):
    taken, own = (text_of(value) for value in item.iter('dd'))
    assert taken != own


def test_written_captions_stand_beside_their_pictures_and_are_rightly_marked(tmp_path, split):
  written = [c.upper() if row % 2 else f'<b>{c}</b>' for row, c in enumerate(split.captions)]
  tree = parse(write(tmp_path, splits=[dataclasses.replace(split, generated=written)]))
  items = find(figures_of(tree, 'Captions written')[0], 'li')
  assert len(items) == report.WRITTEN
  for item in items:
    source = next(item.iter('img')).get('src')
    row = next(r for r, image in enumerate(split.images) if report._picture(image) == source)
    verdict = 'right' if row % 2 else 'wrong'
    assert item.get('class') == find(item, 'svg', 'mark')[0].get('aria-label') == verdict
    reference = [] if row % 2 else [split.captions[row]]
    assert [text_of(line) for line in item.iter('p')] == [written[row], *reference]
  assert {item.get('class') for item in items} == {'right', 'wrong'}


def test_a_model_that_does_not_write_has_no_such_figure(tree):
  assert not figures_of(tree, 'Captions written')


def test_a_perfect_model_has_no_wrong_first_and_no_mistakes(tmp_path):
  split = make_split(20, [f'caption {row}' for row in range(20)], noise=0.0)
  tree = parse(write(tmp_path, splits=[split]))
  assert all('first of' in text_of(rank) for rank in find(tree, 'p', 'rank') if 'of' in rank.text)
  figure = figures_of(tree, 'worst mistakes')[0]
  assert '0 of the 20 pictures' in text_of(figure) and not find(figure, 'li')


def test_the_sample_does_not_depend_on_the_scores(tmp_path):
  def queries(seed):
    split = make_split(seed=seed)
    tree = parse(write(tmp_path, splits=[split]))
    return [text_of(query) for query in find(tree, 'p', 'query')]

  assert queries(1) == queries(2)


@pytest.mark.parametrize(
  'metrics',
  [
    [],
    [{'step': 2}],
    [{'step': 0, 'train/loss': 3.0}],
    [{'step': 1, 'train/loss': float('nan')}, {'step': 2, 'train/loss': float('inf')}],
    [{'step': step, 'train/loss': 1e-9 * step} for step in range(1, 2000)],
  ],
)
def test_any_metrics_give_a_valid_page(tmp_path, metrics):
  page = write(tmp_path, metrics=metrics)
  parse(page)
  curves = re.findall(r'points="([^"]*)"', page)
  assert all(len(curve.split()) <= 300 for curve in curves)
  assert not re.search(r'="[^"]*\b(nan|inf)\b', page)


def test_the_axis_of_a_fraction_begins_at_zero(tmp_path):
  page = write(tmp_path, metrics=[{'step': 2, 'validation/recall@1': 0.0}])
  assert re.search(r'>0%<', page) and not re.search(r'>[-−][\d.]+%<', page)


@pytest.mark.parametrize('N', [1, 2, 5, 33])
def test_any_split_gives_a_valid_page(tmp_path, N):
  tree = parse(write(tmp_path, results={}, metrics=[], summary={}, splits=[make_split(N)]))
  assert len(figures_of(tree, 'retrieved')) == 2


def test_one_caption_for_all_pairs_is_never_wrong(tmp_path):
  tree = parse(write(tmp_path, splits=[make_split(6, ['same'] * 6)]))
  assert find(tree, 'li', 'right') and not find(tree, 'li', 'wrong')


def test_an_empty_split_is_left_out(tmp_path):
  empty = report.Retrieved(
    'empty', np.zeros((0, 8, 8, 3), np.uint8), [], *[np.zeros((0, 4), np.float32)] * 2
  )
  assert not list(parse(write(tmp_path, splits=[empty], metrics=[])).iter('figure'))


def test_size_stays_small_with_large_pictures(tmp_path):
  split = make_split(64)
  images = np.random.default_rng(0).integers(0, 256, (64, 448, 448, 3), dtype=np.uint8)
  large = dataclasses.replace(split, images=images)
  assert len(write(tmp_path, splits=[large])) < 3_000_000


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('images', np.zeros((40, 16, 16, 3), np.float32)),
    ('images', np.zeros((39, 16, 16, 3), np.uint8)),
    ('text_embeddings', np.zeros((40, 7), np.float32)),
    ('image_embeddings', np.zeros((39, 8), np.float32)),
    ('generated', ['a caption'] * 39),
  ],
)
def test_fields_that_disagree_are_refused_by_name(split, field, value):
  with pytest.raises(ValueError, match=f'{field} of split .*N = 40'):
    dataclasses.replace(split, **{field: value})
