"""Splits modules into definitions and plain pytrees of parameters, for training."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx

from contrastive_jax.models.clip import Clip
from contrastive_jax.models.coca import Coca
from contrastive_jax.models.transformer import choose

MODELS = {'clip': Clip, 'coca': Coca}


class Definition(NamedTuple):
  """A model without parameters.

  Attributes:
    init: random key -> parameters, a nested dict of arrays; can be jitted.
    bind: parameters -> the module with these parameters.
    axes: logical axis names of each parameter, a tree of tuples with the structure of parameters.
  """

  init: Callable[[jax.Array], Any]
  bind: Callable[[Any], nnx.Module]
  axes: Any


def define(name: str, **fields) -> Definition:
  """Defines the model `name` of `MODELS` with the constructor arguments `fields`.

  Raises:
    ValueError: for an unknown name, an unknown field, or incompatible sizes.
  """
  build = choose('model.name', name, MODELS)

  try:
    return define_from(lambda key: build(**fields, rngs=nnx.Rngs(params=key)))
  except TypeError as error:
    raise ValueError(f'config.model does not fit {build.__name__}: {error}') from error


def define_from(create: Callable[[jax.Array], nnx.Module]) -> Definition:
  """Defines the model that `create` builds from a random key."""
  module = nnx.eval_shape(lambda: create(jax.random.key(0)))
  # Parameters are the only state: our modules have no counters or random streams.
  graph, state = nnx.split(module)
  axes = jax.tree.map(
    lambda parameter: parameter.get_metadata('axes'),
    state,
    is_leaf=lambda node: isinstance(node, nnx.Variable),
  )
  return Definition(
    init=lambda key: nnx.to_pure_dict(nnx.state(create(key))),
    bind=lambda parameters: nnx.merge(graph, parameters),
    axes=nnx.to_pure_dict(axes),
  )
