"""Memory of the objective, compiled separately from the towers."""

from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from contrastive_jax.methods.inputs import count, fields
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.sharding.mesh import batch_sharding
from contrastive_jax.training import build
from contrastive_jax.training.forward import merge_views, with_texts
from contrastive_jax.training.state import bind_heads


def loss_bytes(run: build.Run) -> float | None:
  """Bytes per device that the objective adds to given outputs, gradients included.

  An upper bound on what the loss adds to the peak memory of the step. None if the objective alone
  does not fit.
  """
  gradient, arguments = loss_gradient(run)
  try:
    stats: Any = gradient.lower(*arguments).compile().memory_analysis()
  except jax.errors.JaxRuntimeError:
    return None
  return stats.temp_size_in_bytes + stats.output_size_in_bytes


def loss_gradient(run: build.Run) -> tuple[jax.stages.Wrapped, tuple]:
  """Returns the jitted value and gradient of the objective, and its abstract arguments.

  The gradient is taken with respect to outputs and heads. Sums over micro-batches are computed for
  one micro-batch.
  """
  config, mesh, objective = run.config, run.mesh, run.objective
  state, heads = run.abstract_state, objective.heads(run.sizes)
  sizes = config.batch_size, config.batch_size // config.micro_batches
  # The same outputs stand for those of the targets.
  wanted = fields(objective.reads) | fields(objective.reads, 'target') | {'scale'}

  def place(leaf):
    is_batch = leaf.ndim > 0 and leaf.shape[0] in sizes
    sharding = batch_sharding(mesh) if is_batch else NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  def abstract(B):
    outputs = build.abstract_outputs(config, run.definition, B).keep(wanted)
    batch = jax.eval_shape(with_texts, run.abstract_batch)
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((B, *a.shape[1:]), a.dtype), batch)
    if count(objective.reads, 'boxes'):
      batch['boxes'] = jax.ShapeDtypeStruct((B, config.views, 4), jax.numpy.float32)
    return jax.tree.map(place, outputs), jax.tree.map(place, batch)

  (all_outputs, batch), (outputs, part) = map(abstract, sizes)
  all_outputs = all_outputs.keep({*vars(all_outputs)} - {*Outputs.TOKENS})
  inputs = all_outputs, outputs, state.heads
  taught = None
  if run.teacher is not None:
    taught = build.abstract_taught(config, objective, run.teacher, run.abstract_batch)
    taught = jax.tree.map(place, taught.keep(fields(objective.reads, 'teacher')))

  def loss(inputs, batch, part, memory, taught):
    all_outputs, outputs, parameters = inputs
    modules = bind_heads(heads, parameters)
    state: dict[str, Any] = {'heads': modules, 'memory': memory}
    state['target_heads'] = dict.fromkeys(objective.targets, modules)
    targets, of_part = (
      dict.fromkeys(objective.targets, jax.lax.stop_gradient(each))
      for each in (all_outputs, outputs)
    )
    key = jax.random.key(0)
    keys = jax.random.split(key, sizes[1])
    views = [
      (objective.transform(number, part, of_part, memory or {}, keys), keys)
      for number in range(config.views)
    ]
    totals = objective.totals(batch)
    return objective(
      all_outputs,
      batch | {'step': 0, 'progress': 0.0},
      partial=objective.partial(outputs, merge_views(views), totals, targets=of_part, **state),
      targets=targets,
      teacher=taught,
      key=key,
      **state,
    )[0]

  shardings = jax.tree.map(lambda leaf: leaf.sharding, inputs)
  arguments = inputs, batch, part, state.memory, taught
  replicated = NamedSharding(mesh, PartitionSpec())
  gradient = jax.jit(jax.value_and_grad(loss), out_shardings=(replicated, shardings))
  return gradient, arguments
