"""RankMixup: confidences of mixed examples, ranked by the shares of their classes."""

import jax
import jax.numpy as jnp


def mrl(
  logits: jax.Array, mixed: jax.Array, shares: jax.Array, *, margin: float = 2.0
) -> jax.Array:
  """The mixup-based ranking loss, MRL [1]: a mixture is less certain than the example itself.

      L = mean_{k, i}( [σₖᵢ < 1] · relu(max_c gₖᵢ − max_c fᵢ + margin) )

  Mixtures of two examples of one class, of share 1, have no part in it. It is added to the
  cross-entropy of f, with a weight of 0.1 in [1].

  Args:
    logits: [B, C], f, of the examples.
    mixed: [K, B, C], g, of K mixtures of each with another example; K = 1 in [1].
    shares: [K, B], σ, the largest probability of each mixture's target, see `largest_shares`.
    margin: in logits; 2 for CIFAR and 1 for Tiny-ImageNet in [1].

  Returns:
    Scalar.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Noh et al., RankMixup: Ranking-Based Mixup Training for Network Calibration, 2023,
      https://arxiv.org/abs/2308.11990. The code of [1] multiplies a mask [B] by a column [B, 1]:
      there a mixture within a class lowers the loss of all mixtures alike.

  >>> logits = jnp.array([[3.0, 0.0], [0.0, 3.0]])
  >>> float(mrl(logits, logits[None] / 3, jnp.array([[0.6, 1.0]])))     # relu(1 − 3 + 2) = 0
  0.0
  >>> float(mrl(logits, logits[None], jnp.array([[0.6, 1.0]])))         # (2 + 0) / 2
  1.0
  """
  return jnp.mean(mrl_per_example(logits, mixed, shares, margin=margin))


def mrl_per_example(
  logits: jax.Array, mixed: jax.Array, shares: jax.Array, *, margin: float = 2.0
) -> jax.Array:
  """The loss of each example [B], of which `mrl` is the mean; it takes the same arguments."""
  logits, mixed, shares = _checked(logits, mixed, shares)
  excess = jnp.max(mixed, axis=-1) - jnp.max(logits, axis=-1) + margin
  return jnp.mean(jnp.where(shares < 1, jax.nn.relu(excess), 0.0), axis=0)


def m_ndcg(logits: jax.Array, mixed: jax.Array, shares: jax.Array) -> jax.Array:
  """The loss M-NDCG of RankMixup [1]: confidences follow the ranks of the shares.

      L = meanᵢ( 1 − min(rᵢ, 1 / rᵢ) ),   r = Σₖ p₍ₖ₎ / log₂(k + 2)  /  Σₖ σ₍ₖ₎ / log₂(k + 2)

  over k = 0, …, K: the example itself, of share σ₍₀₎ = 1, and its mixtures by falling share; p is
  the largest probability of each. It is added to the cross-entropy of f, with a weight of 0.1
  in [1].

  Args:
    logits: [B, C], f, of the examples.
    mixed: [K, B, C], of K mixtures of each with another example; K = 3 in [1].
    shares: [K, B], σ, the largest probability of each mixture's target, see `largest_shares`.

  Returns:
    Scalar, from 0 to 1.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Noh et al., RankMixup: Ranking-Based Mixup Training for Network Calibration, 2023,
      https://arxiv.org/abs/2308.11990.

  >>> certain = jnp.array([[100.0, 0.0]])
  >>> even = jnp.array([[[0.0, 0.0]]])
  >>> float(m_ndcg(certain, even, jnp.array([[0.5]])))      # confidences equal the shares
  0.0
  """
  return jnp.mean(m_ndcg_per_example(logits, mixed, shares))


def m_ndcg_per_example(logits: jax.Array, mixed: jax.Array, shares: jax.Array) -> jax.Array:
  """The loss of each example [B], of which `m_ndcg` is the mean; it takes the same arguments."""
  logits, mixed, shares = _checked(logits, mixed, shares)
  order = jnp.argsort(shares, axis=0, descending=True)
  own, others = _confidence(logits), _confidence(mixed)
  confidences = jnp.concatenate([own[None], jnp.take_along_axis(others, order, axis=0)])
  ideal = jnp.concatenate([jnp.ones_like(own)[None], jnp.take_along_axis(shares, order, axis=0)])
  discounts = 1 / jnp.log2(jnp.arange(2.0, len(ideal) + 2))[:, None]
  gain, ideal_gain = (jnp.sum(discounts * each, axis=0) for each in (confidences, ideal))
  return 1 - jnp.minimum(gain / ideal_gain, ideal_gain / gain)


def largest_shares(labels: jax.Array, partners: jax.Array, shares: jax.Array) -> jax.Array:
  """The largest probability of the targets of mixtures: 1 within a class, else max(λ, 1 − λ).

  Args:
    labels: classes of the examples, integers.
    partners: classes of those that they are mixed with.
    shares: λ, the shares of the examples themselves, from 0 to 1; all three shapes broadcast.

  >>> largest_shares(jnp.array([0, 1]), jnp.array([1, 1]), jnp.float32(0.25)).tolist()
  [0.75, 1.0]
  """
  return jnp.where(labels == partners, 1.0, jnp.maximum(shares, 1 - shares))


def _confidence(logits):
  """The largest probability, max softmax."""
  return jnp.exp(jnp.max(logits, axis=-1) - jax.nn.logsumexp(logits, axis=-1))


def _checked(logits, mixed, shares):
  """The three in float32, after a check of their shapes."""
  if logits.ndim != 2 or mixed.shape[1:] != logits.shape or shares.shape != mixed.shape[:-1]:
    raise ValueError(
      f'logits {logits.shape}, mixed {mixed.shape} and shares {shares.shape} do not match; give '
      '[B, C], [K, B, C] and [K, B]'
    )
  return (each.astype(jnp.float32) for each in (logits, mixed, shares))
