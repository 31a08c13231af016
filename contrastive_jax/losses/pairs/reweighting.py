"""InfoNCE whose pairs weigh by their own loss."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise

# From a pair's place h in the spread of the losses, −1 the least and 1 the greatest.
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
  """Symmetric InfoNCE in which each pair weighs by its own loss [1].

      L = Σᵢ wᵢ lᵢ,   w as `weigh` gives them, without a gradient
      lᵢ = ½ ( logsumexpⱼ sᵢⱼ + logsumexpⱼ sⱼᵢ ) − sᵢᵢ,   s = scale · image textᵀ

  Equal weights give `info_nce`. [1] weighs the texts that a language model learns from; here a pair
  is what it calls a sample, and its high temperature of the first steps is an infinite one.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature of the similarities.
    strategy: which losses weigh more, see `weigh`.
    temperature: of the weights; the higher, the more equal they are.
    burn_in: steps in which all pairs weigh the same.
    step: the number of this step, from 0; None: the burn-in is over.
    same: [B] integers; two rows with the same integer are not negatives of each other. Default:
      all differ.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the batch is sharded, by its axes named 'data' and 'fsdp' (others hold
      copies); None for one device.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, or as `weigh`.

  References:
    [1] Sow et al., Dynamic Loss-Based Sample Reweighting for Improved Large Language Model
      Pretraining, 2025.

  >>> eye = jnp.eye(4)
  >>> round(float(reweighted_info_nce(eye, eye, scale=1.0)), 4)      # log(e + 3) − 1
  0.7437
  """
  if image.shape != text.shape:
    raise ValueError(f'image {image.shape} and text {text.shape} differ; give two [B, D]')
  rows, columns = pairwise.logsumexp(
    image, text, scale=scale, exclude=same, block_size=block_size, mesh=mesh
  )
  losses = (rows + columns) / 2 - scale * pairwise.paired(image, text)
  weights = weigh(losses, strategy=strategy, temperature=temperature)
  if burn_in and step is not None:
    weights = jnp.where(step < burn_in, 1 / len(losses), weights)
  return jnp.sum(weights * losses)


def weigh(losses: jax.Array, *, strategy: str = 'linupper', temperature: float = 1.0) -> jax.Array:
  """The weights of samples by their losses.

      w = softmax( f(h) / temperature ),   h = the losses, spread linearly over [−1, 1]

  - linupper: f = min(h + 1, 1). Samples below the middle weigh less, all above it the same.
  - quadratic: f = 1 − h². Those in the middle weigh most.
  - extremes: f = |h|. Those in the middle weigh least.
  - upper: f = (h + 1) / 2. The greater the loss, the greater the weight.

  f lies in [0, 1], so that no weight is more than exp(1 / temperature) times another.

  Args:
    losses: [B].
    strategy: of `STRATEGIES`.
    temperature: over 0; infinity gives equal weights.

  Returns:
    [B], of sum 1, without a gradient.

  Raises:
    ValueError: if the strategy is unknown, or the temperature is not over 0.
  """
  if strategy not in STRATEGIES:
    raise ValueError(f'strategy = {strategy!r} is unknown; use one of {sorted(STRATEGIES)}')
  if not temperature > 0:
    raise ValueError(f'temperature = {temperature}; use a number over 0')
  return jax.nn.softmax(STRATEGIES[strategy](spread(losses)) / temperature)


def spread(losses: jax.Array) -> jax.Array:
  """Losses [B] mapped linearly so that the least is −1 and the greatest 1; equal ones are 0."""
  losses = jax.lax.stop_gradient(losses)
  least, greatest = losses.min(), losses.max()
  # The differences rather than the middle: the ends are exact then.
  return ((losses - least) - (greatest - losses)) / jnp.maximum(greatest - least, 1e-6)
