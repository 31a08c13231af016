"""Memory and communication of InfoNCE in groups, on 8 simulated devices.

  python -m experiments.grouped.run

Programs are compiled without execution. Writes results.json and prints its table.
"""

import functools
from typing import Any

import jax
from absl import app

from contrastive_jax.planning.hlo import Program
from contrastive_jax.sharding.mesh import make_mesh
from experiments import records
from experiments.grouped import methods, report
from experiments.loss_scaling.methods import compile_gradients

DEVICES, BATCH = 8, 49_152
# A group has all devices, 4, 2, 1, or a quarter of one; 3 and 6 groups cut shards.
GROUPS = (1, 2, 4, 8, 32, 3, 6)


def measure(name: str, groups: int, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  """Returns bytes per device of a compiled value and gradient: temporaries, and what is sent."""
  method = functools.partial(methods.METHODS[name], groups=groups)
  program = compile_gradients(method, BATCH, mesh)
  kinds = Program(program.as_text()).collectives().values()
  # (count, bytes) by the number of devices that take part.
  collectives = [one for kind in kinds for size, one in kind.groups.items() if size > 1]
  return {
    'method': name,
    'groups': groups,
    'temporaries': program.memory_analysis().temp_size_in_bytes,
    'sent': sum(sent for _, sent in collectives),
    'collectives': sum(count for count, _ in collectives),
  }


def main(_):
  """Measures all methods and groups."""
  jax.config.update('jax_platforms', 'cpu')
  jax.config.update('jax_num_cpu_devices', DEVICES)
  mesh = make_mesh()
  rows = [
    measure(name, groups, mesh)
    for groups in GROUPS
    for name in methods.METHODS
    # Devices cannot gather a part of a device's embeddings.
    if name != 'all-gather' or DEVICES % groups == 0
  ]
  records.write(report.RESULTS, {'devices': DEVICES, 'batch': BATCH, 'rows': rows})
  print(report.costs(report.RESULTS))


if __name__ == '__main__':
  app.run(main)
