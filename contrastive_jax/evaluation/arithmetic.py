"""Multi-modal arithmetic: the retrieval of images by an image and words, image − word + word.

Source: Couairon et al., Embedding Arithmetic of Multimodal Queries for Image Retrieval, 2022,
https://arxiv.org/abs/2112.03162.
"""

import collections
import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from contrastive_jax.evaluation.retrieval import hits

Example = tuple[Hashable, str]  # key and caption

_WORD = re.compile(r'[^\s:;,.!?()]+')


class Edit(NamedTuple):
  """What turns the caption of one example into that of another.

  Attributes:
    source: row of the example whose image is given.
    target: row of the example that is wanted.
    removed: a word of the source's caption; '' for none.
    added: a word of the target's caption; '' for none.
  """

  source: int
  target: int
  removed: str
  added: str

  @property
  def kind(self) -> str:
    """'swap', 'add' or 'remove'."""
    return 'remove' if not self.added else 'swap' if self.removed else 'add'


def find_edits(sources: Sequence[Example], targets: Sequence[Example]) -> list[Edit]:
  """Finds the pairs of a source and a target with equal keys whose captions differ in one word.

  A word is replaced, added or removed. The captions share at least one word; punctuation does not
  count.

  Args:
    sources: keys and captions.
    targets: keys and captions.

  >>> captions = 'woman: dark skin', 'woman: light skin', 'skin'
  >>> [edit[2:] for edit in find_edits([('', captions[0])], [('', text) for text in captions])]
  [('dark', 'light')]
  """
  found = collections.defaultdict(list)
  for row, (key, caption) in enumerate(targets):
    for rest, word in _gaps(caption):
      found[key, rest].append((row, word))
  edits: dict[tuple[int, int], Edit] = {}
  for source, (key, caption) in enumerate(sources):
    for rest, removed in _gaps(caption):
      for target, added in found.get((key, rest), ()):
        if removed != added:
          edits.setdefault((source, target), Edit(source, target, removed, added))
  return list(edits.values())


def _gaps(caption: str) -> Iterator[tuple[tuple, str]]:
  """Yields each word, and '' between any two, after the words before it and those behind it."""
  words = tuple(_WORD.findall(caption))
  for place in range(len(words) + 1):
    for word in ('', *words[place : place + 1]):
      rest = words[:place], words[place + bool(word) :]
      if any(rest):
        yield rest, word


def arithmetic_recalls(
  images: np.ndarray,
  examples: Sequence[Example],
  edits: Sequence[Edit],
  encode: Callable[[Sequence[str]], np.ndarray],
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
) -> dict[str, float]:
  """Recall@k of images by the sum of an image and of words.

  The query of an edit is image − removed + added, of unit vectors. Its own image is a candidate
  like any other.

  Args:
    images: [N, D] unit vectors of the candidates.
    examples: keys and captions of the candidates. All of equal key and caption are correct.
    edits: their sources and targets are rows of the candidates.
    encode: texts -> unit vectors [., D].
    ks: cutoffs.
    mesh: mesh over which queries and candidates are sharded; None for one device.

  Returns:
    `arithmetic_KIND_recall@k` for each kind that the edits have.
  """
  words = sorted({word for edit in edits for word in (edit.removed, edit.added)} - {''})
  vectors = dict(zip(words, encode(words), strict=True)) | {'': np.zeros(images.shape[1])}
  queries = [images[edit.source] - vectors[edit.removed] + vectors[edit.added] for edit in edits]
  wanted = [examples[edit.target] for edit in edits]
  found = hits(np.array(queries), images, wanted, examples, ks, mesh=mesh)
  kinds = np.array([edit.kind for edit in edits])
  return {
    f'arithmetic_{kind}_recall@{k}': float(chances[kinds == kind].mean())
    for kind in dict.fromkeys(kinds)
    for k, chances in found.items()
  }
