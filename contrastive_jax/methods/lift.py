"""Lifts pure losses to methods."""

import inspect
from collections.abc import Callable

from contrastive_jax.methods.method import Method, Result, Sizes


def stateless(
  loss: Callable,
  *,
  flops: Callable[[Sizes], float] = lambda sizes: 0.0,
  count: Callable | None = None,
  **reads: str,
) -> Callable[..., Method]:
  """Lifts a pure loss to a method without heads or memory.

  Args:
    loss: a function of arrays, with options by keyword.
    flops: see `Method`.
    count: (labels, pad_id) -> number of tokens, for a loss that is a mean over tokens and takes
      `count`: it is computed by micro-batch.
    **reads: what each argument of the loss reads, as in `image='first'`; with a final '?' the
      argument is left out where the batch and the model give nothing.

  Returns:
    (mesh=None, **options) -> Method. An option with the name of an argument replaces what is read;
    None leaves the argument to the loss's default.
  """

  def make(*, mesh=None, **options) -> Method:
    fixed = {name: value for name, value in options.items() if value is not None}
    if 'mesh' in inspect.signature(loss).parameters:
      fixed['mesh'] = mesh
    sources = {name: read for name, read in reads.items() if name not in options}

    def call(inputs, **total):
      given = {name: inputs.get(read.rstrip('?')) for name, read in sources.items()}
      given = {name: value for name, value in given.items() if value is not None}
      return loss(**given, **fixed, **total)

    method = Method(reads=tuple(sources.values()), flops=flops)
    if count is None:
      return method._replace(loss=lambda inputs, heads, memory, key: Result(call(inputs)))
    return method._replace(
      total=lambda inputs: count(inputs[reads['labels']], fixed.get('pad_id', 0)),
      partial=lambda inputs, total: call(inputs, count=total),
    )

  make.__signature__ = inspect.signature(loss)
  return make


def streamed(products: int = 4) -> Callable[[Sizes], float]:
  """Operations of a streamed pairwise loss that makes so many products of B x B pairs.

  A log-sum-exp makes 4: one forward, the same again backward, and one per gradient.
  """
  return lambda sizes: 2.0 * products * sizes.batch**2 * sizes.embed
