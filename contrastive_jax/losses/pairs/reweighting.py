"""InfoNCE with pairs weighted by their own loss."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses.pairs.info_nce import info_nce_per_example

# Functions of the normalized loss h: −1 at the batch's least loss, 1 at its greatest.
STRATEGIES = {
  'linupper': lambda h: jnp.minimum(h + 1, 1),
  'quadratic': lambda h: 1 - h**2,
  'extremes': jnp.abs,
  'upper': lambda h: (h + 1) / 2,
}


def reweighted_info_nce(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  strategy: str = 'linupper',
  temperature: float = 1.0,
  burn_in: int = 0,
  step: jax.Array | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Symmetric InfoNCE with each pair weighted by its own loss [1].

      L = Σᵢ wᵢ lᵢ,   l = info_nce_per_example,   w = weigh(l)

  Weights have no gradient. Equal weights give `info_nce`. The samples of [1] are the texts of a
  language model; here they are pairs. [1] begins with a high temperature, here with equal weights.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature of the similarities.
    strategy: the weighting function, as in `weigh`.
    temperature: of the weights; higher makes them more equal.
    burn_in: the number of steps with equal weights.
    step: the current step, from 0; None: after the burn-in.
    same: [B] integers; rows with the same integer are not negatives of each other. Default: all
      differ.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: as `info_nce`, or as `weigh`.

  References:
    [1] Sow et al., Dynamic Loss-Based Sample Reweighting for Improved Large Language Model
      Pretraining, 2025, https://arxiv.org/abs/2502.06733.

  >>> eye = jnp.eye(4)
  >>> round(float(reweighted_info_nce(eye, eye, scale=1.0)), 4)      # log(e + 3) − 1
  0.7437
  """
  return jnp.mean(
    reweighted_info_nce_per_example(
      image,
      text,
      scale=scale,
      strategy=strategy,
      temperature=temperature,
      burn_in=burn_in,
      step=step,
      same=same,
      block_size=block_size,
      mesh=mesh,
    )
  )


def reweighted_info_nce_per_example(
  image: jax.Array,
  text: jax.Array,
  *,
  scale: jax.Array | float,
  strategy: str = 'linupper',
  temperature: float = 1.0,
  burn_in: int = 0,
  step: jax.Array | None = None,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The weighted loss of each pair [B], of which `reweighted_info_nce` is the mean.

      Lᵢ = B wᵢ lᵢ

  It takes the same arguments.

  >>> eye = jnp.eye(2)
  >>> losses = reweighted_info_nce_per_example(eye, eye, scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  losses = info_nce_per_example(
    image, text, scale=scale, same=same, block_size=block_size, mesh=mesh
  )
  weights = len(losses) * weigh(losses, strategy=strategy, temperature=temperature)
  if burn_in and step is not None:
    weights = jnp.where(step < burn_in, 1.0, weights)
  return weights * losses


def weigh(losses: jax.Array, *, strategy: str = 'linupper', temperature: float = 1.0) -> jax.Array:
  """The weights of samples by their losses.

      w = softmax( f(h) / temperature ),   h = spread(losses)

  - linupper: f = min(h + 1, 1). Losses below the middle weigh less, those above it are equal.
  - quadratic: f = 1 − h². Losses in the middle weigh most.
  - extremes: f = |h|. Losses in the middle weigh least.
  - upper: f = (h + 1) / 2. Weights grow with the loss.

  f lies in [0, 1], so the ratio of two weights is at most exp(1 / temperature).

  Args:
    losses: [B].
    strategy: a key of `STRATEGIES`.
    temperature: over 0; infinity gives equal weights.

  Returns:
    [B], of sum 1, without a gradient.

  Raises:
    ValueError: if the strategy is unknown, or the temperature is not over 0.

  >>> weigh(jnp.array([1.0, 2.0]), temperature=float('inf'))
  Array([0.5, 0.5], dtype=float32)
  """
  if strategy not in STRATEGIES:
    raise ValueError(f'strategy = {strategy!r} is unknown; use one of {sorted(STRATEGIES)}')
  if not temperature > 0:
    raise ValueError(f'temperature = {temperature}; use a number over 0')
  return jax.nn.softmax(STRATEGIES[strategy](spread(losses)) / temperature)


def spread(losses: jax.Array) -> jax.Array:
  """Losses [B] mapped linearly to [−1, 1]; 0 where all are equal. No gradient.

  >>> spread(jnp.array([3.0, 4.0, 5.0]))
  Array([-1.,  0.,  1.], dtype=float32)
  """
  losses = jax.lax.stop_gradient(losses)
  least, greatest = losses.min(), losses.max()
  # Differences to both ends, rather than to the middle, make the ends exact.
  return ((losses - least) - (greatest - losses)) / jnp.maximum(greatest - least, 1e-6)
