"""Retrieval by cosine similarity: recall@k in both directions."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax.evaluation.batches import one_device
from contrastive_jax.evaluation.outcomes import Outcome, checksums, means
from contrastive_jax.losses import pairwise
from contrastive_jax.sharding.mesh import place_padded

RECALLS = (1, 5, 10)  # cutoffs of the evaluation


def retrieve(
  image: np.ndarray,
  texts: Sequence[str | Sequence[str]],
  encode: Callable[[Sequence[str]], np.ndarray],
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
  sides: tuple[str, str] = ('image', 'text'),
) -> tuple[dict[str, float], np.ndarray]:
  """Recall@k of images and texts, in both directions.

  If each image has one text, equal texts form one candidate, correct for all of their images. If
  images have several texts, each text is a candidate of its own, correct for its image alone; an
  image counts if one of its texts is among the first k, as in CLIP_benchmark [1].

  Args:
    image: [N, D] unit vectors.
    texts: the text or texts of each image.
    encode: texts -> unit vectors [., D].
    ks: cutoffs.
    mesh: mesh over which queries and candidates are sharded; None for one device.
    sides: names of the two sides in the metrics; of pairs of texts ('first', 'second').

  Returns:
    Metrics by name, and the embedding of each image's first text, [N, D].

  Raises:
    ValueError: if an image has no text.

  References:
    [1] https://github.com/LAION-AI/CLIP_benchmark
  """
  found, text = retrieve_by_query(image, texts, encode, ks, mesh=mesh, sides=sides)
  return means(found), text


def retrieve_by_query(
  image: np.ndarray,
  texts: Sequence[str | Sequence[str]],
  encode: Callable[[Sequence[str]], np.ndarray],
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
  sides: tuple[str, str] = ('image', 'text'),
) -> tuple[dict[str, Outcome], np.ndarray]:
  """Like `retrieve`, but with the outcome of each query instead of their mean."""
  lists = [[own] if isinstance(own, str) else list(own) for own in texts]
  counts = np.array([len(own) for own in lists])
  if not counts.all():
    raise ValueError(f'example {np.argmin(counts)} of {len(counts)} has no text')
  sums = checksums('\n'.join(own) for own in lists)
  if all(isinstance(own, str) for own in texts):
    candidates = text_ids = list(dict.fromkeys(texts))
    image_ids, rows = texts, {text: row for row, text in enumerate(candidates)}
    first_rows, text_sums = [rows[text] for text in texts], checksums(candidates)
  else:
    candidates, image_ids = [text for own in lists for text in own], range(len(lists))
    text_ids, first_rows = np.repeat(image_ids, counts).tolist(), np.cumsum(counts) - counts
    text_sums = np.repeat(sums, counts)
  text = encode(candidates)
  of_image, of_text = hits_both_ways(image, text, image_ids, text_ids, ks, mesh=mesh)
  ways = {
    f'{sides[0]}_to_{sides[1]}_recall': (of_image, sums),
    f'{sides[1]}_to_{sides[0]}_recall': (of_text, text_sums),
  }
  found = {
    f'{way}@{k}': Outcome(chances, queries)
    for way, (by_k, queries) in ways.items()
    for k, chances in by_k.items()
  }
  return found, text[first_rows]


def languages(
  texts: Sequence[Mapping[str, str]], min_examples: int = 50
) -> dict[str, tuple[list[int], list[str]]]:
  """Returns, by language, the rows of examples with a text in it, and those texts.

  Args:
    texts: the texts of each example, by language.
    min_examples: languages with fewer examples are left out.
  """
  names = sorted({language for own in texts for language in own})
  rows = {name: [row for row, own in enumerate(texts) if own.get(name)] for name in names}
  return {
    name: (own, [texts[row][name] for row in own])
    for name, own in rows.items()
    if len(own) >= min_examples
  }


def recall(
  queries: np.ndarray,
  candidates: np.ndarray,
  query_ids: Sequence,
  candidate_ids: Sequence,
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
) -> dict[int, float]:
  """Recall@k: the share of queries with a correct candidate among the k of highest score.

  Args:
    queries: see `hits`.
    candidates: see `hits`.
    query_ids: see `hits`.
    candidate_ids: see `hits`.
    ks: cutoffs.
    mesh: see `hits`.

  Returns:
    The recall by k, from 0 to 1.

  Raises:
    ValueError: see `hits`.

  >>> recall(np.eye(3), np.eye(3)[::-1], 'abc', 'cba', [1])
  {1: 1.0}
  """
  found = hits(queries, candidates, query_ids, candidate_ids, ks, mesh=mesh)
  return {k: float(chances.mean()) for k, chances in found.items()}


def hits(
  queries: np.ndarray,
  candidates: np.ndarray,
  query_ids: Sequence,
  candidate_ids: Sequence,
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
) -> dict[int, np.ndarray]:
  """Whether each query has a correct candidate among the k of highest score.

  Instead of sorting, candidates are counted whose score is above, or equal to, that of the best
  correct one (`losses.pairwise.ranks`). Ties count at their expectation under random order, so a
  constant model scores chance; NaN counts as above, so a broken model scores 0. The scores [Q, N]
  exist one block at a time.

  Args:
    queries: [Q, D] embeddings.
    candidates: [N, D] embeddings.
    query_ids: Q ids; every candidate of equal id is correct.
    candidate_ids: N ids.
    ks: cutoffs.
    mesh: mesh over which queries and candidates are sharded; None for one device.

  Returns:
    By k, the probability of a hit for each query, [Q]: 0 or 1 without ties.

  Raises:
    ValueError: if a query has no correct candidate.
  """
  codes = _codes(query_ids, candidate_ids)
  _check_answered(query_ids, *codes)
  return _by_k(_ranks(queries, candidates, codes, mesh)[0], ks)


def hits_both_ways(
  x: np.ndarray,
  y: np.ndarray,
  x_ids: Sequence,
  y_ids: Sequence,
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
  """The `hits` of x among y and of y among x, for little more than one product of the two.

  Args:
    x: [N, D] embeddings.
    y: [M, D] embeddings.
    x_ids: N ids; pairs of equal id are correct.
    y_ids: M ids.
    ks: see `hits`.
    mesh: see `hits`.

  Raises:
    ValueError: see `hits`.
  """
  codes = _codes(x_ids, y_ids)
  _check_answered(x_ids, *codes)
  _check_answered(y_ids, *reversed(codes))
  of_x, of_y = _ranks(x, y, codes, mesh)
  return _by_k(of_x, ks), _by_k(of_y, ks)


def audio_recalls(
  audio: np.ndarray,
  image: np.ndarray,
  text: np.ndarray,
  captions: Sequence[str],
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
) -> dict[str, float]:
  """Recall@k of images, and of texts, by the sounds of N examples.

  Args:
    audio: [N, D] unit vectors.
    image: [N, D] unit vectors.
    text: [N, D] unit vectors.
    captions: N texts; examples with equal ones are correct for each other.
    ks: cutoffs.
    mesh: see `hits`.

  Returns:
    The recalls by name, 'audio_to_image_recall@1'.
  """
  return {
    f'audio_to_{side}_recall@{k}': value
    for side, vectors in (('image', image), ('text', text))
    for k, value in recall(audio, vectors, captions, captions, ks, mesh=mesh).items()
  }


def _codes(*sides: Sequence) -> list[np.ndarray]:
  """Ids as integers, equal on both sides."""
  numbers: dict = {}
  return [np.array([numbers.setdefault(i, len(numbers)) for i in ids], np.int32) for ids in sides]


def _check_answered(query_ids, wanted, offered):
  missing = np.flatnonzero(~np.isin(wanted, offered))
  if len(missing):
    example = query_ids[missing[0]]
    raise ValueError(f'{len(missing)} queries have no right candidate, such as {example!r}')


def _ranks(x, y, codes, mesh) -> list[pairwise.Ranks]:
  """Ranks of the rows of x and of those of y, as NumPy arrays."""
  mesh = mesh or one_device()
  # In the order of the codes, positives are in few blocks.
  orders = [np.argsort(own, kind='stable') for own in codes]
  vectors, labels = [], []
  for array, own, order in zip((x, y), codes, orders, strict=True):
    in_order = np.array_equal(own, own[order])
    array = np.asarray(array, np.float32)
    vectors.append(place_padded(array if in_order else array[order], mesh))
    labels.append(place_padded(own[order], mesh, fill=-1))
  ranked = _ranker(mesh)(*vectors, tuple(labels))
  places = map(np.argsort, orders)
  return [
    jax.tree.map(lambda a, place=place: np.asarray(a)[place], own)
    for own, place in zip(ranked, places, strict=True)
  ]


@functools.cache
def _ranker(mesh: Mesh) -> Callable:
  whole = NamedSharding(mesh, PartitionSpec())
  return jax.jit(functools.partial(pairwise.ranks, mesh=mesh), out_shardings=whole)


def _by_k(ranks: pairwise.Ranks, ks: Sequence[int]) -> dict[int, np.ndarray]:
  return {k: _chances(k - ranks.above, ranks.tied, ranks.positive) for k in ks}


def _chances(slots: np.ndarray, wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
  """Returns the probability that the first `slots` of randomly ordered ties hold a correct one."""
  miss = np.ones(len(slots))
  for taken in range(max(0, int(np.max(np.minimum(slots, wrong + 1))))):
    still = np.maximum(wrong - taken, 0) / np.maximum(wrong + right - taken, 1)
    miss *= np.where(taken < slots, still, 1.0)
  return 1.0 - miss
