"""What a step takes and gives back."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax.models.definition import Definition
from contrastive_jax.sharding import rules


@struct.dataclass
class TrainState:
  """A pytree: all that the next step depends on, but for the batch.

  Attributes:
    step: number of updates made or skipped.
    parameters: a nested dict of float32 arrays.
    optimizer_state: optax's.
    key: the run's random key data; a step folds its number in.
    average_norm: a moving average of the gradient's norm over the good steps; 0 before the first.
    average: an exponential moving average of the parameters, or None.
  """

  step: jax.Array
  parameters: Any
  optimizer_state: optax.OptState
  key: jax.Array
  average_norm: jax.Array
  average: Any = None

  @property
  def evaluated(self):
    """The parameters to evaluate: the average where one is kept."""
    return self.parameters if self.average is None else self.average


def plan_state(
  definition: Definition,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  sharding_rules: dict[str, str | None],
  *,
  averaged: bool = False,
) -> tuple[Callable[[int], TrainState], TrainState]:
  """Says what a state will be, without making one.

  Args:
    definition: the model.
    optimizer: an optax transformation.
    mesh: the mesh.
    sharding_rules: mesh axis by logical axis; see `rules.parameter_shardings`.
    averaged: keep a moving average of the parameters.

  Returns:
    (create, abstract): the jitted function from a seed to the initial state, each array made in
    place so that no device ever holds it all; and the tree of `ShapeDtypeStruct`s with shardings,
    where optimizer state and average follow the parameters.

  Raises:
    ValueError: if a rule does not fit.
  """

  def create(seed):
    key = jax.random.key(seed)
    parameters = definition.init(key)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      parameters=parameters,
      optimizer_state=optimizer.init(parameters),
      key=jax.random.key_data(jax.random.fold_in(key, 1)),
      average_norm=jnp.zeros(()),
      # A copy: donated buffers may not be shared.
      average=jax.tree.map(jnp.copy, parameters) if averaged else None,
    )

  shapes = jax.eval_shape(create, 0)
  placed = rules.parameter_shardings(definition.axes, shapes.parameters, sharding_rules, mesh)
  copied = NamedSharding(mesh, PartitionSpec())

  def place(leaf, sharding, parameter):
    if _is_masked(leaf):
      return leaf
    # What an optimizer keeps of rows or columns alone is small.
    return sharding if leaf.shape == parameter.shape else copied

  shardings = TrainState(
    step=copied,
    parameters=placed,
    optimizer_state=optax.tree.map_params(
      optimizer,
      place,
      shapes.optimizer_state,
      placed,
      shapes.parameters,
      transform_non_params=lambda _: copied,
      is_leaf=_is_masked,
    ),
    key=copied,
    average_norm=copied,
    average=placed if averaged else None,
  )
  abstract = jax.tree.map(
    lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
    shapes,
    shardings,
  )
  return jax.jit(create, out_shardings=shardings), abstract


def start_from(state: TrainState, parameters: Any) -> TrainState:
  """A new state with other parameters, each placed as the one that it replaces."""
  placed = jax.tree.map(
    lambda new, old: jax.device_put(new, old.sharding), parameters, state.parameters
  )
  # Copies: donated buffers may not be shared.
  average = None if state.average is None else jax.tree.map(jnp.copy, placed)
  return state.replace(parameters=jax.tree.map(jnp.copy, placed), average=average)


def _is_masked(node) -> bool:
  """Where the optimizer keeps nothing of a frozen parameter."""
  return isinstance(node, optax.MaskedNode)
