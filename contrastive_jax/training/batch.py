"""Shapes of a batch, before there is one."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.models.definition import Definition

# Columns with an entry per text of an example.
_OF_TEXTS = ('tokens', 'same', 'teacher_tokens', 'teacher_text')


def batch_shapes(config: ConfigDict) -> data.BatchShapes:
  """The shapes of the batches of a run, in their order."""
  fields = config.data
  if not fields.sequence_lengths:
    return data.BatchShapes([data.BatchShape(config.batch_size)], config.seed)
  patches = fields.patch_sizes or (config.model.image.patch,)
  shapes = data.shapes_of_budget(
    config.batch_size, fields.sequence_lengths, patches, fields.batch_multiple
  )
  return data.BatchShapes(shapes, config.seed)


def abstract_batch(
  config: ConfigDict,
  definition: Definition,
  shape: data.BatchShape | None = None,
  *,
  columns: Mapping[str, tuple[tuple[int, ...], Any]] = MappingProxyType({}),
) -> dict[str, Any]:
  """A batch of all processes, as a step takes it from `data.training_batches`.

  Args:
    config: of a run.
    definition: its model, which says what the batch holds.
    shape: of the batch; default that of the longest sequences.
    columns: shape per example and dtype of what the batch holds for a teacher, by name.
  """
  on_host = config.augment_on == 'host'
  shape = shape or batch_shapes(config).longest
  B, K, M = shape.batch_size, config.texts, config.data.negatives
  dtypes = {'numbers': jnp.float32, 'nodes': jnp.int32}

  def several(name: str) -> tuple[int, ...]:
    if name == 'negative_tokens':
      return (M,)
    return (K,) if K > 1 and name in _OF_TEXTS else ()

  def of(name: str) -> Any:
    if name == 'image' and shape.length:
      return abstract_patches(shape, jnp.uint8)
    if name == 'image':
      size = (config.model.image if on_host else config.data).size
      return jax.ShapeDtypeStruct((B, size, size, 3), jnp.uint8)
    if name == 'audio':
      size = config.model.audio.size
      return jax.ShapeDtypeStruct((B, config.data.voices, size, size), jnp.uint8)
    if name.endswith('tokens'):
      return jax.ShapeDtypeStruct((B, *several(name), config.model.text.length), jnp.int32)
    if name in dtypes:
      return jax.ShapeDtypeStruct((B, len(config.data[name])), dtypes[name])
    dtype = jnp.float32 if name == 'number' else jnp.int32
    return jax.ShapeDtypeStruct((B, *several(name)), dtype)

  names = [*definition.inputs, 'id']
  if 'tokens' in definition.inputs:
    names += ['same', 'negative_tokens'] if M else ['same']
  names += [name for name in ('labels', 'number') if config.data[name]]
  own = {
    name: jax.ShapeDtypeStruct((B, *several(name), *shape), dtype)
    for name, (shape, dtype) in columns.items()
  }
  return {name: of(name) for name in names} | own


def abstract_patches(shape: data.BatchShape, dtype: Any) -> data.Patches:
  """The patches of a batch of all processes."""
  pixels = (shape.batch_size, shape.length, shape.patch, shape.patch, 3)
  grid = jax.ShapeDtypeStruct((shape.batch_size, 2), jnp.int32)
  return data.Patches(jax.ShapeDtypeStruct(pixels, dtype), grid)


def abstract_inputs(config: ConfigDict, definition: Definition, batch_size: int) -> dict[str, Any]:
  """What the model's `encode` takes of a batch of the given size: images as it sees them."""
  batch = abstract_batch(config, definition)

  def of(name, leaf):
    if isinstance(leaf, data.Patches):
      _, length, patch, *_ = leaf.pixels.shape
      return abstract_patches(data.BatchShape(batch_size, length, patch), jnp.float32)
    if name == 'image':
      size = config.model.image.size
      return jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.float32)
    # Of several texts, `encode` takes one.
    shape = leaf.shape[2:] if name == 'tokens' and leaf.ndim == 3 else leaf.shape[1:]
    return jax.ShapeDtypeStruct((batch_size, *shape), leaf.dtype)

  return {name: of(name, batch[name]) for name in definition.inputs}
