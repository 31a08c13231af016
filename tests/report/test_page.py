"""The report page: self-contained, complete, safe, and correct."""

import base64
import dataclasses
import hashlib
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax.evaluation.embedded import EmbeddedSplit
from contrastive_jax.report import examples, page, plots
from tests.report.pages import (
  RESULTS,
  figures_of,
  find,
  make_split,
  parse,
  stored,
  text_of,
  write,
)


@pytest.fixture(scope='module')
def split():
  return make_split()


@pytest.fixture(scope='module')
def tree(split, tmp_path_factory):
  return parse(write(tmp_path_factory.mktemp('report'), splits=[split, make_split(9, name='b')]))


def test_the_page_loads_nothing_from_the_network(tree):
  for element in tree.iter():
    if not isinstance(element.tag, str):
      continue
    assert element.tag not in ('iframe', 'object', 'embed', 'base', 'form')
    for name, value in element.attrib.items():
      if name in ('src', 'srcset', 'href', 'poster', 'data', 'action') or 'href' in str(name):
        assert value.startswith(('data:', '#')), (element.tag, name, value)
      assert 'url(' not in value
  for style in tree.iter('style'):
    assert 'url(' not in style.text and '@import' not in style.text
  [policy] = [meta.get('content') for meta in tree.iter('meta') if meta.get('http-equiv')]
  assert "default-src 'none'" in policy
  # Only the page's own script may run; other script elements are data.
  [code] = [script for script in tree.iter('script') if script.get('type') != 'application/json']
  digest = base64.b64encode(hashlib.sha256(code.text.encode()).digest()).decode()
  assert re.search(r'script-src ([^;]*);', policy)[1] == f"'sha256-{digest}'"
  assert not re.search(r'fetch|XMLHttp|WebSocket|sendBeacon|import|innerHTML|eval|write', code.text)


def test_same_inputs_give_the_same_page(tmp_path, split):
  assert write(tmp_path, splits=[split]) == write(tmp_path, splits=[split])


@settings(max_examples=20, deadline=None)
@given(st.text(st.characters(codec='utf-8', exclude_categories=('C', 'Z')), min_size=1))
def test_text_is_escaped(tmp_path_factory, text):
  text = f'</span><script>alert(1)</script>"\'>&amp;{text}'
  inputs = {'title': text, 'summary': {text: text}, 'results': {f'{text}/{text}@1': 0.5}}
  metrics = [{'step': 1, f'{text}/{text}': 1.0}]
  split = make_split(2, [text, 'other'], name=text)
  classes = {text: [text, 'other']}
  splits = [
    dataclasses.replace(split, generated=['other', text], classes=classes, predictions=classes)
  ]
  page = write(tmp_path_factory.mktemp('report'), metrics=metrics, splits=splits, **inputs)
  tree = parse(page)
  code, *others = [s.get('type') for s in tree.iter('script')][::-1]
  assert code is None and others == ['application/json']
  assert text in stored(tree)[0]['captions']
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


def test_chance_level_counts_distinct_captions(tmp_path):
  split = make_split(8, ['one', 'two', 'three', 'four'] * 2)
  tree = parse(write(tmp_path, splits=[split]))
  assert 'Chance 25%' in [text_of(line) for line in find(tree, 'p', 'muted')]


def test_every_metric_has_a_curve_with_its_last_value(tree):
  section = next(section for section in tree.iter('section') if section.get('id') == 'training')
  curves = [text_of(panel) for panel in find(section, 'svg')]
  assert len(curves) == 3
  assert curves[0].endswith('4.2') and curves[1].endswith('15.1')
  assert curves[2].endswith('@1 10%')


def test_retrieved_images_and_marks_agree_with_numpy(tree, split):
  similarity = split.image_embeddings.astype(np.float64) @ split.text_embeddings.T
  captions = np.array(split.captions)
  seen = set()
  figure = figures_of(tree, 'Images retrieved')[0]
  for query in find(figure, 'div', 'own'):
    caption = text_of(find(query, 'p', 'query')[0])
    source = next(query.iter('img')).get('src')
    row = next(r for r, image in enumerate(split.images) if page.thumbnail(image) == source)
    assert captions[row] == caption
    nearest = np.argsort(-similarity[:, row])
    found = next(
      child for item in find(figure, 'li') if query in list(item) for child in find(item, 'ol')
    )
    assert len(found) == examples.FOUND
    for item, expected in zip(found, nearest, strict=False):
      image, mark = next(item.iter('img')), find(item, 'svg', 'mark')[0]
      assert image.get('src') == page.thumbnail(split.images[expected])
      verdict = 'right' if captions[expected] == caption else 'wrong'
      assert item.get('class') == mark.get('aria-label') == verdict
      seen.add(verdict)
    rank = 1 + int(np.argmax(captions[nearest] == caption))
    assert f'{"first" if rank == 1 else f"at rank {rank}"} of 40' in text_of(query)
  assert seen == {'right', 'wrong'}


