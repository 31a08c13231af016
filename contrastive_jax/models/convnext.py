"""ConvNeXt: a convolutional image tower with layer norm."""

import itertools
from collections.abc import Sequence
from functools import partial

from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.image import check_images
from contrastive_jax.models.layer_scale import LayerScale
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.stages import (
  check_pooling,
  check_size,
  check_stages,
  describe_stages,
  path_drops,
  visit,
)
from contrastive_jax.models.stem import Convolution, kernel_axes

# Of the initial kernels, as in the paper.
_STD = 0.02
# Of the convolutions per channel.
_SIDE = 7


class Patches(nnx.Module):
  """A convolution of `side` x `side` with as large a stride."""

  def __init__(self, inputs, outputs, side, *, dtype, rngs):
    self.side = side
    self.embed = Linear(
      (side, side, inputs), outputs, kernel_axes(inputs), _STD, dtype=dtype, rngs=rngs
    )

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H / side, W / side, D]."""
    B, H, W, C = x.shape
    side = self.side
    return self.embed(x.reshape(B, H // side, side, W // side, side, C).swapaxes(2, 3))


class ConvNextBlock(nnx.Module):
  """x + scale · mlp(norm(convolution(x))), with a convolution of 7 x 7 per channel."""

  def __init__(self, width, *, mlp_ratio, layer_scale, epsilon, dtype, rngs):
    make = {'dtype': dtype, 'rngs': rngs}
    self.convolution = Convolution(
      width,
      width,
      (_SIDE, _SIDE),
      padding=((_SIDE // 2, _SIDE // 2),) * 2,
      feature_group_count=width,
      kernel_init=transformer.normal(_STD, None, None, None, 'embed'),
      bias_init=nnx.with_metadata(nnx.initializers.zeros, axes=('embed',)),
      **make,
    )
    self.norm = transformer.layer_norm(width, epsilon=epsilon, **make)
    self.mlp = transformer.Mlp(width, int(width * mlp_ratio), **make)
    self.layer_scale = LayerScale(width, layer_scale)

  def __call__(self, x, drop=None):
    """Maps [B, H, W, C] to [B, H, W, C]; `drop` is a `Drop`, or None in evaluation."""
    y = self.layer_scale(self.mlp(self.norm(self.convolution(x))))
    return x + (y if drop is None else drop(y, 0))


class ConvNext(nnx.Module):
  """ConvNeXt [1], as timm builds it: four stages, whose features are averaged and normalized.

  Attributes:
    size: side of the square images, in pixels, a multiple of 32.
    width: channels of the first stage, which each further one doubles; the pooled vectors have
      W = 8 times as many.
    layers: blocks of each of the four stages.
    mlp_ratio: hidden width of the MLPs as a multiple of their width.
    layer_scale: initial value of the learned scale of each block and channel.
    drop_path: stochastic depth: the probability of dropping the last block for an example in
      training; it grows linearly from 0 for the first.
    pooling: 'mean', or 'none' for no pooled vectors.
    epsilon: epsilon of the layer norms.
    remat: rematerialization of the blocks, see `transformer.REMATS`.
    attention: has no effect.

  References:
    [1] Liu et al., A ConvNet for the 2020s, 2022.
  """

  # Kernels that are applied to pixels, which have no gradient.
  on_pixels = ('stem/embed/',)

  def __init__(
    self,
    size: int,
    width: int,
    layers: Sequence[int],
    *,
    mlp_ratio: float = 4,
    layer_scale: float = 1e-6,
    drop_path: float = 0.0,
    pooling: str = 'mean',
    epsilon: float = 1e-6,
    remat: str = 'none',
    attention: str = 'auto',
    dtype,
    rngs,
  ):
    del attention
    check_stages('ConvNeXt', size, layers)
    check_pooling(pooling, 'mean')
    make = {'dtype': dtype, 'rngs': rngs}
    norm = partial(transformer.layer_norm, epsilon=epsilon, **make)
    path_drops(None, drop_path, 1)
    self.drop_path, self.blocks = drop_path, sum(layers)
    self.size, self.remat = size, transformer.choose('remat', remat, transformer.REMATS)
    widths = [width << stage for stage in range(len(layers))]
    self.width = widths[-1]
    self.stem = Patches(3, width, 4, **make)
    self.stem_norm = norm(width)
    halvings = list(itertools.pairwise(widths))
    self.halving_norms = nnx.List([norm(before) for before, _ in halvings])
    self.halvings = nnx.List([Patches(before, after, 2, **make) for before, after in halvings])
    block = partial(
      ConvNextBlock, mlp_ratio=mlp_ratio, layer_scale=layer_scale, epsilon=epsilon, **make
    )
    self.stages = nnx.List(
      [
        nnx.List([block(channels) for _ in range(blocks)])
        for channels, blocks in zip(widths, layers, strict=True)
      ]
    )
    self.norm = None if pooling == 'none' else norm(self.width)

  def __call__(self, images, *, keys=None):
    """Encodes images [B, size, size, 3] to pooled vectors [B, W] and tokens [B, P, W].

    The tokens are the features at each of P = (size / 32)² positions, before the mean and the norm.
    With pooling 'none' the vectors are None. `keys` [B] choose what is dropped; without keys, as in
    evaluation, nothing is.
    """
    check_images(images, self.size)
    drops = iter(path_drops(keys, self.drop_path, self.blocks))
    x = self.stem_norm(self.stem(images))
    for stage, blocks in enumerate(self.stages):
      if stage:
        x = self.halvings[stage - 1](self.halving_norms[stage - 1](x))
      for block in blocks:
        x = visit(block, x, self.remat, next(drops))
    tokens = x.reshape(len(x), -1, self.width)
    return None if self.norm is None else self.norm(tokens.mean(axis=1)), tokens

  @staticmethod
  def lengths(fields, path):
    """Positions per image that the kernel at a path is applied to, twice."""
    part, _, rest = path.partition('/')
    stage = 0 if path else len(fields['layers']) - 1
    if part in ('stages', 'halvings'):
      stage = int(rest.partition('/')[0]) + (part == 'halvings')
    positions = (fields['size'] // 4 >> stage) ** 2
    return positions, positions

  @staticmethod
  def resize(fields, parameters, size):
    """Returns the parameters, which suit any size of the images."""
    del fields
    check_size('image_size', size, 'ConvNeXt')
    return parameters

  @staticmethod
  def describe(fields):
    """Describes the tower in a model card."""
    return f'a ConvNeXt of {describe_stages(fields)}'
