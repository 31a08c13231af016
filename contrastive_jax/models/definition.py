"""Splits modules into definitions and plain pytrees of parameters, for training."""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
from flax import nnx

from contrastive_jax.models.audio import AudioClip
from contrastive_jax.models.clip import Clip
from contrastive_jax.models.coca import Coca
from contrastive_jax.models.encoder import Encoder
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.models.masked import MaskedAutoencoder
from contrastive_jax.models.text_pair import TextPair
from contrastive_jax.models.transformer import choose

MODELS: dict[str, type[Clip | Coca | Encoder | TextPair]] = {
  'audio_clip': AudioClip,
  'clip': Clip,
  'coca': Coca,
  'encoder': Encoder,
  'masked_autoencoder': MaskedAutoencoder,
  'text_pair': TextPair,
}


class Definition(NamedTuple):
  """A model without parameters.

  Attributes:
    init: random key -> parameters, a nested dict of arrays; can be jitted.
    bind: parameters -> the module with these parameters.
    axes: logical axis names of each parameter, a tree of tuples with the structure of parameters.
    statistics: key paths of the running statistics among the parameters: they are evaluated, saved
      and exported like parameters, and not trained.
    inputs: names of the batch that the model's `encode` reads.
    frozen_statistics: those of `statistics` that training leaves as they are.
  """

  init: Callable[[jax.Array], Any]
  bind: Callable[[Any], Any]
  axes: Any
  statistics: frozenset[tuple[str, ...]] = frozenset()
  inputs: tuple[str, ...] = ()
  frozen_statistics: frozenset[tuple[str, ...]] = frozenset()

  @property
  def shapes(self) -> Any:
    """Shape and dtype of each parameter, traced once for all that ask or init inside of a jit."""
    return jax.eval_shape(self.init, jax.random.key(0))

  def part(self, tree: Any) -> tuple[Any, Any]:
    """Parts a tree shaped like the parameters into (trained, running statistics)."""
    return part_statistics(tree, self.statistics)


def define(name: str, **fields) -> Definition:
  """Defines the model `name` of `MODELS` with the constructor arguments `fields`.

  Raises:
    ValueError: for an unknown name, an unknown field, or incompatible sizes.
  """
  return _define(name, _Fields(fields))


class _Fields(dict):
  """Arguments of a constructor, to look up a definition by."""

  def __hash__(self):
    return hash(repr(self))


@functools.lru_cache(maxsize=16)
def _define(name: str, fields: _Fields) -> Definition:
  build = choose('model.name', name, MODELS)

  try:
    return define_from(lambda key: build(**fields, rngs=ParameterKeys(key)))
  except TypeError as error:
    raise ValueError(f'config.model does not fit {build.__name__}: {error}') from error


def define_from(create: Callable[[jax.Array], nnx.Module]) -> Definition:
  """Defines the model that `create` builds from a random key."""
  parts = []

  def init(key):
    module = create(key)
    graph, state = nnx.split(module)
    if not parts:
      axes = jax.tree.map(
        lambda parameter: parameter.get_metadata('axes'),
        state,
        is_leaf=lambda node: isinstance(node, nnx.Variable),
      )
      statistics = frozenset(nnx.to_flat_state(nnx.state(module, nnx.BatchStat)).paths)
      parts.append((graph, nnx.to_pure_dict(axes), statistics, getattr(module, 'inputs', ())))
    return nnx.to_pure_dict(state)

  # The trace of `Definition.shapes`, which also tells the structure.
  jax.eval_shape(init, jax.random.key(0))
  ((graph, axes, statistics, inputs),) = parts
  return Definition(
    init=init,
    bind=lambda parameters: nnx.merge(graph, parameters),
    axes=axes,
    statistics=statistics,
    inputs=inputs,
  )


def set_training(module: nnx.Module, frozen: Collection[tuple] = ()) -> None:
  """Has batch norms normalize by their batch, and move their running statistics.

  Args:
    module: the module, which is changed.
    frozen: key paths of running statistics, whose norms keep normalizing by them.
  """
  norms = {path[:-1] for path in frozen}
  for path, node in nnx.iter_graph(module):
    if hasattr(node, 'use_running_average'):
      node.use_running_average = path in norms


def updated_statistics(module: nnx.Module) -> Any:
  """The running statistics of a module as a nested dict, as its last call left them."""
  return nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))


def part_statistics(tree: Any, paths: Collection[tuple[str, ...]]) -> tuple[Any, Any]:
  """Parts a nested dict into (all other leaves, the leaves of some key paths)."""
  if not paths:
    return tree, {}
  flat = nnx.traversals.flatten_mapping(tree)
  trained = {path: leaf for path, leaf in flat.items() if path not in paths}
  statistics = {path: leaf for path, leaf in flat.items() if path in paths}
  return tuple(map(nnx.traversals.unflatten_mapping, (trained, statistics)))


def join_statistics(trained: Any, statistics: Any) -> Any:
  """Undoes `part_statistics`."""
  if not statistics:
    return trained
  flatten = nnx.traversals.flatten_mapping
  return nnx.traversals.unflatten_mapping(flatten(trained) | flatten(statistics))
