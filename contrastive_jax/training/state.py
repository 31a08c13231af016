"""What a step takes and gives back."""

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
    step: number of updates made.
    parameters: a nested dict of float32 arrays.
    optimizer_state: optax's.
    key: the run's random key data; a step folds its number in.
    average: an exponential moving average of the parameters, or None.
  """

  step: jax.Array
  parameters: Any
  optimizer_state: optax.OptState
  key: jax.Array
  average: Any = None

  @property
  def evaluated(self):
    """The parameters to evaluate: the average where one is kept."""
    return self.parameters if self.average is None else self.average


def initial_state(
  definition: Definition,
  optimizer: optax.GradientTransformation,
  seed: int,
  mesh: Mesh,
  sharding_rules: dict[str, str | None],
  *,
  averaged: bool = False,
) -> tuple[TrainState, TrainState]:
  """Draws a state on the mesh.

  Returns:
    (state, shardings): the state, jitted into place so that no device ever holds it all, and the
    tree of its shardings, where optimizer state and average follow the parameters.
  """

  def create(key):
    parameters = definition.init(key)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      parameters=parameters,
      optimizer_state=optimizer.init(parameters),
      key=jax.random.key_data(jax.random.fold_in(key, 1)),
      # A copy: donated buffers may not be shared.
      average=jax.tree.map(jnp.copy, parameters) if averaged else None,
    )

  key = jax.random.key(seed)
  shapes = jax.eval_shape(create, key)
  placed = rules.parameter_shardings(definition.axes, shapes.parameters, sharding_rules, mesh)
  copied = NamedSharding(mesh, PartitionSpec())
  shardings = TrainState(
    step=copied,
    parameters=placed,
    optimizer_state=optax.tree.map_params(
      optimizer,
      lambda _, sharding: sharding,
      shapes.optimizer_state,
      placed,
      transform_non_params=lambda _: copied,
    ),
    key=copied,
    average=placed if averaged else None,
  )
  return jax.jit(create, out_shardings=shardings)(key), shardings
