"""InterCLR: MoCo, and a term between images by pseudo-labels of a bank of all examples."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.methods import pseudo_labels, semi_hard
from contrastive_jax.methods.memory import scatter_mean
from contrastive_jax.methods.method import Result, Slot, fold_name
from contrastive_jax.methods.moco import MoCo
from contrastive_jax.models.transformer import unit

MARGINS = ('cosine', 'arc')


@dataclasses.dataclass(frozen=True, kw_only=True)
class InterClr(MoCo):
  """InterCLR [1] on MoCo, for two views of an image.

      L = (1 − w) MoCo + w mean( log( exp(s (q·p − m)) + Σ_n exp(s q·n) ) − s (q·p − m) )

  q is the first view, and a bank holds the last key of each example, the second view by the target
  encoder, with a pseudo-label. p is drawn from the bank's vectors with the label of q's example;
  the negatives n are drawn from the `nearest` to q that have other labels. An example that the bank
  has not seen has no second term. The paper's three findings are options:

  1. Pseudo-labels are online: each key written takes the label of the nearest centroid, and the
     centroids are the means of their vectors, anew in each step. A centroid without vectors moves
     to that key of the batch which fits its own centroid worst; the authors split the largest
     cluster. With `cluster_every`, labels are those of k-means every so many steps, instead.
  2. Negatives are semi-hard: `nearest` = `negatives` takes the hardest, and 0 draws from all.
  3. The margin m is negative, which relaxes the boundary; with 'arc' the positive's angle is
     widened by it instead, cos(θ + m).

  The authors search the nearest among all labels, and draw until the label differs. Here each of
  the nearest is drawn with a probability for which `negatives` is the expected number, see
  `semi_hard.negatives`.

  Attributes:
    inter: w; 0 for MoCo.
    clusters: number of pseudo-labels.
    cluster_every: steps between two clusterings; 0 for online labels.
    negatives: expected number of negatives of an anchor.
    nearest: number of vectors from which they are drawn; 0 for all.
    margin: m.
    margin_kind: 'cosine' or 'arc'.

  Raises:
    ValueError: if an option is out of range.

  References:
    [1] Xie et al., https://arxiv.org/abs/2008.11702; as in open-mmlab/mmselfsup:
      mmselfsup/models/algorithms/interclr_moco.py, mmselfsup/models/memories/interclr_memory.py
  """

  name: ClassVar[str] = 'interclr'

  scale: float | None = 5.0
  in_batch: bool = False
  symmetric: bool = False
  inter: float = 0.25
  clusters: int = 10_000
  cluster_every: int = 0
  negatives: int = 16_384
  nearest: int = 128_000
  margin: float = -0.5
  margin_kind: str = 'cosine'

  def __post_init__(self):
    if not 0 <= self.inter <= 1:
      raise ValueError(f'inter = {self.inter}; use a share from 0 to 1')
    if self.clusters < 2:
      raise ValueError(f'clusters = {self.clusters}; use 2 or more')
    if self.negatives < 1 or 0 < self.nearest < self.negatives:
      raise ValueError(
        f'negatives = {self.negatives} of nearest = {self.nearest}; use 1 or more of as many'
      )
    if min(self.cluster_every, self.nearest) < 0:
      raise ValueError(
        f'cluster_every = {self.cluster_every}, nearest = {self.nearest}; use 0 or more'
      )
    if self.margin_kind not in MARGINS:
      raise ValueError(f'margin_kind = {self.margin_kind!r} is unknown; use one of {MARGINS}')

  @property
  def reads(self) -> tuple[str, ...]:
    """As MoCo, and the examples."""
    return (*super().reads, 'id')

  def memory(self, sizes):
    """MoCo's queue; the bank, −1 for the labels of what it has not seen, and the centroids."""
    start = lambda key: unit(jax.random.normal(key, (self.clusters, sizes.embed)))  # noqa: E731
    unseen = lambda key: jnp.full(sizes.examples, -1, jnp.int32)  # noqa: E731
    return super().memory(sizes) | {
      'bank': Slot((sizes.examples, sizes.embed), ('examples', None)),
      'labels': Slot((sizes.examples,), ('examples',), unseen, jnp.int32),
      'centroids': Slot((self.clusters, sizes.embed), (), start),
    }

  def loss(self, inputs, heads, memory, key):
    """The two terms; writes the keys and their examples."""
    intra = super().loss(inputs, heads, memory, key)
    writes = {**intra.writes, 'id': inputs['id']}
    if not self.inter:
      return Result(intra.loss, writes)
    scale = inputs['scale'] if self.scale is None else self.scale
    x, bank, labels = inputs['first'], memory['bank'], memory['labels']
    own, counts = labels[inputs['id']], pseudo_labels.counts(labels, self.clusters)
    found = semi_hard.positives(labels, own, fold_name(key, 'positive'), self.mesh)
    cosine = pairwise.paired(x, bank[found])
    positive = scale * semi_hard.shift(cosine, self.margin, self.margin_kind)
    others = jnp.sum(counts) - counts[own]
    options: dict[str, Any] = {'count': self.negatives, 'nearest': self.nearest, 'scale': scale}
    drawn = (x, bank, labels, own, others, fold_name(key, 'negatives'))
    negative = semi_hard.negatives(*drawn, **options, mesh=self.mesh)
    inter = jnp.mean(jnp.where(own >= 0, jnp.logaddexp(positive, negative) - positive, 0.0))
    metrics = {'intra': intra.loss, 'inter': inter}
    # Clusters with vectors
    metrics |= {'labeled': jnp.mean(own >= 0), 'used': jnp.mean(counts > 0)}
    return Result((1 - self.inter) * intra.loss + self.inter * inter, writes, metrics)

  def update(self, memory, writes, heads, step):
    """Writes the queue and the bank, and moves labels and centroids."""
    ids, state = writes['id'], (memory['labels'], memory['centroids'])
    moved = super().update(memory, {side: writes[side] for _, side in self.sides}, heads, step)
    bank = scatter_mean(memory['bank'], ids, writes['second'])
    bank = bank.at[ids].set(unit(bank[ids]))  # the mean of several keys is shorter
    if not self.cluster_every:
      labels, centroids = pseudo_labels.online(bank, *state, ids)
    else:
      labels, centroids = jax.lax.cond(
        memory['written'] % self.cluster_every == 0,
        lambda labels, centroids: pseudo_labels.k_means(bank, labels, centroids, ids, self.mesh),
        lambda *unmoved: unmoved,
        *state,
      )
    return moved | {'bank': bank, 'labels': labels, 'centroids': centroids}

  def flops(self, sizes):
    """MoCo's; four products of the search and three of the loss per pair, and the labels'."""
    if not self.inter:
      return super().flops(sizes)
    searches = 0 < self.nearest < sizes.examples
    pairs = sizes.batch * sizes.examples
    own = (6.0 + 8.0 * searches) * pairs * sizes.embed + 2.0 * pairs
    return super().flops(sizes) + own + 2.0 * sizes.batch * self.clusters * sizes.embed
