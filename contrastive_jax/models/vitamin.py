"""ViTamin: an image tower of mobile convolutions below a transformer with gated MLPs."""

import re
from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import activations, transformer
from contrastive_jax.models.image import check_images, resize_positions
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.stages import check_pooling, visit
from contrastive_jax.models.stem import Convolution, kernel_axes

# Side of the pixels of a token: the stem halves the image four times.
PATCH = 16
# Channels of a mobile convolution, in those of its output.
_EXPANSION = 4


def convolution(inputs, outputs, *, stride=1, groups=1, dtype, rngs) -> Convolution:
  """Returns a 3 x 3 convolution, padded and initialized as in timm."""
  return Convolution(
    inputs,
    outputs,
    (3, 3),
    strides=stride,
    padding=((1, 1), (1, 1)),
    feature_group_count=groups,
    kernel_init=transformer.normal(
      (2 * groups / (9 * outputs)) ** 0.5, *kernel_axes(inputs, groups)
    ),
    bias_init=nnx.with_metadata(nnx.initializers.zeros, axes=('embed',)),
    dtype=dtype,
    rngs=rngs,
  )


def average_pool(x):
  """Averages windows of 3 x 3 with stride 2: [B, H, W, C] to [B, H / 2, W / 2, C]."""
  wide = x.astype(jnp.float32)
  padding = ((1, 1), (1, 1))
  return nnx.avg_pool(wide, (3, 3), (2, 2), padding, count_include_pad=False).astype(x.dtype)


class MobileBlock(nnx.Module):
  """An inverted bottleneck: 1 x 1 to more channels, 3 x 3 per channel, and 1 x 1 back."""

  def __init__(self, inputs, outputs, *, halve, epsilon, dtype, rngs):
    make = {'dtype': dtype, 'rngs': rngs}
    hidden = _EXPANSION * outputs
    self.halve = halve
    self.norm = transformer.layer_norm(inputs, epsilon=epsilon, **make)
    self.up = Linear(inputs, hidden, ('embed', 'mlp'), (2 / hidden) ** 0.5, **make)
    self.middle = convolution(hidden, hidden, stride=2 if halve else 1, groups=hidden, **make)
    self.down = Linear(hidden, outputs, ('mlp', 'embed'), (2 / outputs) ** 0.5, **make)
    shortcut = partial(Linear, inputs, outputs, ('channels', 'embed'), inputs**-0.5, **make)
    self.shortcut = None if inputs == outputs else shortcut()

  def __call__(self, x):
    """Maps [B, H, W, C] to [B, H, W, D], or with `halve` to [B, H / 2, W / 2, D]."""
    y = activations.gelu(self.up(self.norm(x)))
    y = self.down(activations.gelu(self.middle(y)))
    x = average_pool(x) if self.halve else x
    return y + (x if self.shortcut is None else self.shortcut(x))


class MobileStem(nnx.Module):
  """Mobile convolutions that map images [B, H, W, 3] to tokens [B, P, D] of 16 x 16 pixels."""

  def __init__(self, width, widths, blocks, *, epsilon, remat, dtype, rngs):
    make = {'dtype': dtype, 'rngs': rngs}
    norm = partial(transformer.layer_norm, epsilon=epsilon, **make)
    inputs = widths[0]
    self.remat = transformer.choose('remat', remat, transformer.REMATS)
    self.convolutions = nnx.List(
      [convolution(3, inputs, stride=2, **make), convolution(inputs, inputs, **make)]
    )
    self.norm = norm(inputs)
    self.blocks = nnx.List([])
    for channels, number in zip(widths, blocks, strict=True):
      stage = []
      for block in range(number):
        options = {'halve': block == 0, 'epsilon': epsilon, **make}
        stage.append(MobileBlock(channels if block else inputs, channels, **options))
      self.blocks.append(nnx.List(stage))
      inputs = channels
    self.last_norm = norm(inputs)
    self.last = convolution(inputs, width, stride=2, **make)

  def __call__(self, images):
    """Maps images [B, H, W, 3] to tokens [B, P, D]."""
    first, second = self.convolutions
    x = second(activations.gelu(self.norm(first(images))))
    for stage in self.blocks:
      for block in stage:
        x = visit(block, x, self.remat)
    x = self.last(self.last_norm(x))
    return x.reshape(len(x), -1, x.shape[-1])


class GatedMlp(nnx.Module):
  """down(gelu(gate(x)) · up(x)) of the normalized x."""

  def __init__(self, width, hidden, *, depth, epsilon, dtype, rngs):
    make = partial(Linear, dtype=dtype, rngs=rngs)
    self.norm = transformer.layer_norm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
    self.gate = make(width, hidden, ('embed', 'mlp'), width**-0.5)
    self.up = make(width, hidden, ('embed', 'mlp'), width**-0.5)
    self.down = make(hidden, width, ('mlp', 'embed'), (hidden * 2 * depth) ** -0.5)

  def __call__(self, x):
    """Maps x [..., D] to [..., D]."""
    x = self.norm(x)
    return self.down(activations.gelu(self.gate(x)) * self.up(x))


