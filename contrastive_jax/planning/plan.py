"""Plans a config for a topology without its hardware: the train step is compiled, never run.

Exact: the bytes of parameters, optimizer state and batch per device; total memory and whether it
fits, as reported by the compiler; collectives; and the FLOPs of the program. Estimated: the share
of activations in temporary memory, memory traffic, and the step times derived from it. GPU programs
are compiled for CPU, so all results of the compiler are estimates: it fuses and schedules
differently, and may convert bfloat16 to float32.
"""

import json
import pathlib
import re
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.methods import Objective
from contrastive_jax.models.definition import Definition
from contrastive_jax.planning import costs, table
from contrastive_jax.planning.estimate import estimate
from contrastive_jax.planning.hlo import Program
from contrastive_jax.planning.loss import loss_bytes
from contrastive_jax.planning.search import fastest, search
from contrastive_jax.planning.topology import Topology, open_topology
from contrastive_jax.sharding.mesh import batch_shards
from contrastive_jax.training import build


def run(
  config: ConfigDict, topology: str, folder: pathlib.Path, seconds: float = 300
) -> dict[str, Any]:
  """Plans, prints the plan, and writes it to `folder/plan_TOPOLOGY.json`.

  Args:
    config: config of a run.
    topology: name of a topology, such as 'v5e:16x16'.
    folder: the folder to write to; created if missing.
    seconds: see `plan`.

  Returns:
    The plan, see `plan`.

  Raises:
    ValueError: if the config or the topology is invalid.
  """
  result = plan(config, open_topology(topology), seconds)
  table.show(result)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / f'plan_{re.sub("[:*]", "_", topology)}.json'
  path.write_text(json.dumps(result, indent=2) + '\n')
  print(f'{path} contains this plan')
  return result


def plan(config: ConfigDict, topology: Topology, seconds: float = 300) -> dict[str, Any]:
  """Compiles the train step of a config for a topology, and returns its costs.

  Args:
    config: config of a run. Its data are opened only if a method has a table with a row per example
      and `config.data.examples` is 0.
    topology: from `open_topology`.
    seconds: time for which further settings are compiled, see `search`; 0 for none.

  Returns:
    A nested dict for JSON. Bytes are per device, FLOPs per step on all devices. Without
    `collectives` and `estimate` if the step does not compile, and without `estimate` on CPU;
    with `normalized_together` for towers with batch norm. `settings` are other settings, from
    `search`, and `fastest` is the fastest of them that fits, None if there is none or the config's
    own is faster.
  """
  start = time.perf_counter()
  config = with_examples(config)
  built = build.build(config, topology.devices)
  compiled, needed, limit = costs.compile_step(built)
  compile_seconds = time.perf_counter() - start
  memory = _memory(built, compiled)
  if compiled is not None and built.unmasked is not None:
    memory['kinds']['unmasked'] = needed - costs.total_bytes(compiled)
  # The memory available to the compiler is less than that of the chip.
  available = topology.memory if limit is None else limit
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
    'flops': costs.all_flops(built),
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
  until = time.perf_counter() + seconds
  result['settings'] = list(search(config, topology, result, until)) if seconds > 0 else []
  result['fastest'] = fastest(result, result['settings'])
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
  moving = definition.statistics - definition.frozen_statistics
  return config.batch_size // config.micro_batches if moving else 0


def _memory(built: build.Run, compiled) -> dict[str, Any]:
  """Bytes per device by kind, and those of the loss.

  The kinds of a compiled step add up to the total of the compiler. `activations` estimates the
  residuals that the forward pass saves for the backward pass; `temporaries` are the rest. `plan`
  adds `unmasked`, what the steps without patch dropout need beyond the others.
  """
  state = built.abstract_state
  config, mesh = built.config, built.mesh
  examples = config.batch_size / batch_shards(mesh)
  activations = costs.residual_bytes(built) * examples / config.micro_batches
  kinds = _state_bytes(state) | {
    'batch': costs.batch_bytes(built),
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
    'teacher': state.teacher,
    'memory': state.memory,
    'statistics': state.statistics,
  }
  always = ('parameters', 'optimizer', 'average')
  return {k: costs.device_bytes(v) for k, v in kinds.items() if v is not None or k in always}


def _parameters(built: build.Run) -> list[dict[str, Any]]:
  """Shape, dtype, mesh axes and bytes per device of every parameter."""
  return [
    {
      'name': jax.tree_util.keystr(path, simple=True, separator='/'),
      'shape': list(leaf.shape),
      'dtype': str(leaf.dtype),
      'axes': [axis and str(axis) for axis in leaf.sharding.spec],
      'bytes': costs.device_bytes(leaf),
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(built.abstract_state.parameters)
  ]
