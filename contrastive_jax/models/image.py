"""The image tower: a vision transformer with a patch or a convolutional stem."""

import re
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from contrastive_jax.models import patches as naflex
from contrastive_jax.models import rope as ropes
from contrastive_jax.models import transformer
from contrastive_jax.models.attention import Attention
from contrastive_jax.models.dropout import fold
from contrastive_jax.models.patch_dropout import count_kept, draw_patches
from contrastive_jax.models.scattering import ANGLES, ScatteringStem, scatter_flops
from contrastive_jax.models.stem import ConvolutionStem, NestedStem, PatchStem


class AttentionPool(nnx.Module):
  """SigLIP's attention pooling head: a learned query attends to the tokens, then an MLP."""

  def __init__(
    self, width, heads, *, mlp_ratio, activation, epsilon=1e-5, attention='auto', dtype, rngs
  ):
    self.query = transformer.position_table(1, width, width**-0.5, rngs=rngs)
    self.attention = Attention(width, heads, implementation=attention, dtype=dtype, rngs=rngs)
    self.norm = transformer.layer_norm(width, epsilon=epsilon, dtype=dtype, rngs=rngs)
    self.mlp = transformer.Mlp(
      width, int(width * mlp_ratio), activation=activation, dtype=dtype, rngs=rngs
    )

  def __call__(self, tokens, mask=None):
    """Pools tokens [B, P, D] to [B, D]; those where a mask [B, 1, 1, P] is false are left out."""
    query = transformer.repeat(self.query[...], len(tokens), tokens.dtype)
    pooled = self.attention(query, tokens, mask=mask)
    return (pooled + self.mlp(self.norm(pooled)))[:, 0]


STEMS = {
  'patch': PatchStem,
  'convolution': ConvolutionStem,
  'nested': NestedStem,
  'scattering': ScatteringStem,
}
POOLINGS = ('class', 'mean', 'patch_mean', 'attention', 'none')
FINAL_NORMS = ('tokens', 'pooled')