def test_retrieved_captions_are_distinct_sorted_and_marked(tree, split):
  similarity = split.image_embeddings.astype(np.float64) @ split.text_embeddings.T
  captions = np.array(split.captions)
  _, first = np.unique(captions, return_index=True)
  for item in find(figures_of(tree, 'Captions retrieved')[0], 'li', 'with-image'):
    own = text_of(find(item, 'p', 'query')[0])
    source = next(item.iter('img')).get('src')
    row = next(r for r, image in enumerate(split.images) if page.thumbnail(image) == source)
    assert captions[row] == own
    expected = captions[first[np.argsort(-similarity[row, first])]][: examples.FOUND]
    found = list(find(item, 'ol')[0])
    assert [text_of(find(li, 'span', 'text')[0]) for li in found] == list(expected)
    for li, caption in zip(found, expected, strict=True):
      assert li.get('class') == ('right' if caption == own else 'wrong')


def test_worst_mistakes_have_the_largest_margins(tree, split):
  similarity = split.image_embeddings @ split.text_embeddings.T
  captions = np.array(split.captions)
  right = captions[:, None] == captions
  margin = np.where(right, -2, similarity).max(1) - np.where(right, similarity, -2).max(1)
  figure = figures_of(tree, 'worst mistakes')[0]
  shown = [float(m) for m in re.findall(r'Margin of (\d\.\d+)', text_of(figure))]
  expected = np.sort(margin[margin > 0])[::-1][: examples.MISTAKES]
  np.testing.assert_allclose(shown, expected, atol=0.0051)
  assert f'{np.sum(margin > 0)} of the 40 images' in text_of(figure)
  for item in find(figure, 'li'):
    taken, own = (text_of(value) for value in item.iter('dd'))
    assert taken != own


def test_generated_captions_are_shown_with_their_images_and_marked(tmp_path, split):
  written = [c.upper() if row % 2 else f'<b>{c}</b>' for row, c in enumerate(split.captions)]
  tree = parse(write(tmp_path, splits=[dataclasses.replace(split, generated=written)]))
  items = find(figures_of(tree, 'Generated captions')[0], 'li')
  assert len(items) == examples.WRITTEN
  for item in items:
    source = next(item.iter('img')).get('src')
    row = next(r for r, image in enumerate(split.images) if page.thumbnail(image) == source)
    verdict = 'right' if row % 2 else 'wrong'
    assert item.get('class') == find(item, 'svg', 'mark')[0].get('aria-label') == verdict
    reference = [] if row % 2 else [split.captions[row]]
    assert [text_of(line) for line in item.iter('p')] == [written[row], *reference]
  assert {item.get('class') for item in items} == {'right', 'wrong'}


def test_a_model_without_a_captioner_has_no_generated_captions(tree):
  assert not figures_of(tree, 'Generated captions')


def test_a_perfect_model_has_no_mistakes(tmp_path):
  split = make_split(20, [f'caption {row}' for row in range(20)], noise=0.0)
  tree = parse(write(tmp_path, splits=[split]))
  assert all('first of' in text_of(rank) for rank in find(tree, 'p', 'rank') if 'of' in rank.text)
  figure = figures_of(tree, 'worst mistakes')[0]
  assert '0 of the 20 images' in text_of(figure) and not find(figure, 'li')


def test_the_sample_is_independent_of_scores(tmp_path):
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


def test_the_axis_of_a_fraction_starts_at_zero(tmp_path):
  page = write(tmp_path, metrics=[{'step': 2, 'validation/recall@1': 0.0}])
  assert re.search(r'>0%<', page) and not re.search(r'>[-−][\d.]+%<', page)


@pytest.mark.parametrize('N', [1, 2, 5, 33])
def test_any_split_gives_a_valid_page(tmp_path, N):
  tree = parse(write(tmp_path, results={}, metrics=[], summary={}, splits=[make_split(N)]))
  assert len(figures_of(tree, 'retrieved')) == 2


def test_equal_captions_are_never_wrong(tmp_path):
  tree = parse(write(tmp_path, splits=[make_split(6, ['same'] * 6)]))
  assert find(tree, 'li', 'right') and not find(tree, 'li', 'wrong')


