"""Stems: from images to tokens."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from contrastive_jax.models import activations, transformer
from contrastive_jax.models.linear import Linear, affine, matmul_precision
from contrastive_jax.models.patches import resize_kernel
from contrastive_jax.sharding.mesh import BATCH_AXES, batch_shards

# Channels of images.
_PIXEL = 3


class PatchStem(nnx.Module):
  """The patch embedding of ViT: maps P patches of [B, H, W, 3] to tokens [B, P, D]."""

  def __init__(self, patch, width, *, bias=False, dtype, rngs):
    self.patch = patch
    self.embed = Linear(
      (patch, patch, 3),
      width,
      (None, None, None, 'embed'),
      (3 * patch * patch) ** -0.5,
      bias=bias,
      dtype=dtype,
      rngs=rngs,
    )

  def __call__(self, images):
    """Maps images [B, H, W, 3] to tokens [B, P, D]."""
    tokens = self.embed(_squares(images, self.patch))
    return tokens.reshape(len(images), -1, self.embed.outputs[0])

  def embed_patches(self, patches, interpolation):
    """Maps patches [B, L, q, q, 3] to tokens [B, L, D]; for another q than p by `resize_kernel`."""
    side, embed = patches.shape[-2], self.embed
    if side == self.patch:
      return embed(patches)
    kernel = resize_kernel(embed.kernel[...], side, interpolation).reshape(-1, *embed.outputs)
    patches = patches.astype(embed.dtype).reshape(*patches.shape[:2], -1)
    return affine(patches, kernel, None if embed.bias is None else embed.bias[...])


def _squares(x, side):
  """Cuts [B, H, W, C] into squares [B, H / side, W / side, side, side, C]."""
  B, H, W, C = x.shape
  return x.reshape(B, H // side, side, W // side, side, C).swapaxes(2, 3)


class NestedStem(nnx.Module):
  """Patches of patches, as in MobileCLIP-B: 4 x 4 pixels, and 2 x 2 of those until `patch`.

  Batch norm and a GELU follow each but the last.

  Args:
    patch: 4 times a power of two, at least 8.
    width: D, width of the tokens, a multiple of 4; a quarter before the last.
    dtype: dtype of the activations.
    rngs: initializes the parameters.

  References:
    Vasu et al., MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training, 2024.
  """

  def __init__(self, patch: int, width: int, *, dtype, rngs):
    halvings = patch.bit_length() - 3
    if patch != 4 << max(halvings, 0) or halvings < 1 or width % 4:
      raise ValueError(
        f"image.patch = {patch} and image.width = {width} do not suit image.stem = 'nested'; use a "
        'power of two from 8, and a multiple of 4'
      )
    make = {'dtype': dtype, 'rngs': rngs}
    sides, channels = (4, *[2] * halvings), (3, *[width // 4] * halvings, width)
    self.patches = nnx.List(
      [
        Linear(
          (side, side, before),
          after,
          (None, None, None, 'embed'),
          (side * side * before) ** -0.5,
          bias=after == width,
          **make,
        )
        for side, (before, after) in zip(sides, itertools.pairwise(channels), strict=True)
      ]
    )
    self.norms = nnx.List([BatchNorm(size, **make) for size in channels[1:-1]])

  def __call__(self, images):
    """Maps images [B, H, W, 3] to tokens [B, P, D]."""
    x = images
    for index, embed in enumerate(self.patches):
      x = embed(_squares(x, embed.inputs[0]))
      if index < len(self.norms):
        x = activations.gelu(self.norms[index](x))
    return x.reshape(len(x), -1, x.shape[-1])


class ConvolutionStem(nnx.Module):
  """3 x 3 convolutions of stride 2 that halve the image until a token covers `patch` pixels.

  On small images it trains several times faster than a patch stem at the same cost [1]. With
  residual blocks it is a small ResNet, and the tower a hybrid [2].

  Args:
    patch: a power of two.
    width: D, width of the tokens; each convolution doubles the channels up to this width.
    blocks: number of residual blocks after each convolution; default none.
    norm: norm of the residual blocks, 'layer' or 'batch', see `BatchNorm`.
    dtype: dtype of the activations.
    rngs: initializes the parameters.

  References:
    [1] Xiao et al., Early Convolutions Help Transformers See Better, 2021.
    [2] Dosovitskiy et al., An Image is Worth 16x16 Words, 2021.
  """

  def __init__(
    self,
    patch: int,
    width: int,
    *,
    blocks: Sequence[int] | None = None,
    norm: str = 'layer',
    dtype,
    rngs,
  ):
    halvings = patch.bit_length() - 1
    if patch != 1 << halvings or halvings < 1:
      raise ValueError(
        f"image.patch = {patch} does not suit image.stem = 'convolution'; use a power of two"
      )
    if not width >> halvings - 1:
      raise ValueError(
        f"image.width = {width} is too small for image.stem = 'convolution' with image.patch = "
        f'{patch}; use {1 << halvings - 1} or more'
      )
    blocks = (0,) * halvings if blocks is None else tuple(blocks)
    if len(blocks) != halvings or min(blocks) < 0:
      raise ValueError(
        f'image.stem_blocks = {blocks}; use {halvings} numbers, one for each halving of '
        f'image.patch = {patch}, or None'
      )
    if norm != 'layer' and not any(blocks):
      raise ValueError(
        f'image.stem_norm = {norm!r} is of the residual blocks, and image.stem_blocks = {blocks} '
        f'has none; use some, such as {(*[0] * (halvings - 1), 1)}'
      )
    make = {'dtype': dtype, 'rngs': rngs}
    channels = [width >> (halvings - 1 - i) for i in range(halvings)]
    self.convolutions = nnx.List(
      [
        convolution(before, after, strides=2, **make)
        for before, after in itertools.pairwise([3, *channels])
      ]
    )
    self.blocks = nnx.List(
      [
        nnx.List([ResidualBlock(size, depth=sum(blocks), norm=norm, **make) for _ in range(number)])
        for size, number in zip(channels, blocks, strict=True)
      ]
    )

  def __call__(self, images):
    """Maps images [B, H, W, 3] to tokens [B, P, D]."""
    x = images
    last = len(self.convolutions) - 1
    for index, (halve, blocks) in enumerate(zip(self.convolutions, self.blocks, strict=True)):
      x = halve(x)
      for block in blocks:
        x = block(x)
      x = x if index == last else activations.gelu(x)
    return x.reshape(x.shape[0], -1, x.shape[-1])


class BatchNorm(nnx.Module):
  """Normalizes each channel over batch and places, with PyTorch's epsilon and momentum.

  A training step normalizes by the mean and variance of the batch, over all devices, and moves the
  running ones a tenth of the way toward the mean and the unbiased variance, once per view, as in
  PyTorch. With `config.micro_batches` above 1 each part is normalized by its own, and the running
  ones move by the mean over the parts. Evaluation normalizes by the running ones.

  Attributes:
    use_running_average: normalize by the running statistics; a training step sets it to False.
  """

  momentum, epsilon = 0.9, 1e-5

  def __init__(self, channels, *, scale=1.0, dtype, rngs):
    """`scale` is the initial value of the learned scale."""
    del rngs
    self.dtype, self.use_running_average = dtype, True
    self.scale = nnx.Param(jnp.full(channels, scale, jnp.float32), axes=('embed',))
    self.bias = nnx.Param(jnp.zeros(channels), axes=('embed',))
    self.mean = nnx.BatchStat(jnp.zeros(channels), axes=(None,))
    self.variance = nnx.BatchStat(jnp.ones(channels), axes=(None,))

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H, W, C], in float32 inside."""
    x = x.astype(jnp.float32)
    mean, variance = self.mean[...], self.variance[...]
    if not self.use_running_average:
      mean = jnp.mean(x, (0, 1, 2))
      variance = jnp.mean(jnp.square(x - mean), (0, 1, 2))
      count = x.size // x.shape[-1]
      unbiased = variance * (count / max(count - 1, 1))
      for running, new in ((self.mean, mean), (self.variance, unbiased)):
        moved = self.momentum * running[...] + (1 - self.momentum) * new
        running[...] = lax.stop_gradient(moved)
    y = (x - mean) * lax.rsqrt(variance + self.epsilon)
    return (y * self.scale[...] + self.bias[...]).astype(self.dtype)


