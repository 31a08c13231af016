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
  augment: Callable[[jax.Array, jax.Array], jax.Array] = lambda key, images: images,
  average_decay: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Returns the pure function `train_step(state, batch) -> (state, metrics)`.

  Args:
    definition: the model.
    objective: (outputs, batch) -> (loss, metrics), from `make_objective`.
    optimizer: an optax transformation.
    augment: (key, images [B, H, H, 3]) -> images [B, S, S, 3], pixels from 0 to 255.
    average_decay: of the parameters' moving average, where the state keeps one.
  """

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    augment_key, model_key = jax.random.split(key)
    images = normalize(augment(augment_key, batch['image']))

    def loss_and_metrics(parameters):
      model = definition.bind(parameters)
      outputs = model(images, batch['tokens'], key=model_key)
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


def jit_train_step(train_step: Callable, abstract: TrainState, mesh: Mesh) -> Callable:
  """Jits a step: the state placed as `abstract` says and donated, the batch cut along B."""
  shardings = jax.tree.map(lambda array: array.sharding, abstract)
  return jax.jit(
    train_step,
    in_shardings=(shardings, batch_sharding(mesh)),
    out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
    donate_argnums=0,
  )
