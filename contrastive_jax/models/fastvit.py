"""FastViT: an image tower of convolutions with parallel branches, below attention."""

import re
from collections.abc import Sequence
from functools import partial

import jax
from flax import nnx

from contrastive_jax.models import activations, transformer
from contrastive_jax.models.attention import Attention
from contrastive_jax.models.image import check_images
from contrastive_jax.models.layer_scale import LayerScale
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.resnet import NormalizedConvolution
from contrastive_jax.models.stages import (
  check_pooling,
  describe_stages,
  path_drops,
  visit,
)
from contrastive_jax.models.stem import BatchNorm, Convolution

NORMS = {'layer': transformer.layer_norm, 'batch': BatchNorm}
# Width of a head of attention, and initial layer scale.
_HEAD, _SCALE = 32, 1e-5


class SqueezeExcite(nnx.Module):
  """Scales each channel by a gate, an MLP of the mean over places."""

  def __init__(self, width, hidden, *, dtype, rngs):
    make = {'dtype': dtype, 'rngs': rngs}
    self.reduce = Linear(width, hidden, ('embed', 'channels'), width**-0.5, **make)
    self.expand = Linear(hidden, width, ('channels', 'embed'), hidden**-0.5, **make)

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H, W, C]."""
    mean = x.mean(axis=(1, 2), keepdims=True)
    return x * jax.nn.sigmoid(self.expand(jax.nn.relu(self.reduce(mean))))


class Branches(nnx.Module):
  """MobileOne's block: the sum of a convolution, one of 1 x 1 and the identity, each normalized.

  Args:
    inputs: channels of the inputs.
    outputs: channels of the outputs.
    side: side of the convolution.
    stride: of the convolutions; above 1 there is no identity.
    groups: of the convolutions.
    point: whether there is a convolution of 1 x 1 beside a larger one.
    squeeze: hidden width of squeeze and excitation; 0 for none.
    activate: whether a GELU follows.
    dtype: dtype of the activations.
    rngs: initializes the parameters.
  """

  def __init__(
    self,
    inputs,
    outputs,
    side,
    *,
    stride=1,
    groups=1,
    point=True,
    squeeze=0,
    activate=True,
    dtype,
    rngs,
  ):
    make = {'dtype': dtype, 'rngs': rngs}
    branch = partial(NormalizedConvolution, inputs, outputs, stride=stride, groups=groups, **make)
    self.activate = activate
    self.large = branch(side)
    self.point = branch(1) if point and side > 1 else None
    self.identity = BatchNorm(inputs, **make) if inputs == outputs and stride == 1 else None
    self.squeeze = SqueezeExcite(outputs, squeeze, **make) if squeeze else None

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H / stride, W / stride, D]."""
    y = self.large(x)
    y = y if self.point is None else y + self.point(x)
    y = y if self.identity is None else y + self.identity(x)
    y = y if self.squeeze is None else self.squeeze(y)
    return activations.gelu(y) if self.activate else y


class Halving(nnx.Module):
  """Halves the image by convolutions of 7 x 7 and 3 x 3 per channel, and mixes the channels."""

  def __init__(self, inputs, outputs, *, squeeze, dtype, rngs):
    make = {'dtype': dtype, 'rngs': rngs}
    branch = partial(NormalizedConvolution, inputs, outputs, stride=2, groups=inputs, **make)
    self.large, self.small = branch(7), branch(3)
    self.squeeze = SqueezeExcite(outputs, outputs // 4, **make) if squeeze else None
    self.mix = Branches(outputs, outputs, 1, **make)

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H / 2, W / 2, D]."""
    y = self.large(x) + self.small(x)
    y = y if self.squeeze is None else self.squeeze(y)
    return self.mix(activations.gelu(y))


class ConvolutionMlp(nnx.Module):
  """A normalized convolution of 7 x 7 per channel, and an MLP."""

  def __init__(self, width, hidden, *, dtype, rngs):
    make = {'dtype': dtype, 'rngs': rngs}
    self.convolution = NormalizedConvolution(width, width, 7, groups=width, **make)
    self.mlp = transformer.Mlp(width, hidden, **make)

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H, W, C]."""
    return self.mlp(self.convolution(x))


