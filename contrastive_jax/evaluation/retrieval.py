"""Retrieval by cosine similarity: recall@k in both directions."""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from contrastive_jax.evaluation.batches import compare, jit_batched, one_device
from contrastive_jax.evaluation.outcomes import Outcome, checksums, means

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
    mesh: mesh over which queries are sharded; None for one device.
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
  ways = {
    f'{sides[0]}_to_{sides[1]}_recall': ((image, text, image_ids, text_ids), sums),
    f'{sides[1]}_to_{sides[0]}_recall': ((text, image, text_ids, image_ids), text_sums),
  }
  found = {
    f'{way}@{k}': Outcome(chances, queries)
    for way, (arguments, queries) in ways.items()
    for k, chances in hits(*arguments, ks, mesh=mesh).items()
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
  correct one. Ties count at their expectation under random order, so a constant model scores
  chance; NaN counts as above, so a broken model scores 0. The scores [Q, N] exist one block of rows
  at a time.

  Args:
    queries: [Q, D] embeddings.
    candidates: [N, D] embeddings.
    query_ids: Q ids; every candidate of equal id is correct.
    candidate_ids: N ids.
    ks: cutoffs.
    mesh: mesh over which queries are sharded; None for one device.

  Returns:
    By k, the probability of a hit for each query, [Q]: 0 or 1 without ties.

  Raises:
    ValueError: if a query has no correct candidate.
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
  """Counts candidates above a query's best correct one, tied with it, and tied and correct."""
  (vectors, offered), (rows, wanted) = candidates, queries
  scores = jnp.dot(rows, vectors.T, precision='highest')
  right = wanted[:, None] == offered
  best = jnp.max(scores, axis=1, keepdims=True, where=right, initial=-jnp.inf)
  # The negation counts NaN as above; `scores > best` would not.
  above, tied = ~(scores <= best), scores == best
  return jax.tree.map(lambda counted: jnp.sum(counted, axis=1), (above, tied, tied & right))


def _chances(slots: np.ndarray, wrong: np.ndarray, right: np.ndarray) -> np.ndarray:
  """Returns the probability that the first `slots` of randomly ordered ties hold a correct one."""
  miss = np.ones(len(slots))
  for taken in range(max(0, int(np.max(np.minimum(slots, wrong + 1))))):
    still = np.maximum(wrong - taken, 0) / np.maximum(wrong + right - taken, 1)
    miss *= np.where(taken < slots, still, 1.0)
  return 1.0 - miss
