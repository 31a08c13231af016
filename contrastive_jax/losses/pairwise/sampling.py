"""Draws a column per row of all pairs, with the probabilities of a softmax."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses.pairwise import api, terms
from contrastive_jax.losses.pairwise.arguments import Integers, Ring, Vectors, caller_term

Tree = Any


def sample(
  key: jax.Array,
  x: Vectors,
  y: Vectors,
  term: Callable[..., jax.Array] | None = None,
  *,
  rows: Tree = None,
  columns: Tree = None,
  scale: jax.Array | float = 1.0,
  exclude: Integers | None = None,
  diagonal: bool = True,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | Ring | None = None,
) -> jax.Array:
  """Draws a column per row of S = scale · x yᵀ with the probabilities softmax(S) of the row.

  With a term, softmax(term(S, rows, columns)). The column of the greatest logit after Gumbel noise
  has these probabilities. The noise of a pair is a function of the key and of its row and column,
  so that the draw is the same in any blocks and on any mesh, but for rounding.

  Args:
    key: of the draw.
    x: as in `logsumexp`.
    y: as in `logsumexp`.
    term: as in `logsumexp`.
    rows: as in `logsumexp`.
    columns: as in `logsumexp`.
    scale: scalar.
    exclude: as in `logsumexp`.
    diagonal: whether pairs i = j count.
    block_size: as in `top_k`.
    mesh: as in `logsumexp`.

  Returns:
    [B] columns, int32; −1 where no pair counts. They have no gradient.

  Raises:
    ValueError: as `logsumexp`.

  >>> sample(jax.random.key(0), jnp.eye(3), jnp.eye(3), scale=100.0)
  Array([0, 1, 2], dtype=int32)
  """
  logits = terms.Logits(caller_term(term, x, rows, columns))
  x, y, rows, columns, scale = jax.lax.stop_gradient((x, y, rows, columns, scale))
  sizes = [len(jax.tree.leaves(vectors)[0]) for vectors in (x, y)]
  # Of threefry, whatever the key is of: a key of two numbers per row, from which blocks draw.
  keys = jax.random.bits(key, (sizes[0], 2), jnp.uint32)
  _, found = api.top_k(
    x,
    y,
    1,
    _Noisy(logits),
    rows=(keys, rows),
    columns=(jnp.arange(sizes[1]), columns),
    scale=scale,
    exclude=exclude,
    diagonal=diagonal,
    block_size=block_size,
    mesh=mesh,
  )
  return found[:, 0]


@dataclasses.dataclass(frozen=True)
class _Noisy:
  """Logits with Gumbel noise."""

  logits: terms.Logits

  def __call__(self, scores: Tree, rows: Tree, columns: Tree) -> jax.Array:
    """Adds noise to the logits [b, n]."""
    (keys, rows), (numbers, columns) = rows, columns
    noise = jax.vmap(jax.vmap(_gumbel, (None, 0)), (0, None))(keys, numbers)
    return self.logits(scores, rows, columns) + noise


def _gumbel(key: jax.Array, number: jax.Array) -> jax.Array:
  key = jax.random.wrap_key_data(key, impl='threefry2x32')
  return jax.random.gumbel(jax.random.fold_in(key, number))