class ImageTower(nnx.Module):
  """A vision transformer.

  It takes square images, or images as patches of any grid (NaFlex), see `patches`: positions are
  resized to the grid of each image, and padding is masked.

  Attributes:
    size: side of the square images, in pixels; with `patch` the grid of the position embeddings.
    patch: side of a patch, in pixels.
    drop_remainder: whether to ignore the pixels at the right and below that do not fill a patch, as
      in SigLIP with 384 pixels and patches of 14; otherwise the patch must divide the size.
    stem: 'patch', 'convolution', 'nested' or 'scattering'.
    stem_bias: whether the patch stem has a bias, as in SigLIP; a convolutional stem always has.
    stem_blocks: residual blocks after each halving of a convolutional stem, or one number, as in
      (2,), of those of a scattering stem; None for none.
    stem_norm: norm of these blocks, 'layer' or 'batch', see `stem.BatchNorm`.
    stem_angles: L, angles of the wavelets of a scattering stem; None for 8.
    pooling: 'class' (a class token), 'mean' (of all tokens), 'patch_mean' (without the class token,
      as in CLIPA), 'attention' (a learned query), or 'none' (unnormalized tokens).
    class_token: whether to prepend a class token with a pooling other than 'class'; it is then one
      of the tokens.
    class_position: whether the class token has a position embedding.
    registers: number of register tokens, which only the layers read.
    pre_norm: whether to normalize the tokens before the first layer, as in CLIP.
    final_norm: whether to normalize all 'tokens' before pooling, or the 'pooled' vector, as in
      CLIPA.
    rope: rotary positions beside the learned ones: None, 'yx' or 'xy', see `rope.rotation`.
    rope_grid: grid to whose extent rotary positions are scaled; None for no scaling.
    rope_offset: rotary position of the first patch.
    interpolation: resizes position embeddings to the grid of an image given as patches, and the
      kernel of the stem to patches of another size: 'bicubic', or 'bilinear' as in SigLIP 2.
    pool_heads: number of heads of the attention pool; default that of the layers.
    pool_mlp_ratio: likewise.
    patch_dropout: share of patches dropped at random from each training image, see `draw_patches`.
    epsilon: epsilon of the layer norms.
    scan, remat: see `Transformer`.
    attention: see `attention.select`.
    fields: options of the layers, `transformer.OPTIONS`.
  """

  # Kernels that are applied to pixels, which have no gradient.
  on_pixels = ('stem/embed/', 'stem/convolutions/0/', 'stem/patches/0/')

  def __init__(
    self,
    size: int,
    patch: int,
    width: int,
    layers: int,
    heads: int,
    *,
    mlp_ratio: float = 4,
    drop_remainder: bool = False,
    stem: str = 'patch',
    stem_bias: bool = False,
    stem_blocks: Sequence[int] | None = None,
    stem_norm: str = 'layer',
    stem_angles: int | None = None,
    pooling: str = 'class',
    class_token: bool = False,
    class_position: bool = True,
    registers: int = 0,
    pre_norm: bool = True,
    final_norm: str = 'tokens',
    rope: str | None = None,
    rope_grid: int | None = None,
    rope_offset: float = 0.0,
    interpolation: str = 'bicubic',
    pool_heads: int | None = None,
    pool_mlp_ratio: float | None = None,
    patch_dropout: float = 0.0,
    activation: str = 'gelu',
    epsilon: float = 1e-5,
    scan: bool = False,
    remat: str = 'none',
    attention: str = 'auto',
    dtype,
    rngs,
    **fields,
  ):
    transformer.check_options('image', fields)
    if size % patch and not drop_remainder:
      raise ValueError(f'image.size = {size} is not a multiple of image.patch = {patch}')
    if registers < 0:
      raise ValueError(f'image.registers = {registers}; use 0 or more')
    if not 0 <= patch_dropout < 1:
      raise ValueError(f'image.patch_dropout = {patch_dropout} is not in [0, 1)')
    transformer.choose('image.pooling', pooling, dict.fromkeys(POOLINGS))
    transformer.choose('image.final_norm', final_norm, dict.fromkeys(FINAL_NORMS))
    field = 'image.interpolation'
    transformer.choose(field, interpolation, naflex.INTERPOLATIONS)
    if rope not in (None, *ropes.ROPES):
      raise ValueError(f'image.rope = {rope!r} is unknown; use None or one of {ropes.ROPES}')
    if rope is None and (rope_grid is not None or rope_offset):
      raise ValueError(
        f'image.rope_grid = {rope_grid} and image.rope_offset = {rope_offset} need image.rope, one '
        f'of {ropes.ROPES}'
      )
    if pooling != 'attention' and (pool_heads or pool_mlp_ratio):
      raise ValueError(
        f'image.pool_heads = {pool_heads} and image.pool_mlp_ratio = {pool_mlp_ratio} need '
        f"image.pooling = 'attention', not {pooling!r}"
      )
    self.size, self.patch, self.width = size, patch, width
    self.interpolation = interpolation
    self.pooling, self.patch_dropout, self.final_norm = pooling, patch_dropout, final_norm
    make = {'dtype': dtype, 'rngs': rngs}
    self.stem = _stem(patch, width, stem, stem_bias, stem_blocks, stem_norm, stem_angles, make)
    table = partial(transformer.position_table, width=width, std=width**-0.5, rngs=rngs)
    has_class = class_token or pooling == 'class'
    grid = size // patch
    self.positions = table(grid**2 + (has_class and class_position))
    self.class_token = table(1) if has_class else None
    self.registers = table(registers) if registers else None
    # Arguments of `rope.rotation`.
    prefix = registers + has_class
    self.rotation = rope and (grid, width // heads, rope, rope_grid, rope_offset, prefix)
    norm = partial(transformer.layer_norm, width, epsilon=epsilon, **make)
    self.pre_norm = norm() if pre_norm else None
    shared = {'activation': activation, 'epsilon': epsilon, 'attention': attention}
    self.transformer = transformer.Transformer(
      width, layers, heads, mlp_ratio=mlp_ratio, **shared, scan=scan, remat=remat, **fields, **make
    )
    self.norm = None if pooling == 'none' else norm()
    ratio = mlp_ratio if pool_mlp_ratio is None else pool_mlp_ratio
    pool = partial(AttentionPool, width, pool_heads or heads, mlp_ratio=ratio, **shared, **make)
    self.pool = pool() if pooling == 'attention' else None

  def __call__(self, images, *, keys=None, kept=None):
    """Encodes images to pooled vectors [B, width] and tokens [B, P, width].

    With pooling 'none' the vectors are None, and the tokens include the class token, if any. Tokens
    of padding are arbitrary.

    Args:
      images: [B, size, size, 3]; or a pair of patches [B, P, p, p, 3] and grid [B, 2].
      keys: [B], choose what is dropped; without keys, as in evaluation, nothing is.
      kept: [B, K] indices of the patches to keep, in place of `patch_dropout`; None to draw them.
    """
    tokens, positions, visible = self._embed(images)
    tokens = transformer.add_parameter(tokens, positions)
    rotation = None if self.rotation is None else ropes.rotation(*self.rotation)
    tokens, rotation, visible = self._drop(tokens, rotation, visible, keys, kept)
    if self.class_token is not None:
      first = self.class_token[...]
      has_position = len(self.positions[...]) > (self.size // self.patch) ** 2
      first = first + self.positions[:1] if has_position else first
      tokens, visible = _prepend(first, tokens, visible)
    attended = visible
    if self.registers is not None:
      tokens, attended = _prepend(self.registers[...], tokens, visible)
    if self.pre_norm is not None:
      tokens = self.pre_norm(tokens)
    keys = None if keys is None else fold(keys, 1)
    mask = None if attended is None else attended[:, None, None]
    tokens = self.transformer(tokens, mask=mask, rotation=rotation, keys=keys)
    if self.registers is not None:
      tokens = tokens[:, len(self.registers[...]) :]
    return self._pooled(tokens, visible)

  def _embed(self, images):
    """Tokens [B, P, width] of the patches, their positions, and which are visible, None for all."""
    table = self.positions[-((self.size // self.patch) ** 2) :]
    if isinstance(images, tuple):
      pixels, grid = images
      self._check_patches(pixels)
      P = pixels.shape[1]
      positions = naflex.positions(table, grid, P, self.interpolation)
      return self.stem.embed_patches(pixels, self.interpolation), positions, naflex.visible(grid, P)
    check_images(images, self.size)
    if rest := self.size % self.patch:
      images = images[:, : self.size - rest, : self.size - rest]
    return self.stem(images), table, None

  def _check_patches(self, pixels):
    if not isinstance(self.stem, PatchStem) or self.rotation is not None:
      raise ValueError("images as patches need image.stem = 'patch' and image.rope = None")
    if pixels.ndim != 5 or pixels.shape[-1] != 3:
      raise ValueError(f'patches have shape {pixels.shape}; the model takes [B, L, p, p, 3]')

  def _pooled(self, tokens, visible):
    if self.pooling == 'none':
      return None, tokens
    if self.final_norm == 'tokens':
      tokens = self.norm(tokens)
    if self.pooling == 'class':
      pooled, tokens = tokens[:, 0], tokens[:, 1:]
    elif self.pool is not None:
      pooled = self.pool(tokens, None if visible is None else visible[:, None, None])
    else:
      prefix = int(self.pooling == 'patch_mean' and self.class_token is not None)
      tokens = tokens[:, prefix:]
      pooled = tokens.mean(axis=1, where=None if visible is None else visible[:, prefix:, None])
    return pooled if self.final_norm == 'tokens' else self.norm(pooled), tokens

  @staticmethod
  def lengths(fields, path):
    """Positions per image that the kernel at a path is applied to, and keys they attend to.

    For the path '' the number of tokens that the tower returns.
    """
    if halving := re.match(r'stem/(convolutions|blocks|patches)/(\d+)/', path):
      halvings = int(halving[2]) + (2 if halving[1] == 'patches' else 1)
      pixels = (fields['size'] >> halvings) ** 2
      return pixels, pixels
    # The sequence length is that of a batch of patches; it is no field of the tower.
    patches = fields.get('sequence_length') or (fields['size'] // fields['patch']) ** 2
    if path.startswith('stem/'):
      return patches, patches
    kept = count_kept(patches, fields.get('patch_dropout', 0.0))
    has_class = fields.get('pooling', 'class') == 'class' or fields.get('class_token', False)
    tokens = kept + has_class
    if not path:
      return kept if fields.get('pooling', 'class') in ('class', 'patch_mean') else tokens, tokens
    if path.startswith('pool/'):
      return 1, tokens
    tokens += fields.get('registers', 0)
    return tokens, tokens

  @staticmethod
  def constant_flops(fields):
    """Operations per image that have no kernel and no gradient: of a scattering transform."""
    if fields.get('stem') != 'scattering':
      return 0.0
    scales, angles = fields['patch'].bit_length() - 1, fields.get('stem_angles') or ANGLES
    return scatter_flops(fields['size'], scales, angles)

  @staticmethod
  def resize(fields, parameters, size):
    """Returns the parameters for another size of the images, see `interop.Model.resize`."""
    patch = fields['patch']
    if size < 1 or (size % patch and not fields.get('drop_remainder')):
      raise ValueError(f'image_size = {size} is not a multiple of image.patch = {patch}')
    old, new = (side // patch for side in (fields['size'], size))
    return {**parameters, 'positions': resize_positions(parameters['positions'], old, new)}

  @staticmethod
  def describe(fields):
    """Describes the tower in a model card."""
    size = fields['size']
    return (
      f'{fields["layers"]} layers of width {fields["width"]}, {size} x {size} pixels in patches of '
      f'{fields["patch"]}'
    )

  def _drop(self, tokens, rotation, visible, keys, kept):
    """Drops the tokens of each image but those kept, or a share of them, padding first."""
    P = tokens.shape[1]
    if kept is None:
      count = count_kept(P, self.patch_dropout)
      if keys is None or count == P:
        return tokens, rotation, visible
      kept = draw_patches(keys, P, count, visible)
    if visible is not None:
      visible = jnp.take_along_axis(visible, kept, axis=1)
    if rotation is not None:
      prefix = rotation.shape[1] - P
      every = jnp.broadcast_to(jnp.arange(prefix), (len(kept), prefix))
      rotation = jnp.asarray(rotation)[:, jnp.concatenate([every, prefix + kept], axis=1)]
    return jnp.take_along_axis(tokens, kept[..., None], axis=1), rotation, visible


def _prepend(first, tokens, visible):
  """Prepends parameters [K, D] to tokens [B, L, D], and to which are visible, None for all."""
  first = transformer.repeat(first, len(tokens), tokens.dtype)
  if visible is not None:
    visible = jnp.pad(visible, ((0, 0), (first.shape[1], 0)), constant_values=True)
  return jnp.concatenate([first, tokens], axis=1), visible


def _stem(patch, width, stem, bias, blocks, norm, angles, make):
  """Builds the stem; its options are those of `ImageTower`."""
  has_blocks = stem in ('convolution', 'scattering')
  if blocks is not None and not has_blocks:
    raise ValueError(f"image.stem_blocks = {blocks} need image.stem = 'convolution'")
  if norm != 'layer' and not has_blocks:
    raise ValueError(f"image.stem_norm = {norm!r} needs image.stem = 'convolution'")
  if angles is not None and stem != 'scattering':
    raise ValueError(f"image.stem_angles = {angles} needs image.stem = 'scattering'")
  options = {
    'patch': {'bias': bias},
    'convolution': {'blocks': blocks, 'norm': norm},
    'scattering': {'blocks': blocks, 'norm': norm, 'angles': angles},
  }
  return transformer.choose('image.stem', stem, STEMS)(
    patch, width, **options.get(stem, {}), **make
  )


def resize_positions(table, old: int, new: int) -> np.ndarray:
  """Resamples the last old² of position embeddings [P, D] to new², as `interop.Model.resize`."""
  first, grid = np.split(np.asarray(table), [len(table) - old * old])
  grid = jax.image.resize(grid.reshape(old, old, -1), (new, new, grid.shape[-1]), 'bicubic')
  return np.concatenate([first, np.asarray(grid).reshape(new * new, -1)])


def check_images(images: jax.Array, size: int) -> None:
  """Raises ValueError for images that are not [B, size, size, 3]."""
  if images.ndim != 4 or images.shape[1:] != (size, size, 3):
    raise ValueError(f'images have shape {images.shape}; the model takes [B, {size}, {size}, 3]')