class VitaminBlock(transformer.Block):
  """A block of `Transformer` whose MLP is gated, and normalizes its normalized input again."""

  def __init__(self, width, heads, hidden, *, depth, epsilon, dtype, rngs, **fields):
    make = {'epsilon': epsilon, 'dtype': dtype, 'rngs': rngs}
    super().__init__(width, heads, None, depth=depth, **make, **fields)
    self.mlp_norm = nnx.data(transformer.layer_norm(width, **make))
    self.mlp = nnx.data(GatedMlp(width, hidden, depth=depth, **make))


class Vitamin(nnx.Module):
  """ViTamin [1], as timm builds it: mobile convolutions, a transformer, the mean, and a norm.

  Attributes:
    size: side of the square images, in pixels, a multiple of 16.
    width: W, width of the transformer and of the pooled vectors.
    layers: layers of the transformer.
    heads: heads of the transformer.
    stem_widths: channels of the two stages of mobile convolutions.
    stem_blocks: their numbers of blocks.
    mlp_ratio: hidden width of the gated MLPs as a multiple of W.
    drop_path: see `Transformer`.
    positions: whether tokens have position embeddings; XL has none.
    pooling: 'mean', or 'none' for no pooled vectors.
    epsilon: epsilon of the layer norms.
    scan: see `Transformer`.
    remat: see `Transformer`, of the mobile convolutions too.
    attention: see `attention.select`.

  References:
    [1] Chen et al., ViTamin: Designing Scalable Vision Models in the Vision-Language Era, 2024.
  """

  # Kernels that are applied to pixels, which have no gradient.
  on_pixels = ('stem/convolutions/0/',)

  def __init__(
    self,
    size: int,
    width: int,
    layers: int,
    heads: int,
    *,
    stem_widths: Sequence[int] = (64, 128),
    stem_blocks: Sequence[int] = (2, 4),
    mlp_ratio: float = 2,
    positions: bool = True,
    drop_path: float = 0.0,
    pooling: str = 'mean',
    epsilon: float = 1e-6,
    scan: bool = False,
    remat: str = 'none',
    attention: str = 'auto',
    dtype,
    rngs,
  ):
    if size % PATCH:
      raise ValueError(f'image.size = {size} is not a multiple of {PATCH}, which a ViTamin needs')
    for name, value in (('stem_widths', stem_widths), ('stem_blocks', stem_blocks)):
      if len(value) != 2 or min(value) < 1:
        raise ValueError(f'image.{name} = {value}; a ViTamin has two stages of convolutions')
    check_pooling(pooling, 'mean')
    make = {'dtype': dtype, 'rngs': rngs}
    self.size, self.width = size, width
    self.stem = MobileStem(width, stem_widths, stem_blocks, epsilon=epsilon, remat=remat, **make)
    table = partial(transformer.position_table, (size // PATCH) ** 2, width, width**-0.5, rngs=rngs)
    self.positions = table() if positions else None
    self.transformer = transformer.Transformer(
      width,
      layers,
      heads,
      mlp_ratio=mlp_ratio,
      block=VitaminBlock,
      drop_path=drop_path,
      epsilon=epsilon,
      attention=attention,
      scan=scan,
      remat=remat,
      **make,
    )
    norm = partial(transformer.layer_norm, width, epsilon=epsilon, **make)
    self.norm = None if pooling == 'none' else norm()

  def __call__(self, images, *, keys=None):
    """Encodes images [B, size, size, 3] to pooled vectors [B, W] and tokens [B, P, W].

    The tokens are those of the last layer, before the mean and the norm. With pooling 'none' the
    vectors are None. `keys` [B] choose what is dropped; without keys, as in evaluation, nothing is.
    """
    check_images(images, self.size)
    tokens = self.stem(images)
    if self.positions is not None:
      tokens = transformer.add_parameter(tokens, self.positions[...])
    tokens = self.transformer(tokens, keys=keys)
    return None if self.norm is None else self.norm(tokens.mean(axis=1)), tokens

  @staticmethod
  def lengths(fields, path):
    """Positions per image that the kernel at a path is applied to, and keys they attend to."""
    side = fields['size'] // PATCH
    if path.startswith('stem/convolutions/'):
      side = fields['size'] // 2
    elif block := re.match(r'stem/blocks/(\d+)/(\d+)/(\w+)/', path):
      # The first block of a stage halves the image in its middle.
      before = block[2] == '0' and block[3] == 'up'
      side = fields['size'] // 2 >> int(block[1]) + 1 - before
    return side * side, side * side

  @staticmethod
  def resize(fields, parameters, size):
    """Returns the parameters for another size of the images, see `interop.Model.resize`."""
    if size < 1 or size % PATCH:
      raise ValueError(f'image_size = {size} is not a multiple of {PATCH}, which a ViTamin needs')
    if 'positions' not in parameters:
      return parameters
    old, new = (side // PATCH for side in (fields['size'], size))
    return {**parameters, 'positions': resize_positions(parameters['positions'], old, new)}

  @staticmethod
  def describe(fields):
    """Describes the tower in a model card."""
    size = fields['size']
    return (
      f'a ViTamin of {fields["layers"]} layers of width {fields["width"]}, {size} x {size} pixels'
    )
