"""Shapes of a batch, before there is one."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contrastive_jax.models.definition import Definition


def abstract_batch(config: ConfigDict, definition: Definition) -> dict[str, jax.ShapeDtypeStruct]:
  """A batch of all processes, as a step takes it from `data.training_batches`.

  Args:
    config: of a run.
    definition: its model, which says what the batch holds.
  """
  on_host = config.augment_on == 'host'
  B, K = config.batch_size, config.texts
  columns = {'numbers': jnp.float32, 'nodes': jnp.int32}

  def several(name: str) -> tuple[int, ...]:
    return (K,) if K > 1 and name in ('tokens', 'same') else ()

  def of(name: str) -> jax.ShapeDtypeStruct:
    if name == 'image':
      size = (config.model.image if on_host else config.data).size
      return jax.ShapeDtypeStruct((B, size, size, 3), jnp.uint8)
    if name.endswith('tokens'):
      return jax.ShapeDtypeStruct((B, *several(name), config.model.text.length), jnp.int32)
    if name in columns:
      return jax.ShapeDtypeStruct((B, len(config.data[name])), columns[name])
    return jax.ShapeDtypeStruct((B, *several(name)), jnp.int32)

  names = [*definition.inputs, 'id']
  if 'tokens' in definition.inputs:
    names.append('same')
  if config.data.labels:
    names.append('labels')
  return {name: of(name) for name in names}


def abstract_inputs(
  config: ConfigDict, definition: Definition, batch_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """What the model's `encode` takes of a batch of the given size: images as it sees them."""
  batch = abstract_batch(config, definition)

  def of(name, leaf):
    if name == 'image':
      size = config.model.image.size
      return jax.ShapeDtypeStruct((batch_size, size, size, 3), jnp.float32)
    # Of several texts, `encode` takes one.
    shape = leaf.shape[2:] if name == 'tokens' and leaf.ndim == 3 else leaf.shape[1:]
    return jax.ShapeDtypeStruct((batch_size, *shape), leaf.dtype)

  return {name: of(name, batch[name]) for name in definition.inputs}
