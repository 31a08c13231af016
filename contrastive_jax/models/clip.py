"""CLIP: two towers, two projections and a learned scale."""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import activations, towers, transformer
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.outputs import Outputs

PROJECTIONS = ('linear', 'affine', 'mlp', 'mlp_mean', 'none')


class Clip(nnx.Module):
  """Contrastive language-image pretraining.

  Args:
    embed: D, the width of the shared space.
    image: arguments of the image tower, by default an `ImageTower`; `tower` names another, see
      `towers`.
    text: arguments of the text tower, by default a `TextTower`; likewise.
    image_projection: projection from the tower's width to D: 'linear', 'affine' (with a bias),
      'mlp' (timm's MLP of 2 D hidden units), 'mlp_mean' (open_clip's over Hugging Face's text
      towers: as many hidden units as the mean of the tower's width and D, no biases), or 'none'
      (the width is D).
    text_projection: likewise for text.
    scale: initial inverse temperature.
    bias: initial value of the learned bias of similarities (SigLIP); None for no bias.
    dtype: dtype of activations and matmuls, 'float32' or 'bfloat16'; parameters are float32.
    remat: rematerialization of the transformers' layers, see `transformer.REMATS`; a tower may have
      its own.
    attention: implementation of attention, see `attention.select`; a tower may have its own.
    rngs: initializes the parameters.

  References:
    Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
  """

  # Names of a batch that `encode` reads.
  inputs = ('image', 'tokens')

  def __init__(
    self,
    embed: int,
    image: dict[str, Any],
    text: dict[str, Any],
    *,
    image_projection: str = 'linear',
    text_projection: str = 'linear',
    scale: float = 1 / 0.07,
    bias: float | None = None,
    dtype: str = 'float32',
    remat: str = 'none',
    attention: str = 'auto',
    rngs: nnx.Rngs,
  ):
    make = {'dtype': jnp.dtype(dtype), 'rngs': rngs}
    shared = {'remat': remat, 'attention': attention}
    self.image = towers.image_tower({**shared, **image}, **make)
    self.text = towers.text_tower({**shared, **text}, **make)
    self.image_projection = projection('image', image_projection, self.image.width, embed, make)
    self.text_projection = projection('text', text_projection, self.text.width, embed, make)
    self.log_scale = nnx.Param(jnp.float32(math.log(scale)), axes=())
    self.bias = None if bias is None else nnx.Param(jnp.float32(bias), axes=())

  def encode_image(self, images, *, keys=None):
    """Unit vectors [B, D] of images [B, H, W, 3], normalized floats."""
    return self.image_embedding(images, keys=keys)[0]

  def encode_text(self, tokens):
    """Unit vectors [B, D] of tokens [B, L]."""
    return self.text_embedding(tokens)[0]

  def image_embedding(self, images, *, keys=None):
    """Unit vectors [B, D] of images, pooled features [B, W] before the projection, and tokens."""
    features, tokens = self.image(images, keys=keys)
    return project(self.image_projection, features), features, tokens

  def text_embedding(self, tokens, *, keys=None):
    """Unit vectors [B, D] of tokens, and the pooled features [B, W] before the projection."""
    features = self.text(tokens, keys=keys)[0]
    return project(self.text_projection, features), features

  def encode(self, batch, *, keys=None) -> Outputs:
    """Encodes the batch's `image` and `tokens`."""
    return self(batch['image'], batch['tokens'], keys=keys)

  def __call__(self, images, tokens, *, keys=None) -> Outputs:
    """Encodes a batch.

    Args:
      images: [B, H, W, 3] floats, normalized.
      tokens: [B, L] integers, padded with 0.
      keys: [B] random keys, one per example; only for training.

    Raises:
      ValueError: if images or tokens have a shape that the model does not take.
    """
    image, image_features, image_tokens = self.image_embedding(images, keys=keys)
    text_features, text_tokens = self.text(tokens, keys=keys)
    return Outputs(
      image=image,
      text=project(self.text_projection, text_features),
      image_features=image_features,
      text_features=text_features,
      image_tokens=image_tokens,
      text_tokens=text_tokens,
      scale=jnp.exp(self.log_scale[...]),
      bias=None if self.bias is None else self.bias[...],
    )


class MlpProjection(nnx.Module):
  """An MLP as a projection: hidden units, a GELU, and D outputs without bias."""

  def __init__(self, width, embed, hidden, *, bias, dtype, rngs):
    make = {'dtype': dtype, 'rngs': rngs}
    self.up = Linear(width, hidden, ('embed', 'mlp'), width**-0.5, bias=bias, **make)
    self.down = Linear(hidden, embed, ('mlp', None), hidden**-0.5, bias=False, **make)

  def __call__(self, features):
    """Maps [B, W] to [B, D]."""
    return self.down(activations.gelu(self.up(features)))


def projection(tower: str, kind: str, width: int, embed: int, make: dict[str, Any]):
  """A projection from a tower's width to the shared space, of a kind of `PROJECTIONS`."""
  transformer.choose(f'{tower}_projection', kind, dict.fromkeys(PROJECTIONS))
  if kind == 'mlp':
    return MlpProjection(width, embed, 2 * embed, bias=True, **make)
  if kind == 'mlp_mean':
    return MlpProjection(width, embed, (width + embed) // 2, bias=False, **make)
  if kind != 'none':
    return Linear(width, embed, ('embed', None), width**-0.5, bias=kind == 'affine', **make)
  if width != embed:
    raise ValueError(
      f"{tower}_projection = 'none' needs the tower's {width} features to equal embed = {embed}; "
      "use as many, or another projection, such as 'linear'"
    )
  return None


def project(projection, features):
  """Unit vectors of the shared space."""
  return transformer.unit(features if projection is None else projection(features))
