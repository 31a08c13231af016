"""Plans a config for a topology without its hardware: the train step is compiled, never run.

Exact: the bytes of parameters, optimizer state and batch per device; total memory and whether it
fits, as reported by the compiler; collectives; and the FLOPs of the program. Estimated: the share
of activations in temporary memory, memory traffic, and the step times derived from it. GPU programs
are compiled for CPU, so all results of the compiler are estimates: it fuses and schedules
differently, and may convert bfloat16 to float32.
"""

import itertools
import json
import math
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.methods import Objective
from contrastive_jax.models.definition import Definition
from contrastive_jax.planning import table, traced_flops
from contrastive_jax.planning.estimate import estimate
from contrastive_jax.planning.hlo import Program
from contrastive_jax.planning.loss import loss_bytes
from contrastive_jax.planning.topology import Topology, open_topology
from contrastive_jax.sharding.mesh import batch_shards, on_mesh
from contrastive_jax.training import build, flops
from contrastive_jax.training.batch import abstract_batch, abstract_inputs

# Time limit for compiling remedies.
_REMEDY_SECONDS = 300
# Remedies whose state and activations take a larger share of the memory are compiled last.
_LIKELY_SHARE = 0.75


def run(config: ConfigDict, topology: str, folder: pathlib.Path) -> dict[str, Any]:
  """Plans, prints the plan, and writes it to `folder/plan_TOPOLOGY.json`.

  Args:
    config: config of a run.
    topology: name of a topology, such as 'v5e:16x16'.
    folder: the folder to write to; created if missing.

  Returns:
    The plan, see `plan`.

  Raises:
    ValueError: if the config or the topology is invalid.
  """
  result = plan(config, open_topology(topology))
  table.show(result)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'plan_{topology.replace(":", "_")}.json'
  path.write_text(json.dumps(result, indent=2) + '\n')
  print(f'{path} contains this plan')
  return result


def plan(
  config: ConfigDict, topology: Topology, seconds: float = _REMEDY_SECONDS
) -> dict[str, Any]:
  """Compiles the train step of a config for a topology, and returns its costs.

  Args:
    config: config of a run. Its data are opened only if a method has a table with a row per example
      and `config.data.examples` is 0.
    topology: from `open_topology`.
    seconds: time after which no further remedies are compiled.

  Returns:
    A nested dict for JSON. Bytes are per device, FLOPs per step on all devices. Without
    `collectives` and `estimate` if the step does not compile, and without `estimate` on CPU;
    with `normalized_together` for towers with batch norm.
  """
  start = time.perf_counter()
  config = with_examples(config)
  built = build.build(config, topology.devices)
  compiled, exceeded = _compile(built)
  compile_seconds = time.perf_counter() - start
  memory = _memory(built, compiled)
  if compiled is not None:
    needed, available = sum(memory['kinds'].values()), topology.memory
  else:
    # The memory available to the compiler is less than that of the chip.
    needed, available = exceeded
  fits = compiled is not None and needed <= available
  result = {
    'config': f'{config.name}:{config.variant}',
    'batch_size': config.batch_size,
    'mesh': dict(built.mesh.shape),
    'topology': topology.name,
    'chip': 'CPU' if topology.chip is None else topology.chip.name,
    'devices': len(topology.devices),
    'simulated': topology.simulated,
    'compile_seconds': compile_seconds,
    'fits': fits,
    'needed_bytes': needed,
    'available_bytes': available,
    'memory': memory,
    'parameters': _parameters(built),
    'flops': _flops(built),
  }
  if examples := normalized_together(config, built.definition):
    result['normalized_together'] = examples
  if compiled is not None:
    program = Program(compiled.as_text())
    collectives = program.collectives()
    result['collectives'] = {
      kind: {'count': total.count, 'bytes': total.bytes} for kind, total in collectives.items()
    }
    if topology.chip is not None:
      result['estimate'] = estimate(result['flops'], collectives, program.moved_bytes(), topology)
  if not fits:
    result['remedies'] = list(_remedies(config, topology, memory['kinds'], start + seconds))
  return result


