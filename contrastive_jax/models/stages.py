"""Stages of blocks, of which convolutional towers are built."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.dropout import Drop, fold
from contrastive_jax.sharding.mesh import constrain_batch

# Each stage halves the image, after the stem has divided its side by 4.
STAGES = 4


def visit(block: nnx.Module, x: jax.Array, remat, *inputs) -> jax.Array:
  """Applies a block to x [B, ...] and inputs, rematerialized by options of `transformer.REMATS`.

  Running statistics of the block may change, which `jax.checkpoint` would refuse.
  """
  call = lambda block, x: block(x, *inputs)  # noqa: E731
  call = call if remat is None else nnx.remat(call, **remat)
  return call(block, constrain_batch(x))


def path_drops(keys, drop_path: float, blocks: int) -> list[Drop | None]:
  """What stochastic depth drops of each block, with probabilities from 0 to `drop_path`.

  Args:
    keys: [B] random keys; None in evaluation.
    drop_path: probability of dropping a branch of the last block for an example.
    blocks: number of blocks.

  Raises:
    ValueError: if the probability is not in [0, 1).
  """
  if not 0 <= drop_path < 1:
    raise ValueError(f'image.drop_path = {drop_path} is not in [0, 1)')
  if keys is None or not drop_path:
    return [None] * blocks
  rates = np.linspace(0, drop_path, blocks)
  return [Drop(fold(keys, block), 0.0, rate) for block, rate in enumerate(rates)]


def check_stages(name: str, size: int, layers: Sequence[int]) -> None:
  """Raises ValueError for an image size or numbers of blocks that four stages cannot have."""
  check_size('image.size', size, name)
  if isinstance(layers, int) or len(layers) != STAGES or min(layers) < 1:
    raise ValueError(
      f'image.layers = {layers}; a {name} has {STAGES} stages, so use as many numbers, such as '
      '(3, 4, 6, 3)'
    )


def check_size(field: str, size: int, name: str) -> None:
  """Raises ValueError for an image size that is not a multiple of 32 pixels."""
  if size < 1 or size % 32:
    raise ValueError(f'{field} = {size} is not a multiple of 32, which a {name} needs')


def check_pooling(pooling: str, own: str) -> None:
  """Raises ValueError for a pooling other than a tower's own and 'none'."""
  transformer.choose('image.pooling', pooling, dict.fromkeys((own, 'none')))


def describe_stages(fields: Mapping[str, Any]) -> str:
  """Describes a tower of stages in a model card."""
  layers, size = ', '.join(map(str, fields['layers'])), fields['size']
  return f'{layers} blocks from width {fields["width"]}, {size} x {size} pixels'
