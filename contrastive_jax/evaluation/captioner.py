"""Generates captions for the images of an evaluation."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from contrastive_jax import data
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.batches import in_batches, jit_batched
from contrastive_jax.models.definition import Definition
from contrastive_jax.models.generation import generate
from contrastive_jax.sharding.mesh import batch_shards


class Captioner:
  """Captions images batch by batch.

  Args:
    definition: a model with a captioner.
    tokenizer: the model's tokenizer.
    mesh: mesh over which batches are sharded.
    image_size: side of the images.
    batch_size: images per batch.
    rules: fields of `models.generation.Rules`, except the tokenizer's ids.
    normalize: pixels from 0 to 255 -> what the model takes; default CLIP's.

  Raises:
    ValueError: if the model cannot caption by these rules, found by tracing without a compile.
  """

  def __init__(
    self,
    definition: Definition,
    tokenizer: data.Tokenizer,
    mesh: Mesh,
    image_size: int,
    batch_size: int,
    rules: Mapping[str, Any],
    normalize: Callable = normalize,
  ):
    self._tokenizer, self._mesh, self._batch_size = tokenizer, mesh, batch_size
    write = partial(generate, start_id=tokenizer.start_id, end_id=tokenizer.end_id, **rules)
    self._write = jit_batched(
      lambda parameters, images: write(definition.bind(parameters), normalize(images)).tokens, mesh
    )
    images = jax.ShapeDtypeStruct((batch_shards(mesh), image_size, image_size, 3), np.uint8)
    try:
      jax.eval_shape(self._write, definition.shapes, images)
    except (TypeError, ValueError) as error:
      raise ValueError(f'config.evaluation.captions = {dict(rules)}: {error}') from error

  def __call__(self, parameters, images: np.ndarray) -> list[str]:
    """Returns captions of images [N, S, S, 3], uint8."""
    write = partial(self._write, parameters)
    tokens = in_batches(write, images, self._batch_size, self._mesh)
    return [self._tokenizer.decode(row) for row in tokens]
