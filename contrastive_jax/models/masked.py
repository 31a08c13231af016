"""A masked autoencoder: an encoder of the visible patches, and a decoder of the masked ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax import losses
from contrastive_jax.losses.tokens.patches import normalize_patches
from contrastive_jax.models import transformer
from contrastive_jax.models.encoder import Encoder
from contrastive_jax.models.image import ImageTower
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.models.patch_dropout import count_kept, draw_patches


class MaskedAutoencoder(Encoder):
  """An `Encoder` that learns by reconstructing patches that it does not see, as MAE [1].

  The image tower is a vision transformer without a class token. It sees the patches that are not
  masked; `image.patch_dropout` is the share of those that are. The decoder adds a mask token for
  each of them. As in HPM [2], it may also predict the error of each patch. Evaluations see all
  patches, and have no use for the decoder.

  Args:
    embed: D, see `Encoder`.
    image: arguments of an `ImageTower`.
    pixel_decoder: arguments of the `PixelDecoder`: width, layers and heads.
    loss_predictor: whether the decoder predicts errors.
    projector: see `Encoder`, as all that follow.

  References:
    [1] He et al., https://arxiv.org/abs/2111.06377
    [2] Wang et al., https://arxiv.org/abs/2312.13714
  """

  def __init__(
    self,
    embed: int,
    image: dict[str, Any],
    pixel_decoder: dict[str, Any],
    *,
    loss_predictor: bool = False,
    projector: Sequence[int] = (),
    scale: float = 1 / 0.07,
    dtype: str = 'float32',
    remat: str = 'none',
    attention: str = 'auto',
    rngs: nnx.Rngs,
  ):
    shared: dict[str, Any] = {'dtype': dtype, 'remat': remat, 'attention': attention}
    super().__init__(embed, image, projector=projector, scale=scale, **shared, rngs=rngs)
    self.patches = _check_tower(image, self.image)
    self.pixel_decoder = PixelDecoder(
      self.image.width,
      self.patches,
      3 * self.image.patch**2,
      predictor=loss_predictor,
      **pixel_decoder,
      **shared | {'dtype': jnp.dtype(dtype)},
      rngs=rngs,
    )

  def encode(self, batch, *, keys=None) -> Outputs:
    """Encodes the batch's `image`, with the errors of the masked patches.

    Args:
      batch: the `image` [B, S, S, 3]; where it has the `hardness` [B, P] of patches, the hardest
        are masked: `hard_share`, a scalar, of those that are.
      keys: [B], choose the masked patches; without keys nothing is masked, and the errors are those
        of all patches.
    """
    images, kept, masked = batch['image'], None, None
    if keys is not None:
      kept, masked = self.draw_masks(keys, batch.get('hardness'), batch.get('hard_share'))
    image, features, tokens = self.image_embedding(images, keys=keys, kept=kept)
    pixels, predicted = self.pixel_decoder(tokens, kept, masked)
    patches = take_patches(cut_patches(images, self.image.patch), masked)
    return Outputs(
      image=image,
      image_features=features,
      image_tokens=tokens,
      scale=jnp.exp(self.log_scale[...]),
      patch_errors=losses.patch_errors(pixels, patches),
      predicted_errors=predicted,
    )

  def draw_masks(
    self, keys: jax.Array, hardness: jax.Array | None = None, hard_share: Any = 0.0
  ) -> tuple[jax.Array, jax.Array]:
    """Draws the patches of each image that are kept [B, K] and masked [B, M].

    Args:
      keys: [B].
      hardness: [B, P], of which the highest are masked; None to mask any.
      hard_share: share of the masked patches that are chosen by hardness.
    """
    P = self.patches
    kept = count_kept(P, self.image.patch_dropout)
    easy = None if hardness is None else ~hardest(hardness, hard_share * (P - kept))
    order = draw_patches(keys, P, P, easy)
    return order[:, :kept], order[:, kept:]

  def reconstruct(self, images: jax.Array, kept: jax.Array, masked: jax.Array) -> jax.Array:
    """Images [B, S, S, 3] whose masked patches are reconstructed.

    The decoder tells the pixels of a patch up to their mean and deviation, which are those of the
    image here.
    """
    tokens = self.image(images, kept=kept)[1]
    pixels, _ = self.pixel_decoder(tokens, kept, masked)
    patches = cut_patches(images, self.image.patch)
    _, mean, deviation = normalize_patches(take_patches(patches, masked))
    rows = jnp.arange(len(images))[:, None]
    return join_patches(patches.at[rows, masked].set(pixels * deviation + mean))


class PixelDecoder(nnx.Module):
  """A transformer over visible and masked patches.

  The loss predictor is a second one, over the same tokens.

  Args:
    tokens: width of the encoder's tokens.
    patches: P, patches per image.
    pixels: C, outputs per patch.
    width: of the layers.
    layers: of either transformer.
    heads: of attention.
    predictor: whether there is a loss predictor.
    mlp_ratio: see `Transformer`, as all that follow.
  """

  def __init__(
    self,
    tokens: int,
    patches: int,
    pixels: int,
    *,
    width: int,
    layers: int,
    heads: int,
    predictor: bool,
    mlp_ratio: float = 4,
    scan: bool = False,
    remat: str,
    attention: str,
    dtype,
    rngs,
  ):
    make = {'dtype': dtype, 'rngs': rngs}
    self.embed = Linear(tokens, width, ('embed', None), tokens**-0.5, **make)
    self.mask_token = transformer.position_table(1, width, 0.02, rngs=rngs)
    self.positions = transformer.position_table(patches, width, width**-0.5, rngs=rngs)
    fields = {'mlp_ratio': mlp_ratio, 'scan': scan, 'remat': remat, 'attention': attention}
    stack = lambda outputs: _Stack(width, layers, heads, outputs, **fields, **make)  # noqa: E731
    self.reconstructor = stack(pixels)
    self.predictor = stack(1) if predictor else None

  def __call__(self, tokens, kept=None, masked=None):
    """Decodes tokens [B, K, W] of the patches `kept` [B, K], to what is told of `masked` [B, M].

    Returns:
      Pixels [B, M, C], and predicted errors [B, M] or None, float32; for all P patches in place of
      M where none is masked.
    """
    x = self.embed(tokens)
    if masked is not None:
      hidden = transformer.repeat(self.mask_token[...], len(x), x.dtype)
      hidden = jnp.broadcast_to(hidden, (*masked.shape, x.shape[-1]))
      x = _restore(jnp.concatenate([x, hidden], 1), jnp.concatenate([kept, masked], 1))
    x = transformer.add_parameter(x, self.positions[...])
    pixels = self.reconstructor(x, masked)
    predicted = None if self.predictor is None else self.predictor(x, masked)[..., 0]
    return pixels, predicted


class _Stack(nnx.Module):
  """A transformer with a norm and a linear map."""

  def __init__(self, width, layers, heads, outputs, *, dtype, rngs, **fields):
    make = {'dtype': dtype, 'rngs': rngs}
    self.transformer = transformer.Transformer(width, layers, heads, **fields, **make)
    self.norm = transformer.layer_norm(width, **make)
    axes = ('embed', None)
    make['output_dtype'] = jnp.float32
    self.output = Linear(width, outputs, axes, width**-0.5, **make)

  def __call__(self, x, places):
    """Maps [B, P, D] to the outputs [B, M, C] of some places [B, M]; None for all."""
    return self.output(self.norm(take_patches(self.transformer(x), places)))


def hardest(hardness: jax.Array, count: Any) -> jax.Array:
  """Which patches are the hardest: [B, P], `count` rounded down of each row of `hardness`."""
  ranks = jnp.argsort(jnp.argsort(-hardness, axis=1), axis=1)
  return ranks < jnp.floor(count)


def take_patches(patches: jax.Array, places: jax.Array | None) -> jax.Array:
  """The patches [B, M, C] at some places [B, M] of [B, P, C]; None for all."""
  return patches if places is None else jnp.take_along_axis(patches, places[..., None], 1)


def _restore(patches: jax.Array, order: jax.Array) -> jax.Array:
  """Patches [B, P, C] in an order [B, P], each at its own place."""
  return take_patches(patches, jnp.argsort(order, axis=1))


def cut_patches(images: jax.Array, patch: int) -> jax.Array:
  """Cuts images [B, S, S, 3] into patches [B, P, 3 patch²], by rows; a rest of pixels is left out.

  `join_patches` undoes it.
  """
  B, S, _, C = images.shape
  side = S // patch
  images = images[:, : side * patch, : side * patch]
  squares = images.reshape(B, side, patch, side, patch, C).swapaxes(2, 3)
  return squares.reshape(B, side * side, patch * patch * C)


def join_patches(patches: jax.Array) -> jax.Array:
  """Joins patches [B, P, 3 p²] of square images to images [B, S, S, 3]."""
  B, P, C = patches.shape
  side, patch = round(P**0.5), round((C / 3) ** 0.5)
  squares = patches.reshape(B, side, side, patch, patch, 3).swapaxes(2, 3)
  return squares.reshape(B, side * patch, side * patch, 3)


def _check_tower(fields: Mapping[str, Any], tower: nnx.Module) -> int:
  """Returns the number of patches of a tower that can be masked; raises ValueError for others."""
  for field, works in (('tower', 'vit'), ('stem', 'patch'), ('class_token', False)):
    if (value := fields.get(field, works)) != works:
      raise ValueError(
        f'image.{field} = {value!r} does not suit a masked autoencoder; use {works!r}'
      )
  assert isinstance(tower, ImageTower)
  if tower.class_token is not None:
    raise ValueError(
      f"image.pooling = {tower.pooling!r} of a masked autoencoder has a class token; use 'mean'"
    )
  patches = (tower.size // tower.patch) ** 2
  if count_kept(patches, tower.patch_dropout) == patches:
    raise ValueError(
      f'image.patch_dropout = {tower.patch_dropout} masks none of {patches} patches of a masked '
      'autoencoder; use a share such as 0.75, and unmasked_fraction = 0'
    )
  return patches
