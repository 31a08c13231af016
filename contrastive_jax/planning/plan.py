"""What a config takes of a topology that need not be there: its step is compiled, never run.

Exact: the bytes of parameters, optimizer state and batch on a device, the total of memory and the
verdict, which are the compiler's, the collectives, and the FLOPs that the program asks for.
Estimated: how temporaries divide into activations and the rest, the bytes that move in memory, and
with them the time of a step. For GPUs a CPU's compiler stands in, and all that it gives is an
estimate of theirs: it fuses and schedules otherwise, and may widen bfloat16.
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
from contrastive_jax.planning.hlo import Program
from contrastive_jax.planning.loss import loss_bytes
from contrastive_jax.planning.topology import Topology, open_topology
from contrastive_jax.sharding.mesh import batch_shards
from contrastive_jax.training import build, flops
from contrastive_jax.training.batch import abstract_batch, abstract_inputs

# No further remedy is compiled after so many seconds.
_SECONDS = 300
# A share of the memory: where state and activations take more, temporaries hardly fit.
_ROOMY = 0.75


def run(config: ConfigDict, topology: str, folder: pathlib.Path) -> dict[str, Any]:
  """Plans, prints the plan, and writes it as `folder/plan_TOPOLOGY.json`.

  Raises:
    ValueError: for what in the config or the topology cannot work.
  """
  figures = plan(config, open_topology(topology))
  table.show(figures)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'plan_{topology.replace(":", "_")}.json'
  path.write_text(json.dumps(figures, indent=2) + '\n')
  print(f'{path} holds these figures')
  return figures


def plan(config: ConfigDict, topology: Topology, seconds: float = _SECONDS) -> dict[str, Any]:
  """Compiles a config's step for a topology, and says what it takes.

  Args:
    config: of a run. Its data are opened only where a method keeps a table by example and
      `config.data.examples` leaves their number open.
    topology: from `open_topology`.
    seconds: after which nothing more is tried that could make the step fit.

  Returns:
    A tree for JSON; bytes are a device's, operations a step's on all devices. `collectives` and
    `estimate` are left out where the step does not compile, and `estimate` on a CPU.
    `normalized_together` is left out for towers without batch norm.
  """
  start = time.perf_counter()
  config = with_examples(config)
  described = build.build(config, topology.devices)
  compiled, needed = _compile(described)
  compile_seconds = time.perf_counter() - start
  memory = _memory(described, compiled)
  available = topology.memory
  if compiled is not None:
    needed = sum(memory['kinds'].values())
  else:
    # What the compiler allots is less than the chip has.
    needed, available = needed
  fits = compiled is not None and needed <= available
  figures = {
    'config': f'{config.name}:{config.variant}',
    'batch_size': config.batch_size,
    'mesh': dict(described.mesh.shape),
    'topology': topology.name,
    'chip': 'CPU' if topology.chip is None else topology.chip.name,
    'devices': len(topology.devices),
    'simulated': topology.simulated,
    'compile_seconds': compile_seconds,
    'fits': fits,
    'needed_bytes': needed,
    'available_bytes': available,
    'memory': memory,
    'parameters': _parameters(described),
    'flops': _flops(described),
  }
  if examples := normalized_together(config, described.definition):
    figures['normalized_together'] = examples
  if compiled is not None:
    program = Program(compiled.as_text())
    sent = program.collectives()
    figures['collectives'] = {kind: total._asdict() for kind, total in sent.items()}
    if topology.chip is not None:
      figures['estimate'] = _estimate(figures, topology, program.moved_bytes())
  if not fits:
    figures['remedies'] = list(_remedies(config, topology, memory['kinds'], start + seconds))
  return figures


def with_examples(config: ConfigDict) -> ConfigDict:
  """The config with the number of examples, where a table by example needs it."""
  of_data = config.data
  if of_data.examples or 'id' not in Objective(config.objective.to_dict()).reads:
    return config
  config = ConfigDict(config.to_dict())
  source = data.open_source(of_data.name, of_data.split, of_data.folder or None)
  config.data.examples = source.rows
  return config


def normalized_together(config: ConfigDict, definition: Definition) -> int:
  """The number of examples that batch norm in the towers normalizes together; 0 without any."""
  return config.batch_size // config.micro_batches if definition.statistics else 0


def _compile(described: build.Run):
  """The compiled step and None; or None and the bytes (needed, available) of the compiler."""
  lowered = described.train_step.lower(
    described.abstract_state, abstract_batch(described.config, described.definition)
  )
  try:
    return lowered.compile(), None
  except jax.errors.JaxRuntimeError as error:
    # The TPU's compiler says 'temporaries (34.52G) exceeds available HBM (15.75G)', of what is
    # added to the arguments, or 'Used 17.22G of 15.75G hbm', of both.
    size = r'([\d.]+)([KMGT])'
    message = rf'\({size}\) exceeds available HBM \({size}\)|Used {size} of {size} hbm'
    found = re.search(message, str(error))
    if 'RESOURCE_EXHAUSTED' not in str(error) or found is None:
      raise
    number, unit, most, most_unit = (part for part in found.groups() if part is not None)
    needed, available = (_from_text(*part) for part in ((number, unit), (most, most_unit)))
    if not found[0].startswith('Used'):
      needed += _device_bytes(described.abstract_state) + _batch_bytes(described)
    return None, (needed, available)


def _from_text(number: str, unit: str) -> float:
  return float(number) * 2 ** {'K': 10, 'M': 20, 'G': 30, 'T': 40}[unit]


def _memory(described: build.Run, compiled) -> dict[str, Any]:
  """Bytes on a device by kind, and of them the loss's.

  The kinds of a compiled step add up to what the compiler says that it takes. `activations` are
  what the backward pass keeps of the forward pass, an estimate; `temporaries` are the rest.
  """
  state = described.abstract_state
  config, mesh = described.config, described.mesh
  examples = config.batch_size / batch_shards(mesh)
  activations = kept_bytes(described) * examples / config.micro_batches
  kinds = _state_bytes(state) | {
    'batch': _batch_bytes(described),
    'activations': activations,
  }
  if compiled is not None:
    stats = compiled.memory_analysis()
    temporary = stats.temp_size_in_bytes
    kinds['activations'] = min(activations, temporary)
    kinds['temporaries'] = temporary - kinds['activations']
    stateful = sum(_state_bytes(state).values()) + kinds['batch']
    # Metrics, what layouts pad, and on a TPU the program itself.
    other = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    kinds['other'] = other - stateful + stats.generated_code_size_in_bytes
  return {'kinds': kinds, 'loss': loss_bytes(described)}


def _state_bytes(state) -> dict[str, int]:
  """Bytes of the state on a device by kind; kinds that no method needs are left out."""
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


def kept_bytes(described: build.Run) -> float:
  """Bytes per example that the backward pass keeps of the model's forward pass.

  Read from a trace, so that rematerialization shows; what depends on no example, such as the
  parameters, is left out. XLA may keep less, by recomputing, or more, by padding; parts of
  activations that the axis 'tensor' shards count whole.
  """

  def pullback(parameters, batch):
    def outputs(parameters):
      keys = jax.random.split(jax.random.key(0), len(jax.tree.leaves(batch)[0]))
      return described.definition.bind(parameters).encode(batch, keys=keys)

    return jax.vjp(outputs, parameters)[1]

  def kept(B):
    batch = abstract_inputs(described.config, described.definition, B)
    leaves = jax.eval_shape(pullback, described.abstract_state.evaluated, batch)
    return sum(map(_bytes, jax.tree.leaves(leaves)))

  shards = batch_shards(described.mesh)
  return (kept(2 * shards) - kept(shards)) / shards


def _flops(described: build.Run) -> dict[str, Any]:
  """Operations a step: of the model's sizes, and of the program as traced.

  The check is of the program that recomputes nothing; the step's own has what remat adds.
  """
  config = described.config
  parameters = described.abstract_state.parameters
  parts = flops.analytic(config, parameters, described.objective, described.sizes)
  plain = ConfigDict(config.to_dict())
  plain.micro_batches, plain.model.remat = 1, 'none'
  step = _traced(described)
  changed = plain.to_dict() != config.to_dict()
  checked = _traced(build.build(plain, list(described.mesh.devices.flat))) if changed else step
  return {
    'analytic': parts | {'all': sum(parts.values())},
    'traced_without_remat': checked.total,
    'traced_to_analytic': checked.total / sum(parts.values()),
    'traced': step.total,
    'traced_float32': step.exact,
  }


def _traced(described: build.Run) -> traced_flops.Flops:
  batch = abstract_batch(described.config, described.definition)
  return traced_flops.traced(described.train_step, described.abstract_state, batch)


def _estimate(figures: dict[str, Any], topology: Topology, moved: float) -> dict[str, float]:
  """Seconds of a step by the chip's published figures, which no program reaches.

  Multiplying, moving and sending, over all links at once, take their times; a step takes the
  longest of them if they overlap wholly, and their sum if they do not at all. The utilisation is
  of the model's operations, recomputed ones not counted.
  """
  chip, devices, counted = topology.chip, len(topology.devices), figures['flops']
  exact = counted['traced_float32']
  operations = counted['traced'] + (chip.passes - 1) * exact
  sent = sum(collective['bytes'] for collective in figures['collectives'].values())
  seconds = {
    'compute_seconds': operations / devices / chip.peak,
    'memory_seconds': moved / chip.bandwidth,
    'interconnect_seconds': sent / topology.link,
  }
  ideal = counted['analytic']['all'] / devices / chip.peak
  shortest, longest = max(seconds.values()), sum(seconds.values())
  return seconds | {
    'step_seconds_overlapped': shortest,
    'step_seconds_in_turn': longest,
    'utilisation_overlapped': ideal / shortest,
    'utilisation_in_turn': ideal / longest,
    'moved_bytes': moved,
  }


def _remedies(
  config: ConfigDict, topology: Topology, kinds: dict[str, float], until: float
) -> Iterator[dict[str, Any]]:
  """Rematerialisation, gradient caching and FSDP, alone and then joined, until some fit.

  Those that leave most free come first, and those that leave little last: a compiler takes long to
  refuse these. What state and activations alone exceed is not compiled.
  """
  changes, candidates = _changes(config, topology, kinds), []
  for number in range(1, len(changes) + 1):
    for names in itertools.combinations(changes, number):
      overrides = {k: v for name in names for k, v in changes[name].items()}
      changed = ConfigDict(config.to_dict())
      changed.update_from_flattened_dict(overrides)
      described = build.build(changed, topology.devices)
      least = _least_bytes(described)
      order = least > _ROOMY * topology.memory, number, least
      remedy = {
        'names': list(names),
        'flags': [f'--config.{field}={value}' for field, value in overrides.items()],
      }
      candidates.append((order, remedy, described))
  fitting = len(changes)
  for (_, number, least), remedy, described in sorted(candidates, key=lambda one: one[0]):
    if number > fitting:
      continue
    remedy['compiled'] = least <= topology.memory and time.perf_counter() <= until
    if least <= topology.memory and not remedy['compiled']:
      yield remedy | {'fits': None}
      continue
    needed, available = least, topology.memory
    if remedy['compiled']:
      compiled, refused = _compile(described)
      needed, available = refused or (_total(compiled), available)
    fits = needed <= available
    # All that help alone are of interest; of those joined, one.
    fitting = min(fitting, max(number - 1, 1)) if fits else fitting
    yield remedy | {'fits': fits, 'over_bytes': max(needed - available, 0)}


def _least_bytes(described: build.Run) -> float:
  """Of state, batch and activations on a device; see `kept_bytes`."""
  config = described.config
  examples = config.batch_size / batch_shards(described.mesh) / config.micro_batches
  state = _device_bytes(described.abstract_state)
  return state + _batch_bytes(described) + kept_bytes(described) * examples


def _changes(config: ConfigDict, topology: Topology, kinds: dict[str, float]):
  """Overrides of the config by remedy; those that it has already are left out."""
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
      continue  # It does not divide the devices, or a parameter.
    if 'fsdp' not in config.mesh:
      changes['FSDP'] = {'mesh': mesh}
    break
  # So many parts that the activations of one take a quarter of the memory.
  parts = config.micro_batches * kinds['activations'] / (topology.memory / 4)
  parts = 1 << max(math.ceil(math.log2(max(parts, 1))), config.micro_batches.bit_length())
  if config.batch_size % (parts * devices) == 0:
    changes['gradient caching'] = {'micro_batches': parts}
  return changes


def _total(compiled) -> float:
  stats = compiled.memory_analysis()
  total = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
  return total + stats.temp_size_in_bytes + stats.generated_code_size_in_bytes


def _parameters(described: build.Run) -> list[dict[str, Any]]:
  """Where every parameter lives: its shape, how the mesh cuts it, and its bytes on a device."""
  return [
    {
      'name': jax.tree_util.keystr(path, simple=True, separator='/'),
      'shape': list(leaf.shape),
      'dtype': str(leaf.dtype),
      'axes': [axis and str(axis) for axis in leaf.sharding.spec],
      'bytes': _device_bytes(leaf),
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(described.abstract_state.parameters)
  ]


def _device_bytes(tree) -> int:
  """Bytes of the arrays on one device."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _batch_bytes(described: build.Run) -> float:
  batch = abstract_batch(described.config, described.definition)
  return sum(map(_bytes, batch.values())) / batch_shards(described.mesh)


def _bytes(leaf) -> int:
  return math.prod(leaf.shape) * leaf.dtype.itemsize
