"""Encodes the two sides of pairs with given parameters, batch by batch."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from contrastive_jax.data.augmentation import augment
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.batches import in_batches, jit_batched
from contrastive_jax.evaluation.splits import Split
from contrastive_jax.models.definition import Definition


class Encoder:
  """Encodes images and texts, or first and second texts, to unit vectors.

  Each function is compiled once.

  Attributes:
    sides: their names, ('image', 'text') or ('first', 'second').

  Args:
    definition: the model.
    tokenizer: texts -> integers [., L].
    mesh: mesh over which batches are sharded.
    batch_size: images or texts per batch.
    normalize: pixels from 0 to 255 -> what the model takes; default CLIP's.
    augmentation: strengths of `view`, see `augment`.
  """

  def __init__(
    self,
    definition: Definition,
    tokenizer: Callable,
    mesh: Mesh,
    batch_size: int,
    normalize: Callable = normalize,
    augmentation: Mapping[str, float] = MappingProxyType({}),
  ):
    self._bind, self._tokenizer = definition.bind, tokenizer
    self._batch_size, self._mesh = batch_size, mesh
    self._encode_image = jit_batched(
      lambda parameters, images: self._bind(parameters).encode_image(normalize(images)), mesh
    )
    self._encode_text = jit_batched(
      lambda parameters, tokens: self._bind(parameters).encode_text(tokens), mesh
    )
    self._encode_audio = jit_batched(
      lambda parameters, audio: self._bind(parameters).encode_audio(audio), mesh
    )

    def encode_view(parameters, seen):
      images, seeds = seen
      keys = jax.vmap(jax.random.key)(seeds)
      view = augment(keys, images, images.shape[1], dict(augmentation))
      return self._bind(parameters).image_embedding(normalize(view))[0]

    self._encode_view = jit_batched(encode_view, mesh)
    self.sides, self._encode_second = ('image', 'text'), self._encode_text
    if 'second_tokens' in definition.inputs:
      self.sides = ('first', 'second')
      self._encode_second = jit_batched(
        lambda parameters, tokens: self._bind(parameters).encode_second_text(tokens), mesh
      )

  def first(self, parameters, split: Split) -> np.ndarray:
    """Encodes the N images of a split, or its first texts, to [N, D]."""
    if split.images is None:
      return self._in_batches(self._encode_text, parameters, self._tokenizer(split.first_texts))
    images = split.images if split.patches is None else split.patches
    return self._in_batches(self._encode_image, parameters, images)

  def view(self, parameters, split: Split, number: int) -> np.ndarray:
    """Encodes an augmented view of the N images of a split to [N, D], what the loss compares.

    Args:
      parameters: the model's.
      split: square images.
      number: of the view, which tells one from another; each is the same in every evaluation.
    """
    seeds = np.uint32(number * len(split.images)) + np.arange(len(split.images), dtype=np.uint32)
    return self._in_batches(self._encode_view, parameters, (split.images, seeds))

  def texts(self, parameters, texts: Sequence[str]) -> np.ndarray:
    """Encodes N texts, the second side of pairs, to [N, D]."""
    return self._in_batches(self._encode_second, parameters, self._tokenizer(texts))

  def audio(self, parameters, spectrograms: np.ndarray) -> np.ndarray:
    """Encodes N sounds [N, S, S] to [N, D]."""
    return self._in_batches(self._encode_audio, parameters, spectrograms)

  def scale(self, parameters) -> float:
    """Returns the inverse temperature."""
    return float(jnp.exp(self._bind(parameters).log_scale[...]))

  def _in_batches(self, encode, parameters, inputs) -> np.ndarray:
    return in_batches(partial(encode, parameters), inputs, self._batch_size, self._mesh)
