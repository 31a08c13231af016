"""Retrieval by cosine: how often a right one is among the first k."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from contrastive_jax.evaluation.batches import compare, jit_batched, one_device
from contrastive_jax.evaluation.outcomes import Outcome, checksums, means

RECALLS = (1, 5, 10)  # cut-offs of the evaluation


def retrieve(
  image: np.ndarray,
  texts: Sequence[str | Sequence[str]],
  encode: Callable[[Sequence[str]], np.ndarray],
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
) -> tuple[dict[str, float], np.ndarray]:
  """Recall of images and their texts, both ways.

  Where each image has one text, equal texts are one candidate, and right for all of their images.
  Where images have several, each text is a candidate of its own, right for its image alone: an
  image is right if one of its texts is among the first k, as in CLIP_benchmark [1].

  Args:
    image: [N, D] unit vectors.
    texts: the text, or the texts, of each image.
    encode: texts -> unit vectors [., D].
    ks: cut-offs.
    mesh: over which queries are cut; None for one device.

  Returns:
    Figures by name, and of each image's first text the embedding, [N, D].

  Raises:
    ValueError: if an image has no text.

  References:
    [1] https://github.com/LAION-AI/CLIP_benchmark
  """
  found, text = retrieve_by_query(image, texts, encode, ks, mesh=mesh)
  return means(found), text


def retrieve_by_query(
  image: np.ndarray,
  texts: Sequence[str | Sequence[str]],
  encode: Callable[[Sequence[str]], np.ndarray],
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
) -> tuple[dict[str, Outcome], np.ndarray]:
  """`retrieve`, with the outcome of each query in place of their mean."""
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
  ways = {
    'image_to_text_recall': ((image, text, image_ids, text_ids), sums),
    'text_to_image_recall': ((text, image, text_ids, image_ids), text_sums),
  }
  found = {
    f'{way}@{k}': Outcome(chances, queries)
    for way, (arguments, queries) in ways.items()
    for k, chances in hits(*arguments, ks, mesh=mesh).items()
  }
  return found, text[first_rows]


def languages(
  texts: Sequence[Mapping[str, str]], fewest: int = 50
) -> dict[str, tuple[list[int], list[str]]]:
  """By language the examples that have a text in it, and those texts.

  Args:
    texts: of each example its texts by language.
    fewest: a language that fewer examples have is left out.
  """
  names = sorted({language for own in texts for language in own})
  rows = {name: [row for row, own in enumerate(texts) if own.get(name)] for name in names}
  return {
    name: (own, [texts[row][name] for row in own])
    for name, own in rows.items()
    if len(own) >= fewest
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
  """Recall@k: the share of queries with a right candidate among the k of highest score.

  Args:
    queries: as in `hits`.
    candidates: as in `hits`.
    query_ids: as in `hits`.
    candidate_ids: as in `hits`.
    ks: cut-offs.
    mesh: as in `hits`.

  Returns:
    The recall by k, from 0 to 1.

  Raises:
    ValueError: as `hits`.

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
  """Whether each query has a right candidate among the k of highest score.

  Candidates are counted, not sorted: those of a score above the best right one's, and those of
  equal score. Equal ones count at their expectation under random order, so that a constant model
  scores chance and not 1 or 0; a score that is no number counts as above, so that a broken model
  scores 0. Of the scores [Q, N] a block of rows exists at a time.

  Args:
    queries: [Q, D] embeddings.
    candidates: [N, D] embeddings.
    query_ids: Q ids; a candidate of equal id is right, and one of several is enough.
    candidate_ids: N ids.
    ks: cut-offs.
    mesh: over which queries are cut; None for one device.

  Returns:
    By k the chance of each query, [Q], 0 or 1 where nothing ties.

  Raises:
    ValueError: if a query has no right candidate.
  """
  codes = {identity: code for code, identity in enumerate(dict.fromkeys(candidate_ids))}
  missing = [identity for identity in query_ids if identity not in codes]
  if missing:
    raise ValueError(f'{len(missing)} queries have no right candidate, such as {missing[0]!r}')
  wanted = np.array([codes[identity] for identity in query_ids], np.int32)
  offered = np.array([codes[identity] for identity in candidate_ids], np.int32)
  mesh = mesh or one_device()
  greater, equal, right = compare(
    _counter(mesh),
    (np.asarray(candidates, np.float32), offered),
    (np.asarray(queries, np.float32), wanted),
    mesh,
  )
  return {k: _chances(k - greater, equal - right, right) for k in ks}


@functools.cache
def _counter(mesh: Mesh) -> Callable:
  return jit_batched(_count, mesh)


def _count(candidates, queries):
  """Of each query: candidates above its best right one, those as high, and the right of these."""
  (vectors, offered), (rows, wanted) = candidates, queries
  scores = jnp.dot(rows, vectors.T, precision='highest')
  right = wanted[:, None] == offered
  best = jnp.max(scores, axis=1, keepdims=True, where=right, initial=-jnp.inf)
  # Not `scores > best`, which NaN never is.
  above, tied = ~(scores <= best), scores == best
  return jax.tree.map(lambda counted: jnp.sum(counted, axis=1), (above, tied, tied & right))


def _chances(places: np.ndarray, wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
  """The chance that the first `places` of wrong and right ones, in random order, hold a right."""
  miss = np.ones(len(places))
  for taken in range(max(0, int(np.max(np.minimum(places, wrong + 1))))):
    still = np.maximum(wrong - taken, 0) / np.maximum(wrong + right - taken, 1)
    miss *= np.where(taken < places, still, 1.0)
  return 1.0 - miss
