"""CLIP with a tower for sounds: a log-mel spectrogram is a picture with one channel."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import towers
from contrastive_jax.models.clip import Clip, project, projection
from contrastive_jax.models.dropout import fold
from contrastive_jax.models.outputs import Outputs


class AudioClip(Clip):
  """A `Clip` that embeds the sounds of an example too, such as its name as several people say it.

  Args:
    embed: D, the width of the shared space.
    image: see `Clip`.
    text: see `Clip`.
    audio: arguments of the tower of sounds, which is an image tower, see `towers`: its `size` is
      the number S of frames and of mel bands of a spectrogram.
    audio_projection: see `image_projection` of `Clip`.
    image_projection: see `Clip`, as all that follow.
  """

  inputs = ('image', 'tokens', 'audio')

  def __init__(
    self,
    embed: int,
    image: dict[str, Any],
    text: dict[str, Any],
    audio: dict[str, Any],
    *,
    audio_projection: str = 'linear',
    image_projection: str = 'linear',
    text_projection: str = 'linear',
    scale: float = 1 / 0.07,
    bias: float | None = None,
    dtype: str = 'float32',
    remat: str = 'none',
    attention: str = 'auto',
    rngs: nnx.Rngs,
  ):
    shared = {'remat': remat, 'attention': attention}
    projections = {'image_projection': image_projection, 'text_projection': text_projection}
    options = {**projections, **shared, 'scale': scale, 'bias': bias, 'dtype': dtype}
    super().__init__(embed, image, text, **options, rngs=rngs)
    make = {'dtype': jnp.dtype(dtype), 'rngs': rngs}
    self.audio = towers.image_tower({**shared, **audio}, **make)
    self.audio_projection = projection('audio', audio_projection, self.audio.width, embed, make)

  def encode_audio(self, audio, *, keys=None):
    """Unit vectors [B, D] of log-mel spectrograms [B, S, S], values from 0 to 255."""
    gray = audio.astype(jnp.float32)[..., None] / 127.5 - 1
    pictures = jnp.broadcast_to(gray, (*audio.shape, 3))
    return project(self.audio_projection, self.audio(pictures, keys=keys)[0])

  def encode(self, batch, *, keys=None) -> Outputs:
    """Encodes the batch's `image`, `tokens` and `audio`."""
    return self(batch['image'], batch['tokens'], batch['audio'], keys=keys)

  def __call__(self, images, tokens, audio, *, keys=None) -> Outputs:
    """Encodes a batch.

    Args:
      images: [B, H, W, 3] floats, normalized.
      tokens: [B, L] integers, padded with 0.
      audio: [B, K, S, S] log-mel spectrograms of K sounds of each example, from 0 to 255.
      keys: [B] random keys, one per example; only for training.

    Raises:
      ValueError: if images, tokens or spectrograms have a shape that the model does not take.
    """
    outputs = super().__call__(images, tokens, keys=keys)
    B, K, *sides = audio.shape
    if keys is not None:
      # Folded in past those of texts, of which there are few.
      keys = jnp.stack([fold(keys, 1000 + number) for number in range(K)], 1).reshape(-1)
    vectors = self.encode_audio(audio.reshape(B * K, *sides), keys=keys)
    return outputs.replace(audio=vectors.reshape(B, K, -1))
