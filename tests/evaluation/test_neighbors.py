import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.evaluation.neighbors import _finder, nearest
from contrastive_jax.sharding.mesh import batch_sharding, make_mesh


@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize(('size', 'k'), [(203, 20), (9, 9)])
def test_nearest_equals_a_stable_sort(devices, size, k):
  random = np.random.default_rng(0)
  # Small integers: products are exact, and many tie.
  queries = random.integers(-2, 3, (13, 5)).astype(np.float32)
  candidates = random.integers(-2, 3, (size, 5)).astype(np.float32)
  mesh = make_mesh('data:-1', jax.devices()[:devices])
  scores, rows = nearest(queries, candidates, k, mesh=mesh)
  products = queries @ candidates.T
  expected = np.argsort(-products, axis=1, kind='stable')[:, :k]
  np.testing.assert_array_equal(rows, expected)
  np.testing.assert_array_equal(scores, np.take_along_axis(products, expected, axis=1))


@pytest.mark.parametrize('devices', [1, 8])
def test_what_is_no_number_is_never_near(devices):
  candidates = np.arange(1, 10, dtype=np.float32)[:, None]
  candidates[[2, 8]] = np.nan
  mesh = make_mesh('data:-1', jax.devices()[:devices])
  scores, rows = nearest(np.array([[1.0], [np.nan]]), candidates, 9, mesh=mesh)
  np.testing.assert_array_equal(rows[0], [7, 6, 5, 4, 3, 1, 0, -1, -1])
  np.testing.assert_array_equal(scores[0, :7], [8, 7, 6, 5, 4, 2, 1])
  assert np.all(rows[1] == -1)
  assert np.all(scores[1] == -np.inf)


def test_candidates_are_sharded():
  D, shards = 512, 8
  mesh = make_mesh(f'data:{shards}', jax.devices()[:shards])

  def side(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh))

  def held(N):
    arguments = side((64, D), jnp.float32), side((N, D), jnp.float32), side((N,), bool)
    memory = _finder(mesh, 5).lower(*arguments).compile().memory_analysis()
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes

  small, large = 2**14, 2**16
  # Each device holds its share, the one that it visits, and the next to come.
  assert held(large) - held(small) < 4.2 * (large - small) * D * 4 / shards
