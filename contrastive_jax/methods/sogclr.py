"""SogCLR: a moving average of each example's contrast makes up for a small batch."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_share
from contrastive_jax.methods.memory import scatter_mean, table
from contrastive_jax.methods.method import Method, Result


@dataclasses.dataclass(frozen=True, kw_only=True)
class SogClr(Method):
  """SogCLR [1]: each anchor's contrast is followed by a moving average per example.

      F = τ mean( log mean_j exp(h_ij / τ) ),   h_ij = a_i·z_j − a_i·p_i

  over the negatives z_j of an anchor a_i with the positive p_i. The loss has the gradient of

      mean_j w_ij h_ij,   w_ij = exp(h_ij / τ) / s_i
      s_i ← (1 − γ) s_i + γ mean_j exp(h_ij / τ)

  with w constant. Rows of one example in a batch are merged by the mean of what they write.

  Attributes:
    views: both sides are views of an image: the anchors of an example share its state, the
      negatives are both views of all other examples, and h is a·z with −a·p beside the surrogate
      (the authors' code for images); otherwise the sides are image and text, each with a state of
      its own and negatives of the other side alone.
    temperature: τ.
    gamma: γ, the share of the new mean in the moving average; the first one is taken whole.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: if gamma is out of range.

  References:
    [1] Yuan et al., https://arxiv.org/abs/2202.12387
  """

  views: bool = False
  temperature: float = 0.01
  gamma: float = 0.8
  mesh: jax.sharding.Mesh | None = None

  reads = ('first', 'second', 'id', 'same?')

  def __post_init__(self):
    check_share('gamma', self.gamma)

  @property
  def sides(self) -> tuple[str, ...]:
    """Whose anchors have a state."""
    return ('both',) if self.views else ('first', 'second')

  def memory(self, sizes):
    """Tables of log s."""
    return {f'{side}.log_mean': table(sizes.examples, -jnp.inf) for side in self.sides}

  def temperatures(self, own):
    """The temperatures [B] of the batch's anchors, by side."""
    return {side: jnp.full_like(own[f'{side}.log_mean'], self.temperature) for side in self.sides}

  def move(self, side, own, log_mean, mean):
    """What else is written of an anchor: nothing, with one temperature.

    Args:
      side: of the anchors.
      own: their rows of the tables.
      log_mean: [B] log s.
      mean: [B] mean_j w_ij h_ij / τ_i.
    """
    return {}

  def loss(self, inputs, heads, memory, key):
    """The surrogate, averaged over the sides; writes the rows of the tables."""
    own = {name: table[inputs['id']] for name, table in memory.items()}
    temperatures = self.temperatures(own)
    contrast = _contrast_views if self.views else _contrast_sides
    results = contrast(inputs, list(temperatures.values()), self.mesh)
    terms: list[Any] = []
    writes = {'id': inputs['id']}
    for side, (log_new, mean, positive) in zip(self.sides, results, strict=True):
      # An anchor without negatives has no term, and leaves its state as it was.
      counted = log_new > -jnp.inf
      log_new = jnp.where(counted, log_new, 0.0)
      old, new = own[f'{side}.log_mean'], jax.lax.stop_gradient(log_new)
      log_mean = jnp.logaddexp(jnp.log1p(-self.gamma) + old, jnp.log(self.gamma) + new)
      log_mean = jnp.where(old == -jnp.inf, new, log_mean)
      # The ratio is the mean of w, and has the gradient of the surrogate over τ.
      ratio = jnp.exp(log_new - log_mean)
      surrogate = temperatures[side] * ratio - positive
      terms.append(jnp.mean(jnp.where(counted, surrogate, 0.0)))
      moved = {'log_mean': log_mean} | self.move(side, own, log_mean, ratio * mean)
      for name, rows in moved.items():
        writes[f'{side}.{name}'] = jnp.where(counted, rows, own[f'{side}.{name}'])
    metrics = {'temperature': jnp.mean(jnp.stack(list(temperatures.values())))}
    return Result(sum(terms) / len(terms), writes, metrics)

  def update(self, memory, writes, heads, step):
    """Writes the batch's rows of the tables."""
    return {name: scatter_mean(rows, writes['id'], writes[name]) for name, rows in memory.items()}

  def flops(self, sizes):
    """One streamed expectation between two sides, three among two views."""
    return (24.0 if self.views else 8.0) * sizes.batch**2 * sizes.embed


def _contrast_sides(inputs, temperatures, mesh):
  """Per side: log mean exp(h / τ), the mean of h / τ under its softmax, and 0."""
  x, y, same = inputs['first'], inputs['second'], inputs.get('same', inputs['id'])
  scale = tuple(1 / tau for tau in temperatures)
  options: dict[str, Any] = {'exclude': same, 'diagonal': False, 'mesh': mesh}
  results = pairwise.expectation(x, y, _identity, scale=scale, **options)
  positive, negatives = pairwise.paired(x, y), _count_others(same)
  return [
    (total - positive * inverse - jnp.log(negatives), mean - positive * inverse, 0.0)
    for inverse, (mean, total) in zip(scale, results, strict=True)
  ]


def _contrast_views(inputs, temperatures, mesh):
  """Of both views: log mean exp(a·z / τ), the mean of a·z / τ under its softmax, and a·p."""
  x, y, scale = inputs['first'], inputs['second'], 1 / temperatures[0]
  options: dict[str, Any] = {'exclude': inputs['id'], 'diagonal': False, 'mesh': mesh}
  means, totals = [], []
  for a, b in ((x, y), (x, x), (y, y)):
    both = pairwise.expectation(a, b, _identity, scale=(scale, scale), **options)
    for mean, total in both[: 1 + (b is not a)]:
      means.append(mean)
      totals.append(total)
  stacked = jnp.stack(totals)
  log_mean = jax.nn.logsumexp(stacked, axis=0) - jnp.log(4 * _count_others(inputs['id']))
  mean = jnp.sum(jax.nn.softmax(stacked, axis=0) * jnp.stack(means), axis=0)
  return [(log_mean, mean, pairwise.paired(x, y))]


def _identity(scores):
  return scores


def _count_others(ids: jax.Array) -> jax.Array:
  """The number of rows with another integer, [B]; 1 where there is none."""
  ordered = jnp.sort(ids)
  same = jnp.searchsorted(ordered, ids, side='right') - jnp.searchsorted(ordered, ids)
  return jnp.maximum(len(ids) - same, 1)