NORMS = {'layer': transformer.layer_norm, 'batch': BatchNorm}


class ResidualBlock(nnx.Module):
  """x + convolution(gelu(convolution(norm(x)))), over [B, H, W, C]."""

  def __init__(self, channels, *, depth, norm='layer', dtype, rngs):
    """`depth`, the number of blocks, scales the initialization."""
    make = {'dtype': dtype, 'rngs': rngs}
    self.norm = transformer.choose('image.stem_norm', norm, NORMS)(channels, **make)
    self.first = convolution(channels, channels, **make)
    self.second = convolution(channels, channels, depth=depth, **make)

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H, W, C]."""
    return x + self.second(activations.gelu(self.first(self.norm(x))))


def kernel_axes(inputs: int, groups: int = 1) -> tuple[str | None, ...]:
  """Logical axes of a kernel [h, w, C / groups, D]; 'channels' where all C features are mixed."""
  mixes = groups == 1 and inputs != _PIXEL
  return None, None, 'channels' if mixes else None, 'embed'


class Convolution(nnx.Conv):
  """A convolution in `dtype` with float32 gradients of its parameters."""

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H / stride, W / stride, D]."""
    y = convolve(
      x.astype(self.dtype), self.kernel[...], self.strides, self.padding, self.feature_group_count
    )
    return y if self.bias is None else transformer.add_parameter(y, self.bias[...])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def convolve(
  x: jax.Array,
  kernel: jax.Array,
  stride: int,
  padding: str | tuple[tuple[int, int], ...] = 'SAME',
  groups: int = 1,
) -> jax.Array:
  """Convolves x [B, H, W, C] with a float32 kernel [h, w, C / groups, D] in the dtype of x."""
  return _convolve(x, kernel.astype(x.dtype), stride, padding, groups)


