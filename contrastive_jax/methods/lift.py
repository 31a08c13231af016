"""Lifts pure losses to methods."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from contrastive_jax.methods.method import Method, Result, Sizes


@dataclasses.dataclass(frozen=True)
class _Stateless(Method):
  """A pure loss as a method; see `stateless`."""

  function: Callable
  sources: Mapping[str, str]
  options: Mapping[str, Any]
  operations: Callable[..., float]
  count: Callable | None

  @property
  def reads(self) -> tuple[str, ...]:
    return tuple(self.sources.values())

  def loss(self, inputs, heads, memory, key):
    return None if self.count else Result(self._call(inputs))

  def total(self, inputs):
    if self.count is None:
      return None
    return self.count(inputs[self.sources['labels']], self.options.get('pad_id', 0))

  def partial(self, inputs, total, heads, memory):
    return Result(self._call(inputs, count=total)) if self.count else None

  def flops(self, sizes):
    return self.operations(sizes, **self.options)

  def _call(self, inputs, **total):
    names = {name: read.rstrip('?').partition(':')[0] for name, read in self.sources.items()}
    given = {name: inputs.get(read) for name, read in names.items()}
    given = {name: value for name, value in given.items() if value is not None}
    return self.function(**given, **self.options, **total)


def stateless(
  loss: Callable,
  *,
  flops: Callable[..., float] = lambda sizes, **_: 0.0,
  count: Callable | None = None,
  **reads: str,
) -> Callable[..., Method]:
  """Lifts a pure loss to a method without heads or memory.

  Args:
    loss: a function of arrays, with options by keyword.
    flops: see `Method`; it is called with the sizes and, by keyword, the options.
    count: (labels, pad_id) -> number of tokens, for a loss that is a mean over tokens and takes
      `count`: it is computed by micro-batch.
    **reads: what each argument of the loss reads, as in `image='first'`; with a final '?' the
      argument is left out where the batch and the model give nothing.

  Returns:
    (mesh=None, **options) -> Method. An option with the name of an argument replaces what is read;
    None leaves the argument to the loss's default.
  """
  parameters = inspect.signature(loss).parameters

  def make(*, mesh=None, **options) -> Method:
    fixed = {name: value for name, value in options.items() if value is not None}
    if 'mesh' in parameters:
      fixed['mesh'] = mesh
    sources = {name: read for name, read in reads.items() if name not in options}
    return _Stateless(loss, sources, fixed, flops, count)

  # `inspect` reads the attribute, which no type declares.
  make.__signature__ = inspect.signature(loss)  # type: ignore[attr-defined]
  return make


def streamed(products: int = 4) -> Callable[..., float]:
  """Operations of a streamed pairwise loss that makes so many products of B x B / groups pairs.

  A log-sum-exp makes 4: one forward, the same again backward, and one per gradient. So do the sum
  over all scores of label smoothing, and the weights of hard negatives.
  """

  def flops(
    sizes: Sizes, label_smoothing: float = 0.0, beta: float = 0.0, groups: int = 1, **_
  ) -> float:
    passes = products + 4 * bool(label_smoothing) + 4 * bool(beta)
    return 2.0 * passes * sizes.batch**2 / groups * sizes.embed

  return flops
