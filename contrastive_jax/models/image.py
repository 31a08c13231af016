"""The image tower: a vision transformer with a patch or a convolutional stem."""

import re
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.attention import Attention
from contrastive_jax.models.stem import ConvolutionStem, PatchStem


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

  def __call__(self, tokens):
    """Pools tokens [B, P, D] to [B, D]."""
    query = transformer.repeat(self.query[...], len(tokens), tokens.dtype)
    pooled = self.attention(query, tokens)
    return (pooled + self.mlp(self.norm(pooled)))[:, 0]


STEMS = {'patch': PatchStem, 'convolution': ConvolutionStem}
POOLINGS = ('class', 'mean', 'attention', 'none')


class ImageTower(nnx.Module):
  """A vision transformer.

  Attributes:
    size: side of the square images, in pixels.
    patch: side of a patch, in pixels.
    stem: 'patch' or 'convolution'.
    stem_bias: whether the patch stem has a bias, as in SigLIP; a convolutional stem always has.
    stem_blocks: residual blocks after each halving of a convolutional stem; None for none.
    stem_norm: norm of these blocks, 'layer' or 'batch', see `stem.BatchNorm`.
    pooling: 'class' (a class token), 'mean', 'attention' (a learned query), or 'none' (unnormalized
      tokens).
    class_token: whether to prepend a class token with a pooling other than 'class'; it is then one
      of the tokens.
    pre_norm: whether to normalize the tokens before the first layer, as in CLIP.
    patch_dropout: share of patches dropped at random from each training image.
    epsilon: epsilon of the layer norms.
    scan, remat: see `Transformer`.
    attention: see `attention.select`.
  """

  # Kernels that are applied to pixels, which have no gradient.
  on_pixels = ('stem/embed/', 'stem/convolutions/0/')

  def __init__(
    self,
    size: int,
    patch: int,
    width: int,
    layers: int,
    heads: int,
    *,
    mlp_ratio: float = 4,
    stem: str = 'patch',
    stem_bias: bool = False,
    stem_blocks: Sequence[int] | None = None,
    stem_norm: str = 'layer',
    pooling: str = 'class',
    class_token: bool = False,
    pre_norm: bool = True,
    patch_dropout: float = 0.0,
    activation: str = 'gelu',
    epsilon: float = 1e-5,
    scan: bool = False,
    remat: str = 'none',
    attention: str = 'auto',
    dtype,
    rngs,
  ):
    if size % patch:
      raise ValueError(f'image.size = {size} is not a multiple of image.patch = {patch}')
    if not 0 <= patch_dropout < 1:
      raise ValueError(f'image.patch_dropout = {patch_dropout} is not in [0, 1)')
    transformer.choose('image.pooling', pooling, dict.fromkeys(POOLINGS))
    self.size, self.width = size, width
    self.pooling, self.patch_dropout = pooling, patch_dropout
    make = {'dtype': dtype, 'rngs': rngs}
    if stem_blocks is not None and stem != 'convolution':
      raise ValueError(f"image.stem_blocks = {stem_blocks} need image.stem = 'convolution'")
    if stem_norm != 'layer' and stem != 'convolution':
      raise ValueError(f"image.stem_norm = {stem_norm!r} needs image.stem = 'convolution'")
    options = {'blocks': stem_blocks, 'norm': stem_norm}
    options = {'bias': stem_bias} if stem == 'patch' else options
    self.stem = transformer.choose('image.stem', stem, STEMS)(patch, width, **options, **make)
    table = partial(transformer.position_table, width=width, std=width**-0.5, rngs=rngs)
    class_token = class_token or pooling == 'class'
    self.positions = table((size // patch) ** 2 + class_token)
    self.class_token = table(1) if class_token else None
    norm = partial(transformer.layer_norm, width, epsilon=epsilon, **make)
    self.pre_norm = norm() if pre_norm else None
    shared = {
      'mlp_ratio': mlp_ratio,
      'activation': activation,
      'epsilon': epsilon,
      'attention': attention,
    }
    self.transformer = transformer.Transformer(
      width, layers, heads, **shared, scan=scan, remat=remat, **make
    )
    self.norm = None if pooling == 'none' else norm()
    self.pool = AttentionPool(width, heads, **shared, **make) if pooling == 'attention' else None

  def __call__(self, images, *, keys=None):
    """Encodes images [B, size, size, 3] to pooled vectors [B, width] and tokens [B, P, width].

    With pooling 'none' the vectors are None, and the tokens include the class token, if any. `keys`
    [B] choose the dropped patches; without keys, as in evaluation, none are dropped.
    """
    if images.ndim != 4 or images.shape[1:] != (self.size, self.size, 3):
      raise ValueError(
        f'images have shape {images.shape}; the model takes [B, {self.size}, {self.size}, 3]'
      )
    tokens = self.stem(images)
    positions = self.positions[...]
    if self.class_token is None:
      tokens = self._drop(transformer.add_parameter(tokens, positions), keys)
    else:
      tokens = self._drop(transformer.add_parameter(tokens, positions[1:]), keys)
      first = transformer.repeat(self.class_token[...] + positions[:1], len(tokens), tokens.dtype)
      tokens = jnp.concatenate([first, tokens], axis=1)
    if self.pre_norm is not None:
      tokens = self.pre_norm(tokens)
    tokens = self.transformer(tokens)
    if self.pooling == 'none':
      return None, tokens
    tokens = self.norm(tokens)
    if self.pooling == 'class':
      return tokens[:, 0], tokens[:, 1:]
    return (tokens.mean(axis=1) if self.pool is None else self.pool(tokens)), tokens

  @staticmethod
  def lengths(fields, path):
    """Positions per image that the kernel at a path is applied to, and keys they attend to."""
    if halving := re.match(r'stem/(?:convolutions|blocks)/(\d+)/', path):
      pixels = (fields['size'] >> (int(halving[1]) + 1)) ** 2
      return pixels, pixels
    patches = (fields['size'] // fields['patch']) ** 2
    if path.startswith('stem/'):
      return patches, patches
    kept = max(1, round(patches * (1 - fields.get('patch_dropout', 0.0))))
    has_class = fields.get('pooling', 'class') == 'class' or fields.get('class_token', False)
    tokens = kept + has_class
    return (1 if path.startswith('pool/') else tokens), tokens

  @staticmethod
  def resize(fields, parameters, size):
    """Returns the parameters for another size of the images, see `interop.Model.resize`."""
    patch = fields['patch']
    if size < 1 or size % patch:
      raise ValueError(f'image_size = {size} is not a multiple of image.patch = {patch}')
    table = np.asarray(parameters['positions'])
    old, new = (side // patch for side in (fields['size'], size))
    first, grid = np.split(table, [len(table) - old * old])
    grid = jax.image.resize(grid.reshape(old, old, -1), (new, new, grid.shape[-1]), 'bicubic')
    table = np.concatenate([first, np.asarray(grid).reshape(new * new, -1)])
    return {**parameters, 'positions': table}

  @staticmethod
  def describe(fields):
    """Describes the tower in a model card."""
    size = fields['size']
    return (
      f'{fields["layers"]} layers of width {fields["width"]}, {size} x {size} pixels in patches of '
      f'{fields["patch"]}'
    )

  def _drop(self, tokens, keys):
    P = tokens.shape[1]
    keep = max(1, round(P * (1 - self.patch_dropout)))
    if keys is None or keep == P:
      return tokens
    kept = jnp.argsort(jax.vmap(lambda key: jax.random.uniform(key, P))(keys), axis=1)[:, :keep]
    return jnp.take_along_axis(tokens, kept[..., None], axis=1)
