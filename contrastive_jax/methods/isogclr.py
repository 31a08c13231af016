"""iSogCLR: SogCLR with a temperature per example."""

import dataclasses

import jax.numpy as jnp

from contrastive_jax.losses.checks import check_share
from contrastive_jax.methods.memory import table
from contrastive_jax.methods.sogclr import SogClr


@dataclasses.dataclass(frozen=True, kw_only=True)
class ISogClr(SogClr):
  """iSogCLR [1]: SogCLR as a robust objective, with a temperature per example.

      F = mean( τ_i log mean_j exp(h_ij / τ_i) + τ_i ρ )

  τ_i follows a clipped gradient descent with momentum; see `SogClr` for the rest.

  The authors' values for images are temperature 0.07, bounds (0.05, 1.0), learning_rate 1e-3 and
  clip 3.

  Attributes:
    temperature: at the start, of every example.
    bounds: of the temperatures.
    rho: ρ; the fixed point has KL(softmax, uniform) = ρ, so it lies within the bounds only where
      ρ < log of the number of negatives.
    learning_rate: η of the temperatures; 0 for SogCLR.
    beta: β of u ← (1 − β) u + β gradient.
    clip: bound of a temperature's gradient.

  Raises:
    ValueError: if a share or a bound is out of range.

  References:
    [1] Qiu et al., https://arxiv.org/abs/2305.11965; formulas as in
      zhqiu/contrastive-learning-iSogCLR: unimodal_exps/losses.py, bimodal_exps/models/losses.py.
  """

  bounds: tuple[float, float] = (0.005, 0.05)
  rho: float = 6.0
  learning_rate: float = 0.03
  beta: float = 0.9
  clip: float = 5.0

  def __post_init__(self):
    super().__post_init__()
    check_share('beta', self.beta)
    if len(self.bounds) != 2 or not 0 < self.bounds[0] <= self.temperature <= self.bounds[1]:
      raise ValueError(
        f'temperature = {self.temperature} and bounds = {self.bounds}; use 0 < low <= temperature '
        '<= high'
      )

  def memory(self, sizes):
    """Tables of log s, τ and u."""
    start = {'temperature': self.temperature, 'momentum': 0.0}
    return super().memory(sizes) | {
      f'{side}.{name}': table(sizes.examples, value)
      for side in self.sides
      for name, value in start.items()
    }

  def temperatures(self, own):
    """The temperatures [B] of the batch's anchors, by side."""
    return {side: own[f'{side}.temperature'] for side in self.sides}

  def move(self, side, own, log_mean, mean):
    """A step of the temperatures, see `SogClr.move`."""
    slope = jnp.clip(log_mean + self.rho - mean, -self.clip, self.clip)
    momentum = (1 - self.beta) * own[f'{side}.momentum'] + self.beta * slope
    moved = own[f'{side}.temperature'] - self.learning_rate * momentum
    return {'momentum': momentum, 'temperature': jnp.clip(moved, *self.bounds)}
