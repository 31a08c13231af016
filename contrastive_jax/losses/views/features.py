"""Vectors by feature, so that the engine visits pairs of features in place of pairs of examples."""

import jax
import jax.numpy as jnp


def by_feature(vectors: jax.Array, mesh: jax.sharding.Mesh | None) -> jax.Array:
  """The transpose [D', B] of vectors [B, D], sharded by feature.

  Features of zeros, which correlate with none, make D' a multiple of the devices.

  Args:
    vectors: [B, D].
    mesh: as in `pairwise.logsumexp`.
  """
  devices = 1 if mesh is None else getattr(mesh, 'mesh', mesh).size
  return jnp.pad(vectors.T, ((0, -vectors.shape[1] % devices), (0, 0)))


def wide(vectors: jax.Array) -> jax.Array:
  """Vectors in float32 or wider."""
  return vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32))
