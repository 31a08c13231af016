"""Balanced assignments between two sets of vectors, by optimal transport."""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax.losses.pairwise import arguments
from contrastive_jax.losses.pairwise.api import logsumexp
from contrastive_jax.losses.pairwise.matmul import accumulator

Array = jax.Array


def sinkhorn(
  x: Array,
  y: Array,
  *,
  scale: Array | float,
  iterations: int = 3,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | arguments.Ring | None = None,
) -> tuple[Array, Array]:
  """Biases that balance the softmax over S = scale · x yᵀ, by Sinkhorn and Knopp's iteration [1].

      Q = softmaxⱼ(S + columnsⱼ),   P = softmaxᵢ(S + rowsᵢ)

  Q assigns each row to the columns: its rows sum to 1, and its columns tend to the equal sums
  B / B'. P assigns each column to the rows. Q is what n normalizations of the columns and the rows
  of exp(S) in turn leave, the columns first [2], and P the same with the rows first.

  S does not exist: both come from 2n − 1 passes, each of which updates the two dual vectors

      rows ← −logsumexpⱼ(S + columnsⱼ),   columns ← −logsumexpᵢ(S + rowsᵢ)

  at once, from 0. What an update makes of `columns` depends on the `rows` before it, and in turn:
  the two chains of normalizations share passes, and every result of a pass is used.

  Args:
    x: [B, D] vectors, one per row of S, such as embeddings.
    y: [B', D] vectors, one per column of S, such as prototypes.
    scale: scalar, 1 / ε for the entropic regularization ε.
    iterations: n.
    block_size: as in `logsumexp`.
    mesh: as in `logsumexp`.

  Returns:
    The biases of the rows [B], and of the columns [B'], float32, without gradients. `biased` is the
    term that adds them to the scores, as in `expectation(x, y, v, biased, rows=rows, …)`.

  Raises:
    ValueError: as `logsumexp`, or if `iterations` is below 1.

  References:
    [1] Cuturi, Sinkhorn Distances: Lightspeed Computation of Optimal Transport, 2013,
      https://arxiv.org/abs/1306.0895.
    [2] Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster Assignments,
      2020, https://arxiv.org/abs/2006.09882.

  >>> x, y = jnp.array([[2.0], [2.0]]), jnp.array([[1.0], [0.0]])
  >>> rows, columns = sinkhorn(x, y, scale=1.0)
  >>> jax.nn.softmax(x @ y.T + columns)      # without the bias, both rows prefer the first column
  Array([[0.5, 0.5],
         [0.5, 0.5]], dtype=float32)
  """
  if iterations < 1:
    raise ValueError(f'iterations = {iterations}; use 1 or more')
  x, y, scale = lax.stop_gradient((x, y, scale))
  dtype = accumulator(jnp.result_type(x, y))

  def update(_, biases):
    rows, columns = biases
    given = {'rows': rows, 'columns': columns, 'scale': scale}
    of_rows, of_columns = logsumexp(x, y, biased, **given, block_size=block_size, mesh=mesh)
    # The sums of a row share its own bias, and those of a column its own.
    return rows - of_rows, columns - of_columns

  start = jnp.zeros(len(x), dtype), jnp.zeros(len(y), dtype)
  return lax.fori_loop(0, 2 * iterations - 1, update, start)


def biased(scores: Array, rows: Array, columns: Array) -> Array:
  """The term S + rows + columns of a bias per row and one per column."""
  return scores + rows[:, None] + columns
