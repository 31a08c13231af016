"""CLIP's ResNet: an image tower with batch norm."""

import re
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.attention import attend
from contrastive_jax.models.image import check_images, resize_positions
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.stages import (
  check_pooling,
  check_size,
  check_stages,
  describe_stages,
  visit,
)
from contrastive_jax.models.stem import BatchNorm, Convolution, kernel_axes

# Channels of a block's output, in those of its 3 x 3 convolution.
EXPANSION = 4


def average_pool(x: jax.Array) -> jax.Array:
  """Averages squares of 2 x 2: [B, H, W, C] to [B, H / 2, W / 2, C]."""
  B, H, W, C = x.shape
  return jnp.mean(x.reshape(B, H // 2, 2, W // 2, 2, C), axis=(2, 4))


class NormalizedConvolution(nnx.Module):
  """A convolution of `side` x `side` without bias, and batch norm; initialized as in PyTorch."""

  def __init__(self, inputs, outputs, side, *, stride=1, groups=1, scale=1.0, dtype, rngs):
    """`scale` is the initial scale of the norm."""
    make = {'dtype': dtype, 'rngs': rngs}
    std = (3 * side * side * inputs / groups) ** -0.5
    if side == stride == groups == 1:
      axes = ('embed', 'channels') if outputs < inputs else ('channels', 'embed')
      self.convolution = Linear(inputs, outputs, axes, std, bias=False, **make)
    else:
      self.convolution = Convolution(
        inputs,
        outputs,
        (side, side),
        strides=stride,
        padding=((side // 2, side // 2),) * 2,
        feature_group_count=groups,
        use_bias=False,
        kernel_init=transformer.normal(std, *kernel_axes(inputs, groups)),
        **make,
      )
    self.norm = BatchNorm(outputs, scale=scale, **make)

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H / stride, W / stride, D]."""
    return self.norm(self.convolution(x))


class Bottleneck(nnx.Module):
  """Convolutions of 1, 3 and 1 beside a shortcut; with `halve` an average pool before the last."""

  def __init__(self, inputs, width, *, halve, dtype, rngs):
    make = {'dtype': dtype, 'rngs': rngs}
    outputs = EXPANSION * width
    self.halve = halve
    self.reduce = NormalizedConvolution(inputs, width, 1, **make)
    self.middle = NormalizedConvolution(width, width, 3, **make)
    self.expand = NormalizedConvolution(width, outputs, 1, scale=0.0, **make)
    needed = halve or inputs != outputs
    self.shortcut = NormalizedConvolution(inputs, outputs, 1, **make) if needed else None

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H, W, D], or with `halve` to [B, H / 2, W / 2, D]."""
    pool = average_pool if self.halve else lambda x: x
    y = jax.nn.relu(self.middle(jax.nn.relu(self.reduce(x))))
    x = x if self.shortcut is None else self.shortcut(pool(x))
    return jax.nn.relu(x + self.expand(pool(y)))


class MeanAttentionPool(nnx.Module):
  """The mean of the tokens attends to itself and to the tokens.

  CLIP's attention pool without its output, which is the projection of the model.
  """

  def __init__(self, tokens, width, heads, *, implementation='auto', dtype, rngs):
    if width % heads:
      raise ValueError(f'image.heads = {heads} does not divide the {width} features of the ResNet')
    self.implementation = implementation
    make = {'dtype': dtype, 'rngs': rngs}
    shape, std = (heads, width // heads), width**-0.5
    self.positions = transformer.position_table(1 + tokens, width, std, rngs=rngs)
    self.query = Linear(width, shape, ('embed', 'heads', None), std, **make)
    self.key_value = Linear(width, (2, *shape), ('embed', None, 'heads', None), std, **make)

  def __call__(self, tokens):
    """Pools tokens [B, P, W] to [B, W]."""
    tokens = jnp.concatenate([tokens.mean(axis=1, keepdims=True), tokens], axis=1)
    tokens = transformer.add_parameter(tokens, self.positions[...])
    key_value = self.key_value(tokens)
    pooled = attend(
      self.query(tokens[:, :1]),
      key_value[..., 0, :, :],
      key_value[..., 1, :, :],
      implementation=self.implementation,
    )
    return pooled.reshape(len(tokens), -1)


class ResNet(nnx.Module):
  """The ResNet of CLIP [1]: three convolutions as its stem, anti-aliased strides, attention pool.

  The running statistics of its batch norms are variables, see `stem.BatchNorm`. The output of the
  attention pool is the model's image projection, 'affine'.

  Attributes:
    size: side of the square images, in pixels, a multiple of 32.
    width: channels after the stem; the pooled vectors have W = 32 times as many.
    layers: blocks of each of the four stages.
    heads: number of heads of the attention pool.
    pooling: 'attention', or 'none' for no pooled vectors.
    remat: rematerialization of the blocks, see `transformer.REMATS`.
    attention: see `attention.select`; one query always takes 'xla'.

  References:
    [1] Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
  """

  # Kernels that are applied to pixels, which have no gradient.
  on_pixels = ('stem/0/',)

  def __init__(
    self,
    size: int,
    width: int,
    layers: Sequence[int],
    heads: int,
    *,
    pooling: str = 'attention',
    remat: str = 'none',
    attention: str = 'auto',
    dtype,
    rngs,
  ):
    check_stages('ResNet', size, layers)
    check_pooling(pooling, 'attention')
    if width % 2:
      raise ValueError(f'image.width = {width} is odd; the first convolutions have half of it')
    make = {'dtype': dtype, 'rngs': rngs}
    self.size, self.remat = size, transformer.choose('remat', remat, transformer.REMATS)
    half = width // 2
    self.stem = nnx.List(
      [
        NormalizedConvolution(3, half, 3, stride=2, **make),
        NormalizedConvolution(half, half, 3, **make),
        NormalizedConvolution(half, width, 3, **make),
      ]
    )
    self.stages, inputs = nnx.List([]), width
    for stage, blocks in enumerate(layers):
      channels, built = width << stage, []
      for block in range(blocks):
        halve = stage > 0 and block == 0
        built.append(Bottleneck(inputs, channels, halve=halve, **make))
        inputs = EXPANSION * channels
      self.stages.append(nnx.List(built))
    self.width = inputs
    pool = partial(MeanAttentionPool, (size // 32) ** 2, inputs, heads, implementation=attention)
    self.pool = None if pooling == 'none' else pool(**make)

  def __call__(self, images, *, keys=None):
    """Encodes images [B, size, size, 3] to pooled vectors [B, W] and tokens [B, P, W].

    The tokens are the features at each of P = (size / 32)² positions. With pooling 'none' the
    vectors are None. `keys` have no effect.
    """
    del keys
    check_images(images, self.size)
    x = images
    for convolution in self.stem:
      x = jax.nn.relu(convolution(x))
    x = average_pool(x)
    for stage in self.stages:
      for block in stage:
        x = visit(block, x, self.remat)
    tokens = x.reshape(len(x), -1, self.width)
    return None if self.pool is None else self.pool(tokens), tokens

  @staticmethod
  def lengths(fields, path):
    """Positions per image that the kernel at a path is applied to, and keys they attend to."""
    side = fields['size'] // (2 if path else 32)
    if path.startswith('pool/'):
      return 1, (fields['size'] // 32) ** 2 + 1
    if block := re.match(r'stages/(\d+)/(\d+)/(\w+)/', path):
      stage, number = int(block[1]), int(block[2])
      # The average pool precedes the last convolution, and the shortcut's.
      before = stage > 0 and number == 0 and block[3] in ('reduce', 'middle')
      side = fields['size'] // 4 >> stage - before
    return side * side, side * side

  @staticmethod
  def resize(fields, parameters, size):
    """Returns the parameters for another size of the images, see `interop.Model.resize`."""
    check_size('image_size', size, 'ResNet')
    if 'pool' not in parameters:
      return parameters
    pool = parameters['pool']
    old, new = (side // 32 for side in (fields['size'], size))
    positions = resize_positions(pool['positions'], old, new)
    return {**parameters, 'pool': {**pool, 'positions': positions}}

  @staticmethod
  def describe(fields):
    """Describes the tower in a model card."""
    return f'a ResNet of {describe_stages(fields)}'
