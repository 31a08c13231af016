"""MAE: a masked autoencoder."""

import dataclasses

import jax
import jax.numpy as jnp

from contrastive_jax.methods.method import Method, Result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mae(Method):
  """The reconstruction loss of a masked autoencoder, MAE [1].

      L = mean over the batch and the masked patches of l

  l is the mean squared error of a patch whose pixels are normalized by their own mean and
  deviation, see `losses.patch_errors`. The model draws the masked patches, a share
  `config.model.image.patch_dropout` of all, and computes their errors, see `MaskedAutoencoder`: the
  loss reads a number per patch, and no pixels.

  References:
    [1] He et al., https://arxiv.org/abs/2111.06377
  """

  mesh: jax.sharding.Mesh | None = None

  @property
  def reads(self) -> tuple[str, ...]:
    """Errors of the masked patches."""
    return ('patch_errors',)

  def loss(self, inputs, heads, memory, key):
    """The mean error."""
    return Result(jnp.mean(inputs['patch_errors']))