def with_examples(config: ConfigDict) -> ConfigDict:
  """Returns the config with the number of examples, if a method has a row per example."""
  if config.data.examples or 'id' not in Objective(config.objective.to_dict()).reads:
    return config
  config = ConfigDict(config.to_dict())
  source = data.open_source(config.data.name, config.data.split, config.data.folder or None)
  config.data.examples = source.rows
  return config


def normalized_together(config: ConfigDict, definition: Definition) -> int:
  """The number of examples that batch norm in the towers normalizes together; 0 without any."""
  return config.batch_size // config.micro_batches if definition.statistics else 0


def _compile(built: build.Run):
  """Compiles the step: (compiled, None), or (None, (needed, available) bytes) if out of memory."""
  lowered = built.train_step.lower(
    built.abstract_state, abstract_batch(built.config, built.definition)
  )
  try:
    return lowered.compile(), None
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
      needed += _device_bytes(built.abstract_state) + _batch_bytes(built)
    return None, (needed, available)


def _parse_size(number: str, unit: str) -> float:
  return float(number) * 2 ** {'K': 10, 'M': 20, 'G': 30, 'T': 40}[unit]


def _memory(built: build.Run, compiled) -> dict[str, Any]:
  """Bytes per device by kind, and those of the loss.

  The kinds of a compiled step add up to the total of the compiler. `activations` estimates the
  residuals that the forward pass saves for the backward pass; `temporaries` are the rest.
  """
  state = built.abstract_state
  config, mesh = built.config, built.mesh
  examples = config.batch_size / batch_shards(mesh)
  activations = residual_bytes(built) * examples / config.micro_batches
  kinds = _state_bytes(state) | {
    'batch': _batch_bytes(built),
    'activations': activations,
  }
  if compiled is not None:
    stats = compiled.memory_analysis()
    temporary = stats.temp_size_in_bytes
    kinds['activations'] = min(activations, temporary)
    kinds['temporaries'] = temporary - kinds['activations']
    stateful = sum(_state_bytes(state).values()) + kinds['batch']
    # Metrics, padding of layouts, and on TPU the program itself.
    other = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    kinds['other'] = other - stateful + stats.generated_code_size_in_bytes
  return {'kinds': kinds, 'loss': loss_bytes(built)}


def _state_bytes(state) -> dict[str, int]:
  """Bytes of the state per device by kind, without kinds that no method uses."""
  kinds = {
    'parameters': state.parameters,
    'optimizer': state.optimizer_state,
    'average': state.average,
    'heads': state.heads,
    'targets': state.targets,
    'memory': state.memory,
    'statistics': state.statistics,
  }
  always = ('parameters', 'optimizer', 'average')
  return {k: _device_bytes(v) for k, v in kinds.items() if v is not None or k in always}


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


def _flops(built: build.Run) -> dict[str, Any]:
  """FLOPs per step: analytic, traced, and traced without rematerialization.

  The last is comparable to the analytic FLOPs, which exclude recomputation and the padding of fused
  attention.
  """
  config = built.config
  parameters = built.abstract_state.parameters
  parts = flops.analytic(config, parameters, built.objective, built.sizes)
  plain = ConfigDict(config.to_dict())
  plain.micro_batches, plain.model.remat, plain.model.attention = 1, 'none', 'xla'
  step = _traced(built)
  differs = plain.to_dict() != config.to_dict()
  checked = _traced(build.build(plain, list(built.mesh.devices.flat))) if differs else step
  return {
    'analytic': parts | {'all': sum(parts.values())},
    'traced_without_remat': checked.total,
    'traced_to_analytic': checked.total / sum(parts.values()),
    'traced': step.total,
    'traced_float32': step.exact,
  }


def _traced(built: build.Run) -> traced_flops.Flops:
  batch = abstract_batch(built.config, built.definition)
  return traced_flops.traced(built.train_step, built.abstract_state, batch)


