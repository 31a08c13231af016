"""A small network for super-resolution, and the discriminator that it is trained with."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models.stem import convolution

_START = 0.01  # of the detail's kernel: training starts near bicubic enlargement


class Generator(nnx.Module):
  """Enlarges images: residual blocks without norm, then a shuffle of channels to pixels, as EDSR.

  It adds to the bicubic enlargement, and is fully convolutional.

  Args:
    width: channels.
    blocks: number of residual blocks of two 3 x 3 convolutions.
    upscale: factor of the side.
    rngs: draws the parameters.

  References:
    Lim et al., Enhanced Deep Residual Networks for Single Image Super-Resolution, 2017.
  """

  def __init__(self, width: int, blocks: int, upscale: int, *, rngs: nnx.Rngs):
    make = {'dtype': jnp.float32, 'rngs': rngs}
    self.upscale = upscale
    self.first = convolution(3, width, **make)
    self.blocks = nnx.List(
      [
        nnx.List(
          [convolution(width, width, **make), convolution(width, width, depth=blocks, **make)]
        )
        for _ in range(blocks)
      ]
    )
    self.last = convolution(width, 3 * upscale**2, **make)
    self.last.kernel[...] *= _START

  def __call__(self, images):
    """Maps images [B, H, W, 3] from 0 to 1 to [B, U H, U W, 3], unclipped."""
    B, H, W, _ = images.shape
    U = self.upscale
    x = self.first(images)
    for before, after in self.blocks:
      x = x + after(jax.nn.relu(before(x)))
    detail = self.last(x).reshape(B, H, W, U, U, 3).swapaxes(2, 3).reshape(B, U * H, U * W, 3)
    return enlarge(images, U) + detail


class Discriminator(nnx.Module):
  """Tells real from restored images by patches; its features are compared by `restoration`.

  Args:
    width: channels of the first layer; each further layer halves the side and doubles them.
    layers: number of layers.
    rngs: draws the parameters.
  """

  def __init__(self, width: int, layers: int, *, rngs: nnx.Rngs):
    make = {'dtype': jnp.float32, 'rngs': rngs}
    widths = [3, *(width << n for n in range(layers))]
    self.layers = nnx.List(
      [
        convolution(before, after, strides=1 + (n > 0), **make)
        for n, (before, after) in enumerate(itertools.pairwise(widths))
      ]
    )
    self.head = convolution(widths[-1], 1, **make)

  def __call__(self, images):
    """Maps images [B, H, W, 3] to logits [B, h, w], over 0 for real, and features per layer."""
    x, features = images, []
    for layer in self.layers:
      x = jax.nn.leaky_relu(layer(x), 0.2)
      features.append(x)
    return self.head(x)[..., 0], features


def enlarge(images: jax.Array, upscale: int) -> jax.Array:
  """Bicubic enlargement of images [B, H, W, 3] to [B, U H, U W, 3]."""
  B, H, W, C = images.shape
  return jax.image.resize(images, (B, upscale * H, upscale * W, C), 'cubic')


def reduce(images: jax.Array, upscale: int) -> jax.Array:
  """Bicubic reduction, antialiased, of images [B, U H, U W, 3] to [B, H, W, 3]."""
  B, H, W, C = images.shape
  return jax.image.resize(images, (B, H // upscale, W // upscale, C), 'cubic', antialias=True)
