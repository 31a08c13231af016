"""An encoder of images alone: a tower, and a projector for the loss."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import towers, transformer
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.outputs import Outputs


class Encoder(nnx.Module):
  """Contrastive pretraining on views of images, as in SimCLR and MoCo v2.

  Losses compare embeddings, and evaluations the features before the projector.

  Args:
    embed: D, the width of the embeddings.
    image: arguments of the image tower, see `Clip`.
    projector: widths of the hidden layers of the projector, a multilayer perceptron without norm
      from the features to D, as MoCo v2's; () for none: the embeddings are the features, and D is
      their width.
    scale: the inverse temperature at the start.
    dtype: of the activations and the matmuls, 'float32' or 'bfloat16'; parameters are float32.
    remat: what the transformer's layers keep for the backward pass, see `transformer.REMATS`; the
      tower may have its own.
    attention: implementation of attention, see `attention.select`; likewise.
    rngs: draws the parameters.

  References:
    Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020.
    Chen et al., Improved Baselines with Momentum Contrastive Learning, 2020.
  """

  # Names of a batch that `encode` reads.
  inputs = ('image',)

  def __init__(
    self,
    embed: int,
    image: dict[str, Any],
    *,
    projector: Sequence[int] = (),
    scale: float = 1 / 0.07,
    dtype: str = 'float32',
    remat: str = 'none',
    attention: str = 'auto',
    rngs: nnx.Rngs,
  ):
    make = {'dtype': jnp.dtype(dtype), 'rngs': rngs}
    shared = {'remat': remat, 'attention': attention}
    self.image = towers.image_tower({**shared, **image}, **make)
    width = self.image.width
    if not projector and width != embed:
      raise ValueError(
        f"projector = () needs the image tower's {width} features to equal embed = {embed}; use as "
        f'many, or hidden widths such as projector = ({width},)'
      )
    widths = [width, *projector, embed] if projector else [width]
    self.projector = nnx.List(
      [
        Linear(before, after, ('embed', 'mlp'), (2 / before) ** 0.5, **make)
        for before, after in itertools.pairwise(widths)
      ]
    )
    self.log_scale = nnx.Param(jnp.float32(math.log(scale)), axes=())

  def encode_image(self, images, *, keys=None):
    """Unit vectors [B, W] of images [B, H, W, 3], normalized floats: the features."""
    return transformer.unit(self.image(images, keys=keys)[0])

  def image_embedding(self, images, *, keys=None, **kept):
    """Unit vectors [B, D] of images, pooled features [B, W] before the projector, and tokens.

    `kept` are the patches that an `ImageTower` sees, in place of those that keys choose.
    """
    features, tokens = self.image(images, keys=keys, **kept)
    return self.project(features), features, tokens

  def project(self, features):
    """Unit vectors [B, D] of pooled features [B, W]."""
    x = features
    for index, layer in enumerate(self.projector):
      x = layer(jax.nn.relu(x) if index else x)
    return transformer.unit(x)

  def encode(self, batch, *, keys=None) -> Outputs:
    """Encodes the batch's `image`."""
    image, features, tokens = self.image_embedding(batch['image'], keys=keys)
    return Outputs(
      image=image,
      image_features=features,
      image_tokens=tokens,
      scale=jnp.exp(self.log_scale[...]),
    )
