"""Positives with a margin and semi-hard negatives, drawn from a bank by its pseudo-labels."""

import math

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise

# A logit that does not count; terms of `pairwise` are finite.
_NEVER = -1e9


def positives(
  labels: jax.Array, own: jax.Array, key: jax.Array, mesh: jax.sharding.Mesh | None = None
) -> jax.Array:
  """Draws an example of a bank with the label of each anchor.

  Args:
    labels: [N] of the bank; −1 for what it has not seen.
    own: [B] of the anchors.
    key: of the draw.
    mesh: the mesh over which the batch is sharded; None for one device.

  Returns:
    [B] numbers from 0 to N − 1; for an anchor whose label is −1 or of no example, any.
  """
  x, y = (jnp.ones((len(each), 1)) for each in (own, labels))
  rows, columns = (own, _bits(key, own)), (labels, _numbers(labels))
  _, found = pairwise.top_k(x, y, 1, _of_label, rows=rows, columns=columns, mesh=mesh)
  return found[:, 0]


def shift(cosine: jax.Array, margin: float, kind: str = 'cosine') -> jax.Array:
  """A cosine less the margin m, or with 'arc' that of the angle plus m.

  Where the angle would leave [0, π], the arc continues as cos θ − m sin |m|, as in the authors'
  code.
  """
  if kind == 'cosine':
    return cosine - margin
  bounded = jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6)
  turned = cosine * math.cos(margin) - jnp.sqrt(1 - bounded**2) * math.sin(margin)
  inside = cosine < math.cos(margin) if margin < 0 else cosine > -math.cos(margin)
  return jnp.where(inside, turned, cosine - margin * math.sin(abs(margin)))


def negatives(
  x: jax.Array,
  bank: jax.Array,
  labels: jax.Array,
  own: jax.Array,
  others: jax.Array,
  key: jax.Array,
  *,
  count: int,
  nearest: int,
  scale: jax.Array | float,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Log Σ exp(s x·n) over negatives n, drawn from the nearest of a bank with other labels.

  Each of the nearest is drawn with a probability for which `count` is the expected number, so that
  the bank is streamed.

  Args:
    x: [B, D] unit vectors, the anchors.
    bank: [N, D] unit vectors.
    labels: [N] of the bank; −1 for what it has not seen.
    own: [B] labels of the anchors.
    others: [B] numbers of the bank's vectors with another label.
    key: of the draw.
    count: expected number of negatives of an anchor.
    nearest: number of vectors from which they are drawn; 0 for all.
    scale: s.
    mesh: the mesh over which the batch is sharded; None for one device.

  Returns:
    [B], −1e9 or less where none is drawn.
  """
  floor = jnp.full(len(x), 2 * _NEVER)
  if 0 < nearest < len(bank):
    floor, _ = pairwise.threshold(
      *(jax.lax.stop_gradient(x), bank, _other_label),
      count=nearest,
      rows=own,
      columns=labels,
      scale=scale,
      mesh=mesh,
    )
    others = jnp.minimum(others, nearest)
  share = jnp.minimum(count / jnp.maximum(others, 1), 1.0)
  rows, columns = (own, floor, share, _bits(key, own)), (labels, _numbers(labels))
  total, _ = pairwise.logsumexp(x, bank, _drawn, rows=rows, columns=columns, scale=scale, mesh=mesh)
  return total


def _of_label(scores, rows, columns):
  """A draw for the columns of a row's label."""
  (own, bits), (labels, numbers) = rows, columns
  return jnp.where(own[:, None] == labels, _uniform(bits, numbers), _NEVER)


def _other_label(scores, rows, columns):
  """The scores of columns of other labels."""
  return jnp.where(_differ(rows, columns), scores, _NEVER)


def _differ(rows, columns):
  """Whether a column has been seen, with another label."""
  return (columns >= 0) & (rows[:, None] != columns)


def _drawn(scores, rows, columns):
  """The scores of what is drawn of the nearest columns of other labels."""
  (own, floor, share, bits), (labels, numbers) = rows, columns
  counted = _differ(own, labels) & (scores >= floor[:, None])
  return jnp.where(counted & (_uniform(bits, numbers) < share[:, None]), scores, _NEVER)


def _bits(key: jax.Array, rows: jax.Array) -> jax.Array:
  return jax.random.bits(key, rows.shape, jnp.uint32)


def _numbers(columns: jax.Array) -> jax.Array:
  return jnp.arange(len(columns), dtype=jnp.uint32)


def _uniform(bits: jax.Array, numbers: jax.Array) -> jax.Array:
  """Numbers [b, n] in [0, 1) by the bits of a row and the number of a column.

  The mixing function is that of MurmurHash3: a draw costs a few operations per pair.
  """
  x = bits[:, None] ^ (numbers * jnp.uint32(0x9E3779B1))
  for shifted, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
    x = (x ^ (x >> shifted)) * jnp.uint32(factor)
  return ((x ^ (x >> 16)) >> 8).astype(jnp.float32) * 2.0**-24