def _convolve(x, kernel, stride, padding, groups, precision=None):
  return lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
    precision=precision or matmul_precision(x.dtype),
  )


def _convolve_backward(stride, padding, groups, saved, gradient):
  x, kernel = saved
  fields = stride, padding, groups
  pull = lambda of, at, gradient: jax.vjp(of, at)[1](gradient)[0]  # noqa: E731
  of_x = pull(lambda x: _convolve(x, kernel.astype(x.dtype), *fields), x, gradient)
  # Operands and result are float32; at default precision an accelerator is as fast as in bfloat16.
  wide, precision = x.astype(kernel.dtype), matmul_precision(x.dtype)
  of_kernel = functools.partial(_kernel_gradient, kernel, fields, precision)
  mesh = jax.sharding.get_abstract_mesh()
  if groups > 1 and not mesh.empty and len(x) % batch_shards(mesh) == 0:
    # XLA's partitioner would count the examples once per device that holds them, so that the
    # gradient of a grouped convolution is multiplied by the size of the axis 'tensor'.
    of_kernel = jax.shard_map(
      lambda *parts, whole=of_kernel: lax.psum(whole(*parts), BATCH_AXES),
      in_specs=jax.P(BATCH_AXES),
      out_specs=jax.P(),
      check_vma=False,
    )
  return of_x, of_kernel(wide, gradient.astype(wide.dtype))


def _kernel_gradient(kernel, fields, precision, x, gradient):
  shape = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
  of = jax.linear_transpose(lambda kernel: _convolve(x, kernel, *fields, precision), shape)
  return of(gradient)[0]


convolve.defvjp(
  lambda x, kernel, *fields: (convolve(x, kernel, *fields), (x, kernel)), _convolve_backward
)


def convolution(inputs, outputs, *, strides=1, depth=1, dtype, rngs):
  """Returns a 3 x 3 convolution whose initialization preserves the variance after a GELU."""
  std = (9 * inputs * depth / 2) ** -0.5
  return Convolution(
    inputs,
    outputs,
    (3, 3),
    strides=strides,
    kernel_init=transformer.normal(std, *kernel_axes(inputs)),
    bias_init=nnx.with_metadata(nnx.initializers.zeros, axes=('embed',)),
    dtype=dtype,
    rngs=rngs,
  )
