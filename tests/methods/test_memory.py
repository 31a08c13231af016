"""Tables with a row per example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from contrastive_jax.methods import memory
from contrastive_jax.sharding.mesh import make_mesh

IDS = jnp.array([5, 2, 5, 7, 2, 5, 0, 30])
ROWS = jax.random.normal(jax.random.key(0), (8, 3))


@pytest.mark.parametrize('rows', [ROWS, ROWS[:, 0]], ids=['vectors', 'numbers'])
def test_rows_of_one_id_are_averaged(rows):
  table = np.full((9, *rows.shape[1:]), 9.0, 'f')
  written = np.asarray(jax.jit(memory.scatter_mean)(table, IDS, rows))
  rows, ids = np.asarray(rows), np.asarray(IDS)
  for row in range(9):
    mine = rows[ids == row]
    expected = mine.mean(0) if len(mine) else table[row]
    np.testing.assert_allclose(written[row], expected, rtol=1e-6)


def test_the_mesh_changes_no_bit():
  mesh = make_mesh('data:8')
  table = jnp.zeros((16, 3))
  sharding = jax.NamedSharding(mesh, P('data'))
  write = jax.jit(memory.scatter_mean)
  sharded = write(*(jax.device_put(array, sharding) for array in (table, IDS, ROWS)))
  np.testing.assert_array_equal(sharded, write(table, IDS, ROWS))
