"""Retrieval by cosine: how often the right one is among the first k."""

from collections.abc import Sequence

import numpy as np


def recall(
  queries: np.ndarray,
  candidates: np.ndarray,
  query_ids: Sequence,
  candidate_ids: Sequence,
  ks: Sequence[int],
) -> dict[int, float]:
  """Recall@k: the share of queries with a right candidate among the k of highest score.

  Candidates of equal score count at their expectation under random order, so that a constant model
  scores chance and not 1 or 0.

  Args:
    queries: [Q, D] embeddings.
    candidates: [N, D] embeddings.
    query_ids: Q ids; a candidate of equal id is right, and one of several is enough.
    candidate_ids: N ids.
    ks: cut-offs.

  Returns:
    The recall by k, from 0 to 1.

  Raises:
    ValueError: if a query has no right candidate.
  """
  codes = {identity: code for code, identity in enumerate(dict.fromkeys(candidate_ids))}
  missing = [identity for identity in query_ids if identity not in codes]
  if missing:
    raise ValueError(f'{len(missing)} queries have no right candidate, such as {missing[0]!r}')
  wanted = np.array([codes[identity] for identity in query_ids])
  offered = np.array([codes[identity] for identity in candidate_ids])
  hits = dict.fromkeys(ks, 0.0)
  for start in range(0, len(queries), 1024):
    rows = slice(start, start + 1024)
    scores = queries[rows] @ candidates.T
    right = wanted[rows, None] == offered
    best = np.max(scores, axis=1, where=right, initial=-np.inf)[:, None]
    ahead = np.sum((scores > best) & ~right, axis=1)
    tied_wrong = np.sum((scores == best) & ~right, axis=1)
    tied_right = np.sum((scores == best) & right, axis=1)
    for k in ks:
      hits[k] += sum(map(_chance, k - ahead, tied_wrong, tied_right))
  return {k: float(hits[k] / len(queries)) for k in ks}


def _chance(places: int, wrong: int, right: int) -> float:
  """The chance that the first `places` of wrong and right ones, in random order, hold a right."""
  if places <= 0:
    return 0.0
  miss = 1.0
  for taken in range(min(places, wrong + 1)):
    miss *= (wrong - taken) / (wrong + right - taken)
  return 1.0 - miss
