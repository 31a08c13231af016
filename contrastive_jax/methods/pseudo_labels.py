"""Pseudo-labels of a bank: clusters that are updated online or by k-means."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.models.transformer import unit

# Steps of `k_means`.
_STEPS = 10


def online(
  bank: jax.Array, labels: jax.Array, centroids: jax.Array, ids: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Labels what was written to a bank by the nearest centroid, and moves the centroids.

  Args:
    bank: [N, D] unit vectors, one per example.
    labels: [N] their clusters; −1 for examples that the bank has not seen.
    centroids: [K, D] unit vectors.
    ids: [B] examples that were written.

  Returns:
    [N] and [K, D]. A centroid is the mean direction of its vectors. One without vectors moves to
    that of the written which fits its own centroid worst, the next one to the second worst, and so
    on.
  """
  fits = bank[ids] @ centroids.T
  labels = labels.at[ids].set(jnp.argmax(fits, 1).astype(jnp.int32))
  return labels, _means(bank, labels, centroids, ids, fits)


def k_means(
  bank: jax.Array, labels: jax.Array, centroids: jax.Array, ids: jax.Array, mesh=None
) -> tuple[jax.Array, jax.Array]:
  """Labels all of a bank by ten steps of k-means, which start from the centroids.

  Args:
    bank: as in `online`.
    labels: as in `online`.
    centroids: as in `online`; on a mesh its devices divide K.
    ids: as in `online`.
    mesh: the mesh over which the bank is sharded; None for one device.

  Returns:
    As `online`.
  """
  seen = labels.at[ids].max(0) >= 0

  def step(_, state):
    _, centroids = state
    _, nearest = pairwise.top_k(bank, centroids, 1, mesh=mesh)
    labels = jnp.where(seen, nearest[:, 0], -1)
    return labels, _means(bank, labels, centroids, ids, bank[ids] @ centroids.T)

  return jax.lax.fori_loop(0, _STEPS, step, (labels, centroids))


def counts(labels: jax.Array, clusters: int) -> jax.Array:
  """The number of vectors of each cluster, [K] float32; the label −1 is of none."""
  return _sums(jnp.ones(len(labels)), labels, clusters)


def _means(bank, labels, centroids, ids, fits):
  """The centroids of labels, given the products [B, K] of the written with the earlier ones."""
  K, written = len(centroids), bank[ids]
  empty = counts(labels, K) == 0
  rank = jnp.cumsum(empty) - 1
  worst = written[jnp.argsort(jnp.max(fits, 1))[jnp.minimum(rank, len(ids) - 1)]]
  spare = jnp.where((rank < len(ids))[:, None], worst, centroids)
  return jnp.where(empty[:, None], spare, unit(_sums(bank, labels, K)))


def _sums(values: jax.Array, labels: jax.Array, clusters: int) -> jax.Array:
  """The sums of values [N, ...] per label, [K, ...]."""
  labels = jnp.where(labels < 0, clusters, labels)
  return jnp.zeros((clusters, *values.shape[1:])).at[labels].add(values, mode='drop')
