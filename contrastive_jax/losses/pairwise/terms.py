"""What is reduced: functions of a block's scores and of the side data of its rows and columns."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


@dataclasses.dataclass(frozen=True)
class Term:
  """A function of the caller, or None for the scores themselves."""

  function: Callable[..., Tree] | None
  takes: str = 'scores'  # its further arguments: 'scores' for none, 'positive', or 'data'

  def __call__(self, scores: Tree, rows: Tree, columns: Tree) -> Tree:
    """Values [b, n], in the dtype of the scores."""
    if self.function is None:
      return scores
    arguments: tuple[Tree, ...] = ()
    if self.takes == 'data':
      arguments = rows, columns
    elif self.takes == 'positive':
      arguments = (rows[:, None] == columns,)
    score = jax.tree.leaves(scores)[0]
    return jax.tree.map(
      lambda value: jnp.broadcast_to(value, score.shape).astype(score.dtype),
      self.function(scores, *arguments),
    )


@dataclasses.dataclass(frozen=True)
class Logits:
  """A term that gives one array."""

  term: Term

  def __call__(self, scores: Tree, rows: Tree, columns: Tree) -> jax.Array:
    """Logits [b, n]."""
    logits = self.term(scores, rows, columns)
    if not isinstance(logits, jax.Array):
      form = jax.tree.structure(logits)
      raise ValueError(f'term gives {form} of arrays; give one array [b, n] here')
    return logits


@dataclasses.dataclass(frozen=True)
class Averaged:
  """Logits, and values of `Softmax`: a term of pairs, or vectors beside the side data."""

  logits: Logits
  values: Term | None = None
  vectors: bool = False

  def __call__(self, scores: Tree, rows: Tree, columns: Tree) -> tuple[jax.Array, Tree, Tree]:
    """Logits [b, n], a tree of [b, n], and the vectors of rows and columns."""
    vectors = None, None
    if self.vectors:
      (rows, row_vectors), (columns, column_vectors) = rows, columns
      vectors = row_vectors, column_vectors
    logits = self.logits(scores, rows, columns)
    pairs = () if self.values is None else self.values(scores, rows, columns)
    return logits, pairs, vectors
