"""AMCL: several projections, and a predicted temperature per pair in place of a softmax."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses.views.adaptive import (
  SHARES,
  Bounds,
  Vectors,
  adaptive_contrast,
  at_bounds,
)
from contrastive_jax.methods.memory import enqueue, entries, queue
from contrastive_jax.methods.method import Method, Momentum, Result, Sizes, Slot
from contrastive_jax.models.heads import define_head, head_flops
from contrastive_jax.models.transformer import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive(Method):
  """A sum over projections, whose pairs have temperatures by a network that all share.

  Attributes:
    projectors: C, how many projections of the pooled features there are.
    hidden: width of the hidden layer of each projector.
    outputs: D, width of each projection.
    temperature_hidden: width of the hidden layer of φ, the network of temperatures.
    beta: β, the weight of the regularizer of temperatures.
    bounds: τ_min and τ_max. No minimum keeps temperatures from them, and the metrics
      `positive_at_min` and the like are the shares of pairs near each: a higher τ_min bounds the
      loss.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: if a number is out of range; from `heads`, if `config.batch_size` is 1.
  """

  projectors: int = 3
  hidden: int = 512
  outputs: int = 128
  temperature_hidden: int = 128
  beta: float = 1e-4
  bounds: Bounds = (1e-5, 2.0)
  mesh: jax.sharding.Mesh | None = None

  reads = ('features_of_view.0', 'features_of_view.1')

  def __post_init__(self):
    if self.projectors < 1 or self.temperature_hidden < 1:
      given = f'{self.projectors} and temperature_hidden = {self.temperature_hidden}'
      raise ValueError(f'projectors = {given}; use 1 or more')
    if len(self.bounds) != 2 or not 0 < self.bounds[0] < self.bounds[1]:
      raise ValueError(f'bounds = {self.bounds}; use 0 < low < high')

  def heads(self, sizes):
    """The projectors and φ."""
    if sizes.batch < 2:
      raise ValueError(f'config.batch_size = {sizes.batch} has no negatives; use 2 or more')
    phi = self.width(sizes), (self.temperature_hidden,), self.width(sizes)
    made = {f'projector_{n}': self.projector(sizes) for n in range(self.projectors)}
    return made | {'temperature': define_head(*phi, norm='none')}

  def projector(self, sizes: Sizes):
    """The definition of a projector."""
    return define_head(sizes.image_features, (self.hidden,), self.outputs, norm='none')

  def width(self, sizes: Sizes) -> int:
    """Of what φ maps."""
    return self.outputs

  def project(self, features: jax.Array, heads, encoder: str = '') -> jax.Array:
    """The projections [C, B, D] of features [B, W].

    Args:
      features: of one view.
      heads: modules by name.
      encoder: '', or 'target.' for the heads of the target encoder.
    """
    found = [heads[f'{encoder}projector_{n}'](features) for n in range(self.projectors)]
    return jnp.stack(found)

  def phi_flops(self, sizes: Sizes, rows: float) -> float:
    """Operations of φ for a number of rows per projection."""
    width = self.width(sizes)
    return head_flops(width, (self.temperature_hidden,), width, self.projectors * rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Amcl(Adaptive):
  """AMCL [1] on SimCLR: adaptive multi-head contrastive learning.

      L = Σ_c mean_a( −s⁺ / τ⁺ + (1 / k) Σ_n s_n / τ_n + β Ω(τ⁺) − β Σ_n (log τ_n + 1 / τ_n) )
      τ = τ_min + (τ_max − τ_min) σ(−⟨φ(x), φ(y)⟩),   Ω(τ) = (D / 2) log τ + 1 / τ

  over the two views a of each example, by each of C projections. s are cosines of a with its
  positive, the other view, and with the k negatives n of the greatest cosines among the 2B − 2
  views of other examples; all of these where there are fewer. φ maps a projection to a vector of
  its width, in float32. See `losses.views.adaptive.adaptive_contrast`.

  Attributes:
    k: the number of negatives.

  References:
    [1] Wang et al., https://arxiv.org/abs/2310.05615; formulas as in LeiWangR/cl: amcl/losses.py,
      amcl/models.py.
  """

  k: int = 100

  def loss(self, inputs, heads, memory, key):
    """The sum over the projections of the mean over anchors."""
    first, second = (unit(self.project(inputs[read], heads)) for read in self.reads)
    B = first.shape[1]
    # The views of an example are consecutive rows.
    z = jnp.stack([first, second], 2)
    both = Vectors(z, heads['temperature'](z))
    anchors = jax.tree.map(_rows, both)
    positives = jax.tree.map(lambda a: _rows(a[:, :, ::-1]), both)
    own = jnp.repeat(jnp.arange(B), 2)
    options = {'exclude': own, 'diagonal': False, 'k': min(self.k, 2 * B - 2)}
    return self.contrast(anchors, positives, anchors, **options)

  def contrast(self, anchors, positives, candidates, **options) -> Result:
    """The loss of vectors [C, N, D], see `adaptive_contrast`."""
    options |= {'beta': self.beta, 'bounds': self.bounds, 'mesh': self.mesh}

    loss, shares = jnp.float32(0), []
    # A loop: the gradient of `jax.lax.map` would store which pairs count, N x N.
    for n in range(self.projectors):
      vectors = jax.tree.map(lambda a, n=n: a[n], (anchors, positives, candidates))
      terms = adaptive_contrast(*vectors, **options)
      near = [share for tau in terms[1:] for share in at_bounds(tau, self.bounds)]
      loss += jnp.mean(terms.loss)
      shares.append([jnp.mean(share) for share in near])
    means = jnp.mean(jnp.array(shares), 0)
    return Result(loss, metrics=dict(zip(SHARES, means, strict=True)))

  def flops(self, sizes):
    """The heads of both views, the products of all pairs, and those of φ with the negatives."""
    rows, k = 2 * sizes.batch, min(self.k, 2 * sizes.batch - 2)
    widths = sizes.image_features, (self.hidden,), self.outputs
    pairs = 6.0 * rows * rows + 8.0 * rows * k
    return self.projectors * (pairs * self.outputs + head_flops(*widths, rows)) + self.phi_flops(
      sizes, rows
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AmclMoCo(Amcl):
  """AMCL [1] on MoCo: the loss of `Amcl`, with negatives from queues.

  The anchors are the projections of the first view, their positives those of the second by the
  target encoder, and the negatives the keys of earlier batches, in a queue per projection. φ of the
  queues is computed in each step. The authors' code averages this with the same for the positives
  as anchors, whose negatives train φ alone.

  Attributes:
    length: Q, of each queue; a multiple of the batch size.
    momentum: decay of the target encoder and its projectors.

  References:
    [1] Wang et al., https://arxiv.org/abs/2310.05615; formulas as in LeiWangR/cl: amcl/losses.py,
      amcl/models.py.
  """

  length: int = 4096
  momentum: float = 0.99

  reads = ('features_of_view.0', 'target.features_of_view.1')

  @property
  def target(self) -> Momentum:
    """The encoder of the keys."""
    return Momentum(self.momentum)

  def memory(self, sizes):
    """A queue per projection, and the number of batches written."""
    field = 'config.objective.amcl_moco.length'
    made: dict[str, Any] = {'written': Slot((), dtype=jnp.int32)}
    for n in range(self.projectors):
      made[f'keys_{n}'] = queue(self.length, self.outputs, sizes.batch, field)
    return made

  def loss(self, inputs, heads, memory, key):
    """The sum over the projections of the mean over queries; writes the keys."""
    of_query, of_key = (inputs[read] for read in self.reads)
    names = [f'keys_{n}' for n in range(self.projectors)]
    queries = unit(self.project(of_query, heads))
    keys = unit(self.project(of_key, heads, 'target.'))
    queues = jnp.stack([entries(memory[name]) for name in names])
    vectors = (Vectors(z, heads['temperature'](z)) for z in (queries, keys, queues))
    result = self.contrast(*vectors, k=min(self.k, self.length))
    return result._replace(writes=dict(zip(names, keys, strict=True)))

  def update(self, memory, writes, heads, step):
    """Replaces the oldest batch of each queue."""
    written = memory['written']
    queues = {name: enqueue(memory[name], rows, written) for name, rows in writes.items()}
    return queues | {'written': written + 1}

  def flops(self, sizes):
    """The heads, those of keys forward alone, and the products with the queues."""
    B, k = sizes.batch, min(self.k, self.length)
    widths = sizes.image_features, (self.hidden,), self.outputs
    pairs = 4.0 * B * self.length + 8.0 * B * k
    return self.projectors * (
      pairs * self.outputs + head_flops(*widths, 4 / 3 * B)
    ) + self.phi_flops(sizes, 2 * B + self.length)


def _rows(views: jax.Array) -> jax.Array:
  """[C, B, V, D] as [C, B V, D]."""
  return views.reshape(len(views), -1, views.shape[-1])