class FastVitBlock(nnx.Module):
  """x + scale · mixer(x), then x + scale · mlp(x); the mixer is a convolution or attention.

  Args:
    width: channels, D.
    hidden: hidden width of the MLP.
    norm: norm before attention, a key of `NORMS`; None for a convolution instead.
    position: whether a convolution of 7 x 7 per channel adds positions first.
    attention: see `attention.select`.
    dtype: dtype of the activations.
    rngs: initializes the parameters.
  """

  def __init__(self, width, hidden, *, norm, position, attention, dtype, rngs):
    make = {'dtype': dtype, 'rngs': rngs}
    self.attends = norm is not None
    self.position = per_channel(width, **make) if position else None
    self.norm = transformer.choose('image.norm', norm or 'batch', NORMS)(width, **make)
    if self.attends:
      heads = max(1, width // _HEAD)
      self.mixer = Attention(width, heads, bias='none', implementation=attention, **make)
    else:
      self.mixer = Branches(width, width, 3, groups=width, activate=False, **make)
    self.mixer_scale, self.mlp_scale = LayerScale(width, _SCALE), LayerScale(width, _SCALE)
    self.mlp = ConvolutionMlp(width, hidden, **make)

  def __call__(self, x, drop=None):
    """Maps [B, H, W, D] to [B, H, W, D]; `drop` is a `Drop`, or None in evaluation."""
    x = x if self.position is None else x + self.position(x)
    if self.attends:
      tokens = self.norm(x).reshape(len(x), -1, x.shape[-1])
      mixed = self.mixer(tokens).reshape(x.shape)
    else:
      mixed = self.mixer(x) - self.norm(x)
    mixed = self.mixer_scale(mixed)
    # As in timm, stochastic depth keeps the mixer of convolutions.
    x = x + (drop(mixed, 0) if drop and self.attends else mixed)
    hidden = self.mlp_scale(self.mlp(x))
    return x + (drop(hidden, 1) if drop else hidden)


def per_channel(width, *, dtype, rngs) -> Convolution:
  """Returns a convolution of 7 x 7 per channel, with a bias."""
  return Convolution(
    width,
    width,
    (7, 7),
    padding=((3, 3), (3, 3)),
    feature_group_count=width,
    kernel_init=transformer.normal(0.02, None, None, None, 'embed'),
    bias_init=nnx.with_metadata(nnx.initializers.zeros, axes=('embed',)),
    dtype=dtype,
    rngs=rngs,
  )


class FastVit(nnx.Module):
  """FastViT [1] as in MobileCLIP [2], with the branches that are merged for inference elsewhere.

  The running statistics of its batch norms are variables, see `stem.BatchNorm`.

  Attributes:
    size: side of the square images, in pixels, a multiple of the pixels of a last position.
    width: channels of the first stage, which each further one doubles; the pooled vectors have
      twice as many as the last, W.
    layers: blocks of each stage.
    attention_stages: number of the last stages, whose mixers are attention.
    mlp_ratio: hidden width of the MLPs as a multiple of their width.
    norm: norm before attention, 'batch' or 'layer'.
    squeeze: squeeze and excitation where the image is halved, from the third stage on.
    drop_path: stochastic depth: the probability of dropping a branch of the last block for an
      example in training; it grows linearly from 0 for the first.
    pooling: 'mean', or 'none' for no pooled vectors.
    stem_point: whether the stem has convolutions of 1 x 1 beside those of 3 x 3.
    remat: rematerialization of the blocks, see `transformer.REMATS`.
    attention: see `attention.select`.

  References:
    [1] Vasu et al., FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization,
      2023.
    [2] Vasu et al., MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training,
      2024.
  """

  # Kernels that are applied to pixels, which have no gradient.
  on_pixels = ('stem/0/',)

  def __init__(
    self,
    size: int,
    width: int,
    layers: Sequence[int],
    *,
    attention_stages: int = 1,
    mlp_ratio: float = 3,
    norm: str = 'batch',
    squeeze: bool = True,
    stem_point: bool = True,
    drop_path: float = 0.0,
    pooling: str = 'mean',
    remat: str = 'none',
    attention: str = 'auto',
    dtype,
    rngs,
  ):
    _check_size('image.size', size, layers)
    check_pooling(pooling, 'mean')
    make = {'dtype': dtype, 'rngs': rngs}
    path_drops(None, drop_path, 1)
    self.drop_path, self.blocks = drop_path, sum(layers)
    self.pooling = pooling
    self.size, self.remat = size, transformer.choose('remat', remat, transformer.REMATS)
    self.stem = nnx.List(
      [
        Branches(3, width, 3, stride=2, point=stem_point, **make),
        Branches(width, width, 3, stride=2, groups=width, point=stem_point, **make),
        Branches(width, width, 1, **make),
      ]
    )
    widths = [width << stage for stage in range(len(layers))]
    self.halvings = nnx.List(
      [
        Halving(before, 2 * before, squeeze=squeeze and stage > 0, **make)
        for stage, before in enumerate(widths[:-1])
      ]
    )
    self.stages = nnx.List([])
    for stage, (channels, number) in enumerate(zip(widths, layers, strict=True)):
      attends = stage >= len(layers) - attention_stages
      block = partial(
        FastVitBlock,
        channels,
        int(channels * mlp_ratio),
        norm=norm if attends else None,
        attention=attention,
        **make,
      )
      blocks = [block(position=attends and index == 0) for index in range(number)]
      self.stages.append(nnx.List(blocks))
    self.width = 2 * widths[-1]
    self.final = Branches(
      widths[-1], self.width, 3, groups=widths[-1], squeeze=self.width // 16, **make
    )

  def __call__(self, images, *, keys=None):
    """Encodes images [B, size, size, 3] to pooled vectors [B, W] and tokens [B, P, W].

    The tokens are the last features at each position, of which the vectors are the mean, or
    None with pooling 'none'. `keys` [B] choose what is dropped; without keys, as in evaluation,
    nothing is.
    """
    check_images(images, self.size)
    drops = iter(path_drops(keys, self.drop_path, self.blocks))
    x = images
    for block in self.stem:
      x = block(x)
    for stage, blocks in enumerate(self.stages):
      x = self.halvings[stage - 1](x) if stage else x
      for block in blocks:
        x = visit(block, x, self.remat, next(drops))
    x = self.final(x)
    tokens = x.reshape(len(x), -1, self.width)
    return None if self.pooling == 'none' else tokens.mean(axis=1), tokens

  @staticmethod
  def lengths(fields, path):
    """Positions per image that the kernel at a path is applied to, and keys they attend to."""
    side, part = fields['size'] // 4, re.match(r'(\w+)/(?:(\d+)/)?', path or 'final/')
    number = int(part[2] or 0)
    if '/squeeze/' in path:
      side = 1
    elif part[1] == 'stem':
      side = side * 2 if number == 0 else side
    elif part[1] == 'final':
      side >>= len(fields['layers']) - 1
    else:
      side >>= number + (part[1] == 'halvings')
    return side * side, side * side

  @staticmethod
  def resize(fields, parameters, size):
    """Returns the parameters, which suit any size of the images."""
    _check_size('image_size', size, fields['layers'])
    return parameters

  @staticmethod
  def describe(fields):
    """Describes the tower in a model card."""
    return f'a FastViT of {describe_stages(fields)}'


def _check_size(field: str, size: int, layers: Sequence[int]) -> None:
  if isinstance(layers, int) or len(layers) < 2 or min(layers) < 1:
    raise ValueError(
      f'image.layers = {layers}; a FastViT has several stages, so use a number for each, such as '
      '(2, 6, 10, 2)'
    )
  pixels = 2 << len(layers)
  if size < 1 or size % pixels:
    raise ValueError(f'{field} = {size} is not a multiple of {pixels}, which this FastViT needs')
