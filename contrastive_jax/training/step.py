"""The train step. `train_step` is the mathematics; `jit_train_step` places it on a mesh."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax.data.images import normalize
from contrastive_jax.models.definition import Definition
from contrastive_jax.sharding.mesh import batch_sharding
from contrastive_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def make_train_step(
  definition: Definition,
  objective: Callable,
  optimizer: optax.GradientTransformation,
  *,
  average_decay: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Returns the pure function `train_step(state, batch) -> (state, metrics)`.

  Args:
    definition: the model.
    objective: (outputs, batch) -> (loss, metrics), from `make_objective`.
    optimizer: an optax transformation.
    average_decay: of the parameters' moving average, where the state keeps one.
  """

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)

    def loss_and_metrics(parameters):
      model = definition.bind(parameters)
      outputs = model(normalize(batch['image']), batch['tokens'], key=key)
      loss, metrics = objective(outputs, batch)
      return loss, metrics | {'scale': outputs.scale}

    gradient_of = jax.value_and_grad(loss_and_metrics, has_aux=True)
    (_, metrics), gradients = gradient_of(state.parameters)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    average = state.average
    if average is not None:
      # The average of few steps would remember the random start: its decay grows to the asked one.
      decay = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
      average = optax.incremental_update(parameters, average, 1 - decay)
    metrics['gradient_norm'] = optax.tree.norm(gradients)
    return state.replace(
      step=state.step + 1,
      parameters=parameters,
      optimizer_state=optimizer_state,
      average=average,
    ), metrics

  return train_step


def jit_train_step(train_step: Callable, shardings: TrainState, mesh: Mesh) -> Callable:
  """Jits a step over the mesh: the state sharded as told and donated, the batch cut along B."""
  return jax.jit(
    train_step,
    in_shardings=(shardings, batch_sharding(mesh)),
    out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
    donate_argnums=0,
  )
