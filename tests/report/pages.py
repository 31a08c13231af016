"""Synthetic splits, their report, and functions to inspect it."""

import json

import html5lib
import numpy as np

from contrastive_jax.evaluation.embedded import EmbeddedSplit
from contrastive_jax.evaluation.retrieval import RECALLS, retrieve_by_query
from contrastive_jax.report import page

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
  classes = {
    'group': [f'group {row % 3}' for row in range(N)],
    'id': [str(row) for row in range(N)],
  }
  predictions = {'group': [f'group {row % 2}' for row in range(N)]}
  image, text = embed(), embed()
  rows = {caption: row for row, caption in reversed([*enumerate(captions)])}
  encode = lambda texts: text[[rows[own] for own in texts]]  # noqa: E731
  found, _ = retrieve_by_query(image, captions, encode, RECALLS)
  return EmbeddedSplit(
    name, images, captions, image, text, classes=classes, predictions=predictions, outcomes=found
  )


def write(folder, **changes):
  inputs = {
    'title': 'clip',
    'summary': SUMMARY,
    'results': RESULTS,
    'metrics': METRICS,
    'splits': (),
  }
  page.write(folder / 'report.html', **(inputs | changes))
  return (folder / 'report.html').read_text(encoding='utf-8')


def parse(page):
  """Parses a page to an ElementTree; raises for invalid HTML."""
  parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
  return parser.parse(page)


def text_of(element):
  return ' '.join(''.join(element.itertext()).split())


def find(element, tag, kind=''):
  """Descendants with a tag and a class, in any namespace."""
  return [
    child
    for child in element.iter()
    if str(child.tag).rpartition('}')[2] == tag
    and (not kind or kind in child.get('class', '').split())
  ]


def stored(tree):
  """The data of the search boxes."""
  return [json.loads(s.text) for s in tree.iter('script') if s.get('type') == 'application/json']


def figures_of(tree, title):
  return [f for f in tree.iter('figure') if title in text_of(next(f.iter('figcaption')))]
