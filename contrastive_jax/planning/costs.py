"""Costs of a train step: its compiled program, memory and FLOPs."""

import math
import re
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from contrastive_jax.planning import traced_flops
from contrastive_jax.sharding.mesh import batch_shards, on_mesh
from contrastive_jax.training import build, flops
from contrastive_jax.training.batch import abstract_inputs, batch_shapes


class Compiled(NamedTuple):
  """What the compiler says of a step.

  Attributes:
    program: the compiled step; None if it is out of memory.
    needed: bytes per device; with `config.unmasked_fraction`, of the last steps, which need more.
    available: bytes per device that the compiler may use; None if the step compiles.
  """

  program: Any
  needed: float
  available: float | None = None


def compile_step(built: build.Run) -> Compiled:
  """Compiles the train step of a run."""
  compiled = _compile(built)
  if compiled.program is None or built.unmasked is None:
    return compiled
  last = _compile(built.unmasked)
  return last if last.program is None else compiled._replace(needed=last.needed)


def _compile(built: build.Run) -> Compiled:
  lowered = built.train_step.lower(built.abstract_state, built.abstract_batch)
  try:
    program = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    # The TPU compiler reports 'temporaries (34.52G) exceeds available HBM (15.75G)', which excludes
    # the arguments, or 'Used 17.22G of 15.75G hbm', which includes them.
    size = r'([\d.]+)([KMGT])'
    message = rf'\({size}\) exceeds available HBM \({size}\)|Used {size} of {size} hbm'
    found = re.search(message, str(error))
    if 'RESOURCE_EXHAUSTED' not in str(error) or found is None:
      raise
    number, unit, limit, limit_unit = (part for part in found.groups() if part is not None)
    needed, available = _parse_size(number, unit), _parse_size(limit, limit_unit)
    if not found[0].startswith('Used'):
      needed += state_bytes(built)
    return Compiled(None, needed, available)
  return Compiled(program, total_bytes(program))


def _parse_size(number: str, unit: str) -> float:
  return float(number) * 2 ** {'K': 10, 'M': 20, 'G': 30, 'T': 40}[unit]


def total_bytes(program) -> float:
  """Bytes per device of a compiled step."""
  stats = program.memory_analysis()
  total = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
  return total + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes


def state_bytes(built: build.Run) -> float:
  """Bytes per device of the state and the batch."""
  return device_bytes(built.abstract_state) + batch_bytes(built)


def residual_bytes(built: build.Run) -> float:
  """Bytes per example of the residuals that the towers save for the backward pass.

  They are counted in a trace of the VJP, so rematerialization is included. Residuals independent of
  the batch, such as parameters, are not. XLA may use less memory by recomputing, or more by
  padding. Activations sharded over the axis 'tensor' count in full.
  """

  def pullback(parameters, batch):
    def outputs(parameters):
      keys = jax.random.split(jax.random.key(0), len(jax.tree.leaves(batch)[0]))
      return built.definition.bind(parameters).encode(batch, keys=keys)

    return jax.vjp(outputs, parameters)[1]

  def saved(B):
    batch = abstract_inputs(built.config, built.definition, B)
    traced = on_mesh(pullback, built.mesh)
    leaves = jax.eval_shape(traced, built.abstract_state.evaluated, batch)
    return sum(map(_bytes, jax.tree.leaves(leaves)))

  shards = batch_shards(built.mesh)
  return (saved(2 * shards) - saved(shards)) / shards


def step_flops(built: build.Run) -> traced_flops.Flops:
  """Counts the FLOPs of a train step on all devices, recomputation included."""
  return traced_flops.traced(built.train_step, built.abstract_state, built.abstract_batch)


def all_flops(built: build.Run) -> dict[str, Any]:
  """FLOPs per step: analytic, traced, and traced without rematerialization.

  The last is comparable to the analytic FLOPs, which exclude recomputation and the padding of fused
  attention.
  """
  config = built.config
  parameters = built.abstract_state.parameters
  shape = batch_shapes(config).longest  # which is compiled
  given = config, parameters, built.objective, built.sizes, shape
  parts = flops.analytic(*given, teacher=built.teacher)
  plain = ConfigDict(config.to_dict())
  plain.micro_batches, plain.model.remat, plain.model.attention = 1, 'none', 'xla'
  step = step_flops(built)
  differs = plain.to_dict() != config.to_dict()
  checked = step_flops(build.build(plain, list(built.mesh.devices.flat))) if differs else step
  return {
    'analytic': parts | {'all': sum(parts.values())},
    'traced_without_remat': checked.total,
    'traced_to_analytic': checked.total / sum(parts.values()),
    'traced': step.total,
    'traced_float32': step.exact,
  }


def device_bytes(tree) -> int:
  """Bytes of a tree of arrays per device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def batch_bytes(built: build.Run) -> float:
  """Bytes of a batch per device."""
  return sum(map(_bytes, jax.tree.leaves(built.abstract_batch))) / batch_shards(built.mesh)


def _bytes(leaf) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize
