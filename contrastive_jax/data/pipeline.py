"""From a source to batches: shuffle, decode, crop, draw a caption, tokenize, batch.

All that is random follows from the seed and the example's place in the run, so the position of the
iterator is all that a checkpoint needs to go on at the very example.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import logging
from PIL import Image

from contrastive_jax.data import images
from contrastive_jax.data.captions import caption_id, draw_caption

# Captions whose tokens are kept: they cost more than all else that an epoch repeats.
_KEPT_CAPTIONS = 2**16

# Of the examples seen, or of the first ones, this share may be bad.
_TOLERATED = 0.01
_FIRST = 10_000


class Skips:
  """Counts the bad examples, names them in the log, and stops the run when they are too many."""

  def __init__(self, examples: int, tolerated: float = _TOLERATED):
    """Starts from none.

    Args:
      examples: in one pass over the data.
      tolerated: share of the examples seen, or of the first ones, that may be bad.
    """
    self.seen = 0
    self.skipped = 0
    self._first = min(examples, _FIRST)
    self._tolerated = tolerated

  def __call__(self, example: Mapping[str, Any]) -> bool:
    """True for a good example."""
    self.seen += 1
    if 'error' not in example:
      return True
    self.skipped += 1
    logging.warning('skipped example %s: %s', example['id'], example['error'])
    if self.skipped > self._tolerated * max(self.seen, self._first):
      raise ValueError(
        f'{self.skipped} of {self.seen} examples cannot be used, over {self._tolerated:.0%}; '
        f'the last is {example["id"]}: {example["error"]}'
      )
    return False


class _Rows(grain.MapDataset):
  """The examples of one process, which feeds some rows of each batch of the parent's stream.

  What a batch holds, and in which order, hangs neither on the number of processes nor on the mesh.
  """

  def __init__(self, parent: grain.MapDataset, rows: np.ndarray, batch_size: int):
    super().__init__(parent)
    self._rows, self._batch_size = rows, batch_size

  def __len__(self) -> int:
    return len(self._parent) // self._batch_size * len(self._rows)

  def __getitem__(self, index):
    batch, row = divmod(index, len(self._rows))
    return self._parent[batch * self._batch_size + int(self._rows[row])]


def training_batches(
  source,
  tokenizer: Callable,
  *,
  batch_size: int,
  image_size: int,
  captions: Mapping[str, float],
  crop: tuple[float, float] | None = None,
  seed: int,
  rows: np.ndarray | None = None,
  threads: int | None = None,
) -> tuple[Iterator[dict[str, np.ndarray]], Skips]:
  """Endless batches, of which one process gets its rows; each epoch in another order.

  Args:
    source: examples by number, from `open_source`.
    tokenizer: list of texts -> [., L] integers.
    batch_size: B, of all processes.
    image_size: S, the side of the pictures.
    captions: see `draw_caption`.
    crop: least and greatest share of a picture that a random crop shows; None for the whole, as in
      evaluation.
    seed: of order, crops and captions.
    rows: [b] which rows of a batch this process feeds; default all. Its next example stands in for
      a bad one.
    threads: that decode and crop; default: two, or, where pictures are kept in memory, the caller's
      own, which saves what handing over costs.

  Returns:
    A checkpointable grain iterator of {'image': uint8 [b, S, S, 3], 'tokens': int32 [b, L], 'same':
    int32 [b], equal where captions are, 'id': int32 [b]}, and the count of examples it skipped.
  """
  _check(source, captions, crop)
  rows = np.arange(batch_size) if rows is None else rows

  def whole(index):
    return images.resize(images.decode(source[index]['image']), image_size)

  if source.cached:
    whole = functools.cache(whole)

  @functools.lru_cache(_KEPT_CAPTIONS)
  def tokens_and_id(caption):
    return tokenizer([caption])[0], caption_id(caption)

  def prepare(index, rng):
    example = source[index]
    if 'error' in example:
      return example
    try:
      caption = draw_caption(example, captions, rng)
      if crop is None:
        image = whole(index)
      else:
        picture = images.decode(example['image'])
        image = images.random_resized_crop(picture, image_size, rng, area=crop)
    except ValueError as error:
      return {'id': example['id'], 'error': str(error)}
    tokens, same = tokens_and_id(caption)
    return {'image': image, 'tokens': tokens, 'same': same, 'id': np.int32(example['id'])}

  if threads is None:
    threads = 0 if source.cached and crop is None else 2
  skips = Skips(len(source))
  stream = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat().random_map(prepare)
  examples = _Rows(stream, rows, batch_size).to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * len(rows))
  )
  return iter(examples.filter(skips).batch(len(rows), drop_remainder=True)), skips


def _check(source, captions, crop) -> None:
  """A mistake in the config must not look like a bad picture."""
  if crop is not None:
    images.random_resized_crop(Image.new('RGB', (8, 8)), 8, np.random.default_rng(0), area=crop)
  # The first examples may be bad ones.
  examples = (source[i] for i in range(min(len(source), _FIRST)))
  first = next((example for example in examples if 'error' not in example), None)
  if first is None:
    raise ValueError(f'no example can be used; the first: {source[0]["error"]}')
  if not captions or (missing := [field for field in captions if field not in first]):
    raise ValueError(
      f'config.data.captions = {captions} names {missing if captions else "nothing"}; '
      f'use fields of {sorted(first)}'
    )


def evaluation_images(source, image_size: int) -> np.ndarray:
  """All pictures of a source in order, uint8 [N, S, S, 3], as the model is evaluated on them.

  Raises:
    ValueError: if one cannot be used: figures without it would be of another data set.
  """

  def resized(example):
    if 'error' in example:
      raise ValueError(f'example {example["id"]} cannot be evaluated: {example["error"]}')
    return images.resize(images.decode(example['image']), image_size)

  return np.stack([resized(source[i]) for i in range(len(source))])
