"""SupReMix: contrastive regression of a number per image."""

import dataclasses

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.methods.lift import streamed
from contrastive_jax.methods.method import Method, Result


@dataclasses.dataclass(frozen=True, kw_only=True)
class SupReMix(Method):
  """`losses.supremix` [1] of several views of each image, with shares that are drawn per anchor.

  Without mixtures and weights it is SupCon, whose positives are all views of equal numbers.

  Attributes:
    scale: inverse temperature.
    mix_negatives: whether there are negative mixtures.
    window: of the positive mixtures, in units; 0 for none.
    weighted: whether distances weigh.
    unit: of the numbers, which are divided by it and rounded.
    beta_own: first parameter of the beta distribution of the anchor's own share in its negative
      mixtures, over 0. One share per anchor is ours.
    beta_other: the second parameter, over 0.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: if an option is out of range.

  References:
    [1] Wu et al., Mixup Your Own Pairs, 2023, https://arxiv.org/abs/2309.16633.
  """

  scale: float = 1 / 0.3
  mix_negatives: bool = True
  window: int = 5
  weighted: bool = True
  unit: float = 1.0
  beta_own: float = 2.0
  beta_other: float = 8.0
  mesh: jax.sharding.Mesh | None = None

  reads = ('views:2', 'number')

  def __post_init__(self):
    for name in ('scale', 'unit', 'beta_own', 'beta_other'):
      if not (value := getattr(self, name)) > 0:
        raise ValueError(f'{name} = {value}; use a number over 0')
    if self.window < 0 or self.window != int(self.window):
      raise ValueError(f'window = {self.window}; use a whole number of 0 or more')

  def loss(self, inputs, heads, memory, key):
    """The loss of all views, with shares that `key` draws."""
    B, V, D = inputs['views'].shape
    numbers = jnp.repeat(inputs['number'], V)
    shares = None
    if self.mix_negatives:
      shares = jax.random.beta(key, self.beta_own, self.beta_other, (B * V,))
    loss = losses.supremix(
      inputs['views'].reshape(B * V, D),
      numbers,
      shares,
      scale=self.scale,
      window=self.window,
      weighted=self.weighted,
      unit=self.unit,
      mesh=self.mesh,
    )
    return Result(loss)

  def flops(self, sizes):
    """Four products per pair of views for the logsumexp, three for positives, four for mixtures."""
    mixtures = 4 * bool(self.mix_negatives or self.window)
    return sizes.views**2 * streamed(7 + mixtures)(sizes)
