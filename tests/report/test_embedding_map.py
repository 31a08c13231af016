"""The search box and the embedding map of the report."""

import base64
import dataclasses
import io
import json
import re
import shutil
import subprocess

import html5lib
import numpy as np
import pytest
from PIL import Image

from contrastive_jax.report import embedding_map, search
from tests.report.pages import (
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
  return parse(write(tmp_path_factory.mktemp('report'), splits=[split]))


def test_the_search_box_stores_images_and_approximate_cosines(tree, split):
  box = stored(tree)[0]
  image, text = (
    np.frombuffer(base64.b64decode(box[side]), np.int8).reshape(-1, box['dimension']).astype(int)
    for side in ('image', 'text')
  )
  assert sorted(box['captions']) == sorted(set(split.captions))
  assert len(image) == len(box['own']) == 40 and len(text) == len(box['captions'])
  rows = np.random.default_rng(0).permutation(40)
  assert [box['captions'][index] for index in box['own']] == [split.captions[row] for row in rows]
  pairs = {split.captions[row]: row for row in rows}
  of_caption = [pairs[caption] for caption in box['captions']]
  cosines = split.image_embeddings[rows] @ split.text_embeddings[of_caption].T
  np.testing.assert_allclose(image @ text.T * box['unit'], cosines, atol=0.02)
  sheet = Image.open(io.BytesIO(base64.b64decode(box['tiles'].partition(',')[2])))
  assert sheet.size == (box['columns'] * box['side'], -(-40 // box['columns']) * box['side'])


def test_the_search_box_is_small_for_a_split_of_any_size():
  split = make_split(2000)
  wide = np.ones((2000, 768), np.float32) / 768**0.5
  wide = dataclasses.replace(split, image_embeddings=wide, text_embeddings=wide)
  assert len(search.build_index(split, 1)['own']) == search.MAX_IMAGES
  assert len(json.dumps(search.build_index(wide, 4))) < 1_400_000


@pytest.mark.parametrize('D', [1, 2, 7])
def test_the_map_keeps_the_distances_that_two_components_can(D):
  x = np.random.default_rng(0).normal(size=(16, D)) * ([9, 3] + [1e-5] * 5)[:D]
  plane, method = embedding_map.project(x)
  assert method == 'PCA' and plane.shape == (16, 2)
  distances = [np.linalg.norm(z[:, None] - z, axis=2) for z in (x, plane)]
  np.testing.assert_allclose(*distances, atol=1e-3)


def test_umap_makes_the_map_where_it_is_installed():
  pytest.importorskip('umap')
  plane, method = embedding_map.project(np.random.default_rng(0).normal(size=(40, 6)))
  assert method == 'UMAP' and plane.shape == (40, 2) and np.isfinite(plane).all()


def test_every_pair_is_on_the_map_by_class(tree):
  figure = figures_of(tree, 'A map of the embedding space')[0]
  paths = {path.get('id'): path.get('d') for path in find(figure, 'path') if path.get('id')}
  assert len(paths) == 6
  for kind, mark in (('images', 'h0'), ('captions', 'l12')):
    counts = [d.count(mark) for name, d in sorted(paths.items()) if name.endswith(kind)]
    assert sorted(counts) == [13, 13, 14]
  corners = [
    [int(number) for number in point.split()]
    for name, d in paths.items()
    if name.endswith('images')
    for point in re.findall(r'M(\d+ \d+)h0', d)
  ]
  assert len(corners) == 40 and np.min(corners) >= 0 and np.max(corners) <= embedding_map.MAP_SIDE
  names = [text_of(text) for text in find(figure, 'text')]
  assert sorted(names) == ['● group 0', '● group 1', '● group 2']
  assert text_of(find(figure, 'h3')[0]) == '● group 0 14'


# Linear RGB as seen with protanopia or deuteranopia: Machado et al., A Physiologically-based Model
# for Simulation of Color Vision Deficiency, 2009.
VISIONS = {
  'normal': np.eye(3),
  'protanopia': [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  'deuteranopia': [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
  ],
}


def linear(color):
  """Linear RGB of '#rrggbb'."""
  values = np.array([int(color[index : index + 2], 16) for index in (1, 3, 5)]) / 255
  return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
  """CIELAB of linear RGB, where distances approximate perceived differences."""
  to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
  x = np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
  x, y, z = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
  return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize('vision', VISIONS)
@pytest.mark.parametrize('scheme', [0, 1], ids=['light', 'dark'])
def test_colors_of_classes_differ_from_each_other_and_the_background(tree, scheme, vision):
  style = next(tree.iter('style')).text
  colors = [
    re.findall(rf'--{name}: (#[0-9a-f]{{6}});', style)[scheme]
    for name in ('paper', *(f'color{index}' for index in range(embedding_map.MAX_COLORS)))
  ]
  seen = [lab(VISIONS[vision] @ linear(color)) for color in colors]
  distances = np.linalg.norm(np.array(seen)[:, None] - seen, axis=2)
  assert distances[~np.eye(len(seen), dtype=bool)].min() > 25


def test_the_temperature_of_the_model_is_marked(tmp_path, split, tree):
  plots_of = [find(panel, 'h3')[0].text.strip() for panel in find(tree, 'div', 'kinds')]
  assert {'Similarities', 'Spectrum'} <= set(plots_of)
  page = write(tmp_path, splits=[split], metrics=[{'step': 1, 'train/scale': 20.0}])
  assert 'the model’s 0.050' in page
  assert 'the model’s' not in write(tmp_path, splits=[split], metrics=[])


@pytest.fixture(scope='module')
def browse(tmp_path_factory):
  """A function (page, fragment) -> the tree of the page after running in a headless browser."""
  browser = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
  )
  if browser is None:
    pytest.skip('no Chromium')
  profile = tmp_path_factory.mktemp('profile')
  flags = [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--virtual-time-budget=10000', '--enable-logging=stderr', f'--user-data-dir={profile}',
  ]  # fmt: skip

  def run(page, fragment):
    address = f'{page.as_uri()}#{fragment}'
    done = subprocess.run(
      [browser, *flags, '--dump-dom', address],
      capture_output=True,
      text=True,
      timeout=120,
      check=True,
    )
    assert 'CONSOLE' not in done.stderr, done.stderr
    return html5lib.parse(done.stdout, namespaceHTMLElements=False)

  return run


@pytest.mark.slow
def test_a_browser_searches_offline_without_errors(tmp_path, browse):
  """The console is empty: nothing was blocked, failed, or injected by a caption."""
  captions = [f'caption {row}' for row in range(24)]
  captions[7] = (
    '<img src=x onerror="document.title=1"> & </script><script>document.title=2</script>'
  )
  split = make_split(24, captions)
  write(tmp_path, splits=[split, make_split(9, name='b')])
  for query, row in (('CAPTION 17', 17), ('img%20onerror', 7)):
    tree = browse(tmp_path / 'report.html', f'q={query}')
    assert text_of(next(tree.iter('title'))) == 'clip · report'
    figure = find(tree, 'figure', 'search')[0]
    assert find(figure, 'button')[0].text == captions[row]
    assert find(figure, 'button')[0].get('aria-pressed') == 'true'
    cosines = split.image_embeddings @ split.text_embeddings[row]
    hits = find(figure, 'ol', 'hits')[0]
    shown = [find(hit, 'p', 'name')[0].text for hit in hits]
    values = [float(find(hit, 'p', 'note')[0].text[2:].replace('−', '-')) for hit in hits]
    expected = np.array([cosines[captions.index(caption)] for caption in shown])
    np.testing.assert_allclose(values, expected, atol=0.02)
    np.testing.assert_allclose(expected, np.sort(cosines)[::-1][: len(shown)], atol=0.02)
    assert [hit.get('class') == 'right' for hit in hits] == [
      name == captions[row] for name in shown
    ]
  tree = browse(tmp_path / 'report.html', 'q=no%20such%20thing')
  assert text_of(find(tree, 'p', 'said')[0]) == 'No caption contains these words.'