def _remedies(
  config: ConfigDict, topology: Topology, kinds: dict[str, float], until: float
) -> Iterator[dict[str, Any]]:
  """Tries rematerialization, gradient caching and FSDP, alone and combined, until one fits.

  Remedies that leave little memory are tried last, because the compiler takes long to reject them.
  Remedies whose state and activations alone exceed the memory are not compiled.

  Args:
    config: config of a run that does not fit.
    topology: the topology to fit.
    kinds: bytes per device by kind, see `_memory`.
    until: time of `time.perf_counter` after which no remedy is compiled.

  Yields:
    For each remedy its names, its flags, and whether it fits; None if time ran out.
  """
  changes, candidates = _overrides(config, topology, kinds), []
  for number in range(1, len(changes) + 1):
    for names in itertools.combinations(changes, number):
      overrides = {k: v for name in names for k, v in changes[name].items()}
      changed = ConfigDict(config.to_dict())
      changed.update_from_flattened_dict(overrides)
      built = build.build(changed, topology.devices)
      min_bytes = _min_bytes(built)
      order = min_bytes > _LIKELY_SHARE * topology.memory, number, min_bytes
      remedy: dict[str, Any] = {
        'names': list(names),
        'flags': [f'--config.{field}={value}' for field, value in overrides.items()],
      }
      candidates.append((order, remedy, built))
  max_number = len(changes)
  for (_, number, min_bytes), remedy, built in sorted(candidates, key=lambda one: one[0]):
    if number > max_number:
      continue
    remedy['compiled'] = min_bytes <= topology.memory and time.perf_counter() <= until
    if min_bytes <= topology.memory and not remedy['compiled']:
      yield remedy | {'fits': None}
      continue
    needed, available = min_bytes, topology.memory
    if remedy['compiled']:
      compiled, exceeded = _compile(built)
      needed, available = exceeded or (_total_bytes(compiled), available)
    fits = needed <= available
    # Every single remedy is tried, but only one combination that fits.
    max_number = min(max_number, max(number - 1, 1)) if fits else max_number
    yield remedy | {'fits': fits, 'over_bytes': max(needed - available, 0)}


def _min_bytes(built: build.Run) -> float:
  """Bytes of state, batch and activations per device."""
  config = built.config
  examples = config.batch_size / batch_shards(built.mesh) / config.micro_batches
  state = _device_bytes(built.abstract_state)
  return state + _batch_bytes(built) + residual_bytes(built) * examples


def _overrides(config: ConfigDict, topology: Topology, kinds: dict[str, float]):
  """Overrides of the config by remedy, without remedies that the config already uses."""
  changes = {}
  if config.model.remat != 'full':
    changes['remat'] = {'model.remat': 'full'}
  devices = len(topology.devices)
  for size in (16, 8, 4, 2):
    mesh = f'data:{devices // size},fsdp:{size}'
    changed = ConfigDict(config.to_dict())
    changed.mesh = mesh
    try:
      build.build(changed, topology.devices)
    except ValueError:
      continue  # The size does not divide the devices or a parameter.
    if 'fsdp' not in config.mesh:
      changes['FSDP'] = {'mesh': mesh}
    break
  # The activations of one micro-batch may take a quarter of the memory.
  parts = config.micro_batches * kinds['activations'] / (topology.memory / 4)
  parts = 1 << max(math.ceil(math.log2(max(parts, 1))), config.micro_batches.bit_length())
  if config.batch_size % (parts * devices) == 0:
    changes['gradient caching'] = {'micro_batches': parts}
  return changes


def _total_bytes(compiled) -> float:
  stats = compiled.memory_analysis()
  total = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
  return total + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes


def _parameters(built: build.Run) -> list[dict[str, Any]]:
  """Shape, dtype, mesh axes and bytes per device of every parameter."""
  return [
    {
      'name': jax.tree_util.keystr(path, simple=True, separator='/'),
      'shape': list(leaf.shape),
      'dtype': str(leaf.dtype),
      'axes': [axis and str(axis) for axis in leaf.sharding.spec],
      'bytes': _device_bytes(leaf),
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(built.abstract_state.parameters)
  ]


def _device_bytes(tree) -> int:
  """Bytes of a tree of arrays per device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _batch_bytes(built: build.Run) -> float:
  batch = abstract_batch(built.config, built.definition)
  return sum(map(_bytes, batch.values())) / batch_shards(built.mesh)


def _bytes(leaf) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize
