"""CACR with a momentum encoder: weighted queries, and negatives from the batch and a queue."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.views.multi_view import by_view, products
from contrastive_jax.methods.memory import enqueue, entries, queue
from contrastive_jax.methods.method import Method, Momentum, Result, Slot


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacrMoCo(Method):
  """CACR [1] between views by the encoder, and views by the target encoder.

      L = mean_k Σ_{q ≠ k} w_q · 2τ ( log( Σⱼ exp(q·kⱼ / τ) + Σₙ exp(q·n / τ) ) − q·k / τ )
      w = softmax_{q ≠ k}( ‖q − k‖² / τ )

  k are the views of an example by the target encoder, q the other views of the example by the
  encoder, kⱼ the same view of the batch's examples, and n the queue of first views of earlier
  batches. Far queries weigh more, and no gradient flows through w. Near negatives weigh more in the
  gradient of the logarithm. With two views w is 1, and the loss 2τ times that of MoCo v3.

  This is the authors' form with an RBF cost for ImageNet, except for the queue: they have none,
  `length` of 0, and compare predictions, by a head after the encoder.

  Attributes:
    length: Q, of the queue, a multiple of the batch size; 0 for none.
    momentum: decay of the target encoder.
    temperature: τ.
    mesh: the mesh over which the batch is sharded; None for one device.

  References:
    [1] Zheng et al., https://arxiv.org/abs/2105.03746; formulas as in JegZheng/CACR-SSL:
      imagenet_pretraining/moco/builder.py, cacr_rbfloss.
  """

  length: int = 65_536
  momentum: float = 0.99
  temperature: float = 1.0
  mesh: jax.sharding.Mesh | None = None

  reads = ('views:2', 'target.views:2')

  @property
  def target(self) -> Momentum:
    """The encoder of the keys."""
    return Momentum(self.momentum)

  def memory(self, sizes):
    """The queue, and the number of batches written."""
    if not self.length:
      return {}
    field = 'config.objective.cacr_moco.length'
    keys = queue(self.length, sizes.embed, sizes.batch, field)
    return {'keys': keys, 'written': Slot((), dtype=jnp.int32)}

  def loss(self, inputs, heads, memory, key):
    """The mean over the keys; writes those of the first view."""
    queries, keys, tau = inputs['views'], inputs['target.views'], self.temperature
    B, V, D = queries.shape
    of_query, of_key = np.nonzero(~np.eye(V, dtype=bool))
    cosines = products(queries, keys)
    others = ~jnp.eye(V, dtype=bool)
    weights = jax.nn.softmax((2 - 2 * cosines) / tau, axis=1, where=others)
    weights = jax.lax.stop_gradient(weights)
    options: dict[str, Any] = {'scale': 1 / tau, 'mesh': self.mesh}
    pairs = by_view(queries, of_query), by_view(keys, of_key)
    totals, _ = pairwise.logsumexp(*pairs, groups=len(of_key), **options)
    totals = totals.reshape(-1, B)
    if self.length:
      rest, _ = pairwise.logsumexp(queries.reshape(B * V, D), entries(memory['keys']), **options)
      totals = jnp.logaddexp(totals, rest.reshape(B, V).T[of_query])
    entropies = totals.T - cosines[:, of_query, of_key] / tau
    loss = 2 * tau * jnp.mean(jnp.sum(weights[:, of_query, of_key] * entropies, axis=1)) / V
    return Result(loss, {'keys': keys[:, 0]} if self.length else {})

  def update(self, memory, writes, heads, step):
    """Replaces the oldest batch of the queue."""
    if not self.length:
      return memory
    written = memory['written']
    return {'keys': enqueue(memory['keys'], writes['keys'], written), 'written': written + 1}

  def flops(self, sizes):
    """Three products per pair: keys have no gradient."""
    pairs = math.perm(sizes.views, 2) * sizes.batch**2
    return 6.0 * (pairs + sizes.views * sizes.batch * self.length) * sizes.embed