def test_an_empty_split_is_omitted(tmp_path):
  empty = EmbeddedSplit(
    'empty', np.zeros((0, 8, 8, 3), np.uint8), [], *[np.zeros((0, 4), np.float32)] * 2
  )
  assert not list(parse(write(tmp_path, splits=[empty], metrics=[])).iter('figure'))


def test_the_page_is_small_with_large_images(tmp_path):
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
def test_fields_of_different_lengths_are_errors(split, field, value):
  with pytest.raises(ValueError, match=f'{field} of split .*N = 40'):
    dataclasses.replace(split, **{field: value})


def test_confusions_are_counted(tree, split):
  figure = figures_of(tree, 'Confusion matrices')[0]
  truth, taken = split.classes['group'], split.predictions['group']
  columns = [text_of(head) for head in find(find(figure, 'table', 'shares')[0], 'th')]
  assert columns[:3] == ['group 0', 'group 1', 'group 2']
  rows = [row for row in find(find(figure, 'table', 'shares')[0], 'tr') if find(row, 'td')][1:]
  pairs = list(zip(truth, taken, strict=True))
  for own, row in zip(columns[:3], rows, strict=True):
    for other, cell in zip(columns[:3], find(row, 'td'), strict=True):
      count = pairs.count((own, other))
      assert cell.get('title') == f'{count} of {truth.count(own)}'
      assert text_of(cell) == (f'{100 * count / truth.count(own):.0f}' if count else '')
      assert (cell.get('class') == 'right') == (own == other)
  [frequent] = find(figure, 'table', 'frequent')
  counts = [int(text_of(find(row, 'td')[2]).split()[0]) for row in find(frequent, 'tr')[1:]]
  wrong = [pairs.count(pair) for pair in set(pairs) if pair[0] != pair[1]]
  assert counts == sorted(wrong, reverse=True)


def test_modalities_of_a_measure_share_a_plot(tmp_path):
  line = {'step': 1, 'b/uniformity_text': -2.0, 'b/uniformity_image': -1.0}
  tree = parse(write(tmp_path, metrics=[line]))
  [panel] = find(tree, 'svg')
  assert [text_of(text) for text in find(panel, 'text', 'end')] == ['image −1', 'text −2']


def test_labels_of_curves_do_not_overlap():
  curves = {name: np.array([[0, 0.0], [1, 1 + 1e-6 * place]]) for place, name in enumerate('abcde')}
  axis = plots.horizontal(0, 1)
  lines = plots.plot(curves, axis, format_value=plots.plain)['lines']
  heights = sorted(line['label_y'] for line in lines)
  assert np.diff(heights).min() >= 11


@pytest.mark.parametrize(
  ('kind', 'labels', 'message'),
  [('classes', {'group': ['a']}, 'classes .* 1 labels'), ('predictions', {'x': ['a'] * 40}, "'x'")],
)
def test_labels_of_another_length_are_errors(split, kind, labels, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(split, **{kind: labels})


def test_a_split_of_texts_is_shown_without_pictures(split, tmp_path):
  texts = dataclasses.replace(
    split, images=None, first_texts=[f'<first> {row}' for row in range(len(split.captions))]
  )
  results = {'heldout_style/first_to_second_recall@1': 0.5, 'heldout_style/uniformity_first': -2.0}
  tree = parse(write(tmp_path, splits=[texts], results=results))
  assert not [*tree.iter('img')] and not [*tree.iter('script')]
  [firsts] = figures_of(tree, 'First texts retrieved for second texts')
  [seconds] = figures_of(tree, 'Second texts retrieved for first texts')
  for figure, own, found in ((firsts, 'caption', '<first>'), (seconds, '<first>', 'caption')):
    [queries] = [child for child in figure if child.tag == 'ol']
    assert len(queries) == examples.QUERIES
    assert all(own in text_of(query) for query in find(figure, 'p', 'query'))
    assert all(found in text_of(item) for item in find(figure, 'span', 'text'))
  row = figures_of(tree, 'Similarity of the sample')[0].find('.//tbody/tr')
  nearest = [cell.get('class') == 'nearest' for cell in row.iter('td')]
  sample = examples.collect(texts)['matrix']
  assert nearest.index(True) == sample['nearest'][0] and sum(nearest) == 1
  shown = text_of(next(tree.iter('main')))
  assert 'First to second recall @1' in shown and 'picture' not in shown


def test_a_split_has_images_or_first_texts(split):
  with pytest.raises(ValueError, match=r"'heldout_style' has no images; give N = 40 first_texts"):
    dataclasses.replace(split, images=None)
