"""The outputs of a model for a batch."""

from collections.abc import Collection, Mapping
from typing import ClassVar

import jax
from flax import struct


class Outputs(struct.PyTreeNode):
  """A model's outputs, which losses and methods read by name; None where there is nothing.

  Attributes:
    image: [B, D] unit vectors.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    bias: scalar added to each similarity.
    caption_logits: [B, L-1, V], position t predicts token t+1.
    hidden: [B, L-1, C], the captioner's states before its output matrix.
    vocabulary: [V, C], that matrix.
    second_text: [B, D] unit vectors of the other text of a pair of texts.
    image_features: [B, W] pooled features before the projection.
    text_features: [B, W] the same for text.
    image_tokens: [B, P, W] tokens of the image tower, after its last norm where it has one.
    text_tokens: [B, L, W] states of the text tower.
    views: [B, V, D] unit vectors of V views of each image, where a step encodes several; the first
      is `image`.
    view_features: [B, V, W] their pooled features before the projection.
    view_tokens: [B, V, P, W] their tokens, as `image_tokens`.
    texts: [B, K, D] unit vectors of K texts of each example, where a step encodes several; the
      first is `text`.
    texts_features: [B, K, W] their pooled features before the projection.
    audio: [B, K, D] unit vectors of K sounds of each example.
    negatives: [B, K, D] unit vectors of K wrong captions of each example, where a step encodes any.
    patch_errors: [B, M] errors of the reconstruction of the M masked patches of each image; of all
      P patches where none is masked.
    predicted_errors: [B, M] what the loss predictor expects of them.
  """

  image: jax.Array | None = None
  text: jax.Array | None = None
  scale: jax.Array | None = None
  bias: jax.Array | None = None
  caption_logits: jax.Array | None = None
  hidden: jax.Array | None = None
  vocabulary: jax.Array | None = None
  second_text: jax.Array | None = None
  image_features: jax.Array | None = None
  text_features: jax.Array | None = None
  image_tokens: jax.Array | None = None
  text_tokens: jax.Array | None = None
  views: jax.Array | None = None
  view_features: jax.Array | None = None
  view_tokens: jax.Array | None = None
  texts: jax.Array | None = None
  texts_features: jax.Array | None = None
  negatives: jax.Array | None = None
  audio: jax.Array | None = None
  patch_errors: jax.Array | None = None
  predicted_errors: jax.Array | None = None

  # Fields that hold a value per token; all others hold one per example, or one in all.
  TOKENS: ClassVar[tuple[str, ...]] = (
    'caption_logits',
    'hidden',
    'vocabulary',
    'image_tokens',
    'text_tokens',
    'view_tokens',
  )
  # Fields that properties, and parts of fields, are made from.
  NEEDS: ClassVar[Mapping[str, tuple[str, ...]]] = {
    'first': ('image', 'text'),
    'second': ('text', 'second_text', 'views'),
    'view': ('image', 'views'),
    'features_of_view': ('image_features', 'view_features'),
    'tokens_of_view': ('image_tokens', 'view_tokens'),
  }

  @property
  def first(self) -> jax.Array | None:
    """One side of a pair [B, D]: the image, or the first of two texts."""
    return self.text if self.image is None else self.image

  @property
  def second(self) -> jax.Array | None:
    """The other side [B, D]: the text, the second of two texts, or the second view of an image."""
    # Not by `image`, which is left out of what a target encoder keeps.
    if self.second_text is not None:
      return self.second_text
    if self.text is not None or self.views is None:
      return self.text
    return self.views[:, 1]

  def keep(self, names: Collection[str]) -> 'Outputs':
    """The outputs of the given names, the others None."""
    return self.replace(**{name: None for name in vars(self) if name not in names})
