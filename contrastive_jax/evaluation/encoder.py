"""Encodes images and texts with given parameters, batch by batch."""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.batches import in_batches, jit_batched
from contrastive_jax.models.definition import Definition


class Encoder:
  """Encodes images and texts to unit vectors; each function is compiled once.

  Args:
    definition: the model.
    tokenizer: texts -> integers [., L].
    mesh: mesh over which batches are sharded.
    batch_size: images or texts per batch.
  """

  def __init__(self, definition: Definition, tokenizer: Callable, mesh: Mesh, batch_size: int):
    self._bind, self._tokenizer = definition.bind, tokenizer
    self._batch_size, self._mesh = batch_size, mesh
    self._encode_image = jit_batched(
      lambda parameters, images: self._bind(parameters).encode_image(normalize(images)), mesh
    )
    self._encode_text = jit_batched(
      lambda parameters, tokens: self._bind(parameters).encode_text(tokens), mesh
    )

  def images(self, parameters, images: np.ndarray) -> np.ndarray:
    """Encodes pixels [N, S, S, 3], uint8, to [N, D]."""
    return self._in_batches(self._encode_image, parameters, images)

  def texts(self, parameters, texts: Sequence[str]) -> np.ndarray:
    """Encodes N texts to [N, D]."""
    return self._in_batches(self._encode_text, parameters, self._tokenizer(texts))

  def scale(self, parameters) -> float:
    """Returns the inverse temperature."""
    return float(jnp.exp(self._bind(parameters).log_scale[...]))

  def _in_batches(self, encode, parameters, inputs) -> np.ndarray:
    return in_batches(partial(encode, parameters), inputs, self._batch_size, self._mesh)
