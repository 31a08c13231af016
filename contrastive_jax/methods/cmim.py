"""cMIM: a probabilistic autoencoder whose latents are told apart, without augmentation."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.losses.views.mim import DIVIDED
from contrastive_jax.methods.latent_autoencoder import LatentAutoencoder
from contrastive_jax.methods.lift import streamed
from contrastive_jax.methods.method import Arrays, Result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cmim(LatentAutoencoder):
  """cMIM [1]: a Mutual Information Machine (MIM) [2] with a contrastive term on its latents.

      L = contrast · L_contrast + L_densities − reconstruction · log p(x | z)

  L_contrast is `losses.mim_contrast` and L_densities `losses.mim_densities`, of the sampled latents
  z of a `LatentAutoencoder`. Without the contrastive term it is A-MIM. The likelihood of pixels is
  our reading; −log p is a mean per value, as per token, so a `reconstruction` of w stands for a
  variance of 1 / w.

  Evaluation sees the features before the heads, as those before a projector; `informative` gives
  the embeddings that the paper reads from the decoder.

  Attributes:
    contrast: weight of the contrastive term.
    reconstruction: weight of the reconstruction, 1 in the authors' code.
    scale: the inverse of the contrastive temperature.
    divide: whether D divides the densities, see `losses.mim_densities`.

  Raises:
    ValueError: for an unknown name, or sizes that do not divide.

  References:
    [1] Livne, Contrastive MIM, 2025, https://arxiv.org/abs/2502.19642; formulas and default sizes
      as in NVIDIA-BioNeMo/KERMT: kermt/model/models.py, kermt/util/parsing.py.
    [2] Livne et al., MIM: Mutual Information Machine, 2019, https://arxiv.org/abs/1910.03175
  """

  contrast: float = 1.0
  reconstruction: float = 1.0
  scale: float = 10.0
  divide: str = 'none'

  def __post_init__(self):
    super().__post_init__()
    if self.divide not in DIVIDED:
      raise ValueError(f'divide = {self.divide!r} is unknown; use one of {DIVIDED}')

  def loss(self, inputs, heads, memory, key):
    """The three terms, of latents that `key` draws."""
    mean, log_scale = self.gaussian(inputs, heads)
    latents = mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape)
    contrast = losses.mim_contrast(latents, scale=self.scale, mesh=self.mesh)
    densities = losses.mim_densities(latents, mean, log_scale, divide=self.divide)
    reconstruction = self.decode_error(inputs, heads, latents)
    loss = self.contrast * contrast + densities + self.reconstruction * reconstruction
    metrics = {'contrast': contrast, 'densities': densities, 'reconstruction': reconstruction}
    return Result(loss, metrics=metrics | {'log_scale': jnp.mean(log_scale)})

  def informative(self, inputs: Arrays, heads: Mapping[str, Any]) -> jax.Array:
    """The informative embeddings of [1]: the decoder's mean state, with z at its mean.

    Args:
      inputs: features, and the tokens if they are decoded.
      heads: modules by name.

    Returns:
      [B, C], the mean over the patches, or over the positions that predict a token.
    """
    states = self.states(inputs, heads, self.gaussian(inputs, heads)[0])
    if self.decode == 'pixels':
      return jnp.mean(states, 1)
    return jnp.mean(states, 1, where=inputs['tokens'][:, 1:, None] != 0)

  def flops(self, sizes):
    """The products of pairs, the linear head and the decoder."""
    return super().flops(sizes) + streamed()(sizes._replace(embed=self.latent))
