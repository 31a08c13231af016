"""The train step: `train_step` is the mathematics, `jit_train_step` places it on a mesh."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax.methods import Objective
from contrastive_jax.models.definition import Definition
from contrastive_jax.sharding.mesh import batch_sharding, on_mesh
from contrastive_jax.training.averages import move_averages
from contrastive_jax.training.forward import Forward, with_texts
from contrastive_jax.training.guard import guard
from contrastive_jax.training.rates import freeze
from contrastive_jax.training.state import Heads, TrainState, bind_heads, part_heads

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def make_train_step(
  definition: Definition,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  *,
  heads: Heads | None = None,
  rates: Any = None,
  average_decay: float = 0.0,
  skip_bad: bool = False,
  spike: float = 0.0,
  total_steps: int = 1,
  **options,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Returns the pure function `train_step(state, batch) -> (state, metrics)`.

  The towers run per micro-batch; heads and losses take the whole batch; memory is read by the loss
  and written after the optimizer.

  Args:
    definition: the model.
    objective: the methods.
    optimizer: an optax transformation, of parameters and heads.
    mesh: the mesh over which the batch is sharded.
    heads: the methods' heads, by method and name.
    rates: multipliers of the learning rate, see `parameter_rates`; 0 freezes.
    average_decay: see `move_averages`, as for `total_steps`.
    skip_bad: see `guard`, as for `spike`. The step number advances, and so the learning rate.
    spike: a bound of the gradient's norm, in multiples of its average; 0 for none.
    total_steps: of the run.
    **options: `preprocess`, `micro_batches`, `views`, `view_preprocess`, `locators` and `teach`,
      see `Forward`.
  """
  forward = Forward(definition, objective, mesh, **options)
  loss_and_effects = _make_loss(forward, heads, rates, total_steps)
  averages: dict[str, Any] = {'average_decay': average_decay, 'targets': objective.targets}

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    # Keys per example: draws are the same in any number of micro-batches and on any mesh.
    keys = jax.random.split(key, len(jax.tree.leaves(batch)[0]))
    batch = {**with_texts(batch), 'key': keys}
    gradient_of = jax.value_and_grad(loss_and_effects, has_aux=True)
    (loss, (writes, metrics, statistics)), gradients = gradient_of(state.trained, state, batch, key)
    optimizer_state = _at_step(state.optimizer_state, state.step)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state, state.trained)
    trained = optax.apply_updates(state.trained, updates)
    after = move_averages(state, trained, **averages, total_steps=total_steps)
    modules = bind_heads(heads, part_heads(trained)[1])
    memory = objective.update(state.memory or {}, writes, modules, state.step)
    after = after.with_trained(trained).replace(
      optimizer_state=optimizer_state, memory=memory or None, statistics=statistics or None
    )
    after, observed = guard(state, after, loss, gradients, skip=skip_bad, spike=spike)
    return after.replace(step=state.step + 1), metrics | observed

  return train_step


def _make_loss(forward: Forward, heads: Heads | None, rates: Any, total_steps: int) -> Callable:
  """(trained, state, batch, key) -> (loss, (writes, metrics, running statistics))."""

  def loss_and_effects(trained, state: TrainState, batch: Batch, key: jax.Array):
    parameters, own = part_heads(freeze(trained, rates))
    targets = {name: part_heads(target) for name, target in (state.targets or {}).items()}
    models = {name: model for name, (model, _) in targets.items()}
    modules: dict[str, Any] = {
      'heads': bind_heads(heads, own),
      'target_heads': {name: bind_heads(heads, of) for name, (_, of) in targets.items()},
    }
    given = parameters, state.statistics, models, state.memory or {}, batch
    encoded = forward(*given, teacher=state.teacher, **modules)
    loss, writes, metrics = forward.objective(
      encoded.outputs,
      batch | {'step': state.step, 'progress': state.step / total_steps},
      partial=encoded.partial,
      targets=encoded.targets,
      teacher=encoded.teacher,
      memory=state.memory,
      key=key,
      **modules,
    )
    if encoded.outputs.scale is not None:
      metrics |= {'scale': encoded.outputs.scale}
    return loss, (writes, metrics, encoded.statistics)

  return loss_and_effects


def _at_step(optimizer_state, step):
  """The optimizer state with its schedules at `step`.

  Skipped steps count for the schedule. Bias corrections keep counts of their own, of the gradients
  that they have seen.
  """

  def advance(node):
    return node._replace(count=step) if is_schedule(node) else node

  def is_schedule(node):
    return isinstance(node, optax.ScaleByScheduleState)

  return jax.tree.map(advance, optimizer_state, is_leaf=is_schedule)


def jit_train_step(train_step: Callable, abstract: TrainState, mesh: Mesh) -> jax.stages.Wrapped:
  """Jits a step: the state placed as `abstract` says and donated, the batch sharded along B."""
  shardings = jax.tree.map(lambda array: array.sharding, abstract)

  return jax.jit(
    on_mesh(train_step, mesh),
    in_shardings=(shardings, batch_sharding(mesh)),
    out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
    donate_argnums=0,
  )
