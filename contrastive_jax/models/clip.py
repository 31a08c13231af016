"""CLIP: two towers, two projections and a learned scale."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx, struct

from contrastive_jax.models import transformer
from contrastive_jax.models.image import ImageTower
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.text import TextTower


@struct.dataclass
class Outputs:
  """What a model says of a batch; the losses take these by name.

  Attributes:
    image: [B, D] unit vectors.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    bias: scalar added to each similarity, or None.
    caption_logits: [B, L-1, V], position t predicts token t+1; None without a captioner.
  """

  image: jax.Array
  text: jax.Array
  scale: jax.Array
  bias: jax.Array | None = None
  caption_logits: jax.Array | None = None


class Clip(nnx.Module):
  """Contrastive language-image pretraining.

  Args:
    embed: D, the width of the shared space.
    image: arguments of `ImageTower`.
    text: arguments of `TextTower`.
    scale: the inverse temperature at the start.
    bias: added to each similarity, learned from this start (SigLIP); None for no bias.
    dtype: of the activations and the matmuls, 'float32' or 'bfloat16'; parameters are float32.
    rngs: draws the parameters.

  References:
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
  """

  def __init__(
    self,
    embed: int,
    image: dict[str, Any],
    text: dict[str, Any],
    *,
    scale: float = 1 / 0.07,
    bias: float | None = None,
    dtype: str = 'float32',
    rngs: nnx.Rngs,
  ):
    make = {'dtype': jnp.dtype(dtype), 'rngs': rngs}
    self.image = ImageTower(**image, **make)
    self.text = TextTower(**text, **make)
    self.image_projection = Linear(
      image['width'], embed, ('embed', None), image['width'] ** -0.5, bias=False, **make
    )
    self.text_projection = Linear(
      text['width'], embed, ('embed', None), text['width'] ** -0.5, bias=False, **make
    )
    self.log_scale = nnx.Param(jnp.float32(math.log(scale)), axes=())
    self.bias = None if bias is None else nnx.Param(jnp.float32(bias), axes=())

  def encode_image(self, images, *, key=None):
    """Unit vectors [B, D] of images [B, H, W, 3], normalised floats."""
    return transformer.unit(self.image_projection(self.image(images, key=key)[0]))

  def encode_text(self, tokens):
    """Unit vectors [B, D] of tokens [B, L]."""
    return transformer.unit(self.text_projection(self.text(tokens)[0]))

  def __call__(self, images, tokens, *, key=None) -> Outputs:
    """Encodes a batch.

    Args:
      images: [B, H, W, 3] floats, normalised.
      tokens: [B, L] integers, padded with 0.
      key: a random key, in training alone.

    Raises:
      ValueError: if the images or tokens have another shape than the model was built for.
    """
    return Outputs(
      image=self.encode_image(images, key=key),
      text=self.encode_text(tokens),
      scale=jnp.exp(self.log_scale[...]),
      bias=None if self.bias is None else self.bias[...],
    )
