"""Lifts pure losses to methods."""

import dataclasses
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from contrastive_jax.methods import inputs as names
from contrastive_jax.methods.method import Method, Result, Sizes


@dataclasses.dataclass(frozen=True)
class _Stateless(Method):
  """A pure loss as a method; see `stateless`."""

  function: Callable
  sources: Mapping[str, str | tuple[str, ...]]
  options: Mapping[str, Any]
  operations: Callable[..., float]
  count: Callable | None

  @property
  def reads(self) -> tuple[str, ...]:
    reads = [(read,) if isinstance(read, str) else read for read in self.sources.values()]
    return tuple(itertools.chain(*reads))

  def loss(self, inputs, heads, memory, key):
    return None if self.count else Result(self._call(inputs))

  def total(self, inputs):
    if self.count is None:
      return None
    return self.count(inputs[self.sources['labels']], self.options.get('pad_id', 0))

  def partial(self, inputs, total, heads, memory):
    return Result(self._call(inputs, count=total)) if self.count else None

  def flops(self, sizes):
    stacked = [len(read) for read in self.sources.values() if not isinstance(read, str)]
    sizes = sizes._replace(views=stacked[0]) if stacked else sizes
    return self.operations(sizes, **self.options)

  def _call(self, inputs, **total):
    given = {name: _find(inputs, read) for name, read in self.sources.items()}
    given = {name: value for name, value in given.items() if value is not None}
    return self.function(**given, **self.options, **total)


def _find(inputs, read):
  """What is read by a name, or by several, which are stacked."""
  if isinstance(read, str):
    return inputs.get(read.rstrip('?').partition(':')[0])
  return jnp.stack([inputs[name] for name in read], 1)


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
    None leaves the argument to the loss's default. Names in place of 'views:V', such as
    views=('image', 'text', 'text.1'), are embeddings [B, D] that are read and stacked.
  """
  signature = inspect.signature(loss)
  parameters = signature.parameters

  def make(*, mesh=None, **options) -> Method:
    fixed = {name: value for name, value in options.items() if value is not None}
    if 'mesh' in parameters:
      fixed['mesh'] = mesh
    sources: dict[str, Any] = {name: read for name, read in reads.items() if name not in options}
    if 'views' in reads:
      given = fixed.pop('views', None)
      sources['views'] = _check_names(given) if given else reads['views']
    return _Stateless(loss, sources, fixed, flops, count)

  # Options are what is passed by keyword alone; `views` is one, too.
  keyword = {'views': inspect.Parameter.KEYWORD_ONLY}
  options = [p.replace(kind=keyword.get(name, p.kind)) for name, p in parameters.items()]
  # `inspect` reads the attribute, which no type declares.
  make.__signature__ = signature.replace(parameters=options)  # type: ignore[attr-defined]
  return make


def _check_names(views: Sequence[str]) -> tuple[str, ...]:
  """The names of embeddings; raises ValueError unless there are two or more that differ."""
  found = {names.parse(name) for name in views}
  unknown = [name for encoder, name, _ in found if encoder or name not in names.EMBEDDINGS]
  if unknown or len(found) < max(2, len(views)):
    raise ValueError(
      f'views = {tuple(views)}; use two or more that differ, of {sorted(names.EMBEDDINGS)}'
    )
  return tuple(views)


def of_views(products: Callable[[int], int]) -> Callable[..., float]:
  """Operations of a streamed loss that makes so many products of B x B pairs of V views."""

  def flops(sizes: Sizes, **_) -> float:
    return streamed(products(sizes.views))(sizes)

  return flops


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
