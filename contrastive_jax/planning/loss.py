"""Memory of the objective alone."""

from collections.abc import Callable

import jax
from jax.sharding import NamedSharding, PartitionSpec

from contrastive_jax.methods.inputs import fields
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.sharding.mesh import batch_sharding
from contrastive_jax.training import build
from contrastive_jax.training.batch import abstract_batch
from contrastive_jax.training.forward import with_texts
from contrastive_jax.training.state import bind_heads


def loss_bytes(described: build.Run) -> float | None:
  """Bytes that the objective takes alone, of outputs that are there, gradients included.

  They are part of the step's temporaries, and the most that the loss can add to its peak. None if
  they alone do not fit.
  """
  gradient, arguments = loss_gradient(described)
  try:
    stats = gradient.lower(*arguments).compile().memory_analysis()
  except jax.errors.JaxRuntimeError:
    return None
  return stats.temp_size_in_bytes + stats.output_size_in_bytes


def loss_gradient(described: build.Run) -> tuple[Callable, tuple]:
  """The jitted value and gradient of the objective, and its arguments as shapes.

  The gradient is that of outputs and heads. Outputs of one micro-batch stand for all, in the sums
  over micro-batches.
  """
  config, mesh, objective = described.config, described.mesh, described.objective
  state, heads = described.abstract_state, objective.heads(described.sizes)
  sizes = config.batch_size, config.batch_size // config.micro_batches
  wanted = fields(objective.reads) | {'scale'}

  def place(leaf):
    examples = leaf.ndim > 0 and leaf.shape[0] in sizes
    sharding = batch_sharding(mesh) if examples else NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

  def of(B):
    outputs = build.abstract_outputs(config, described.definition, B).keep(wanted)
    batch = jax.eval_shape(with_texts, abstract_batch(config, described.definition))
    batch = {name: jax.ShapeDtypeStruct((B, *a.shape[1:]), a.dtype) for name, a in batch.items()}
    return jax.tree.map(place, outputs), jax.tree.map(place, batch)

  (whole, batch), (outputs, part) = map(of, sizes)
  whole = whole.keep({*vars(whole)} - {*Outputs.TOKENS})
  inputs = whole, outputs, state.heads

  def loss(inputs, batch, part, memory):
    whole, outputs, parameters = inputs
    modules = bind_heads(heads, parameters)
    return objective(
      whole,
      batch | {'step': 0},
      partial=objective.partial(outputs, part, objective.totals(batch)),
      targets=dict.fromkeys(objective.targets, jax.lax.stop_gradient(whole)),
      heads=modules,
      target_heads=dict.fromkeys(objective.targets, modules),
      memory=memory,
      key=jax.random.key(0),
    )[0]

  shardings = jax.tree.map(lambda leaf: leaf.sharding, inputs)
  arguments = inputs, batch, part, state.memory
  replicated = NamedSharding(mesh, PartitionSpec())
  gradient = jax.jit(jax.value_and_grad(loss), out_shardings=(replicated, shardings))
  return gradient, arguments
