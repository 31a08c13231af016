"""From a source to batches: shuffle, decode, crop, draw a caption, tokenize, batch.

All that is random follows from the seed and the example's place in the run, so the position of the
iterator is all that a checkpoint needs to go on at the very example.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np
from absl import logging
from PIL import Image

from contrastive_jax.data import images

# Captions whose tokens are kept: they cost more than all else that an epoch repeats.
_KEPT_CAPTIONS = 2**16

# Of the examples seen, or of the first ones, this share may be bad.
_TOLERATED = 0.01
_FIRST = 10_000


class Skips:
  """Counts the bad examples, names them in the log, and stops the run when they are too many."""

  def __init__(self, examples: int):
    self.seen = 0
    self.skipped = 0
    self._first = min(examples, _FIRST)

  def __call__(self, example: Mapping[str, Any]) -> bool:
    """True for a good example."""
    self.seen += 1
    if 'error' not in example:
      return True
    self.skipped += 1
    logging.warning('skipped example %s: %s', example['id'], example['error'])
    if self.skipped > _TOLERATED * max(self.seen, self._first):
      raise ValueError(
        f'{self.skipped} of {self.seen} examples cannot be used, over {_TOLERATED:.0%}; '
        f'the last is {example["id"]}: {example["error"]}'
      )
    return False


def caption_id(caption: str) -> np.int32:
  """An integer by which equal captions are known, the same on every process."""
  return np.frombuffer(hashlib.blake2b(caption.encode(), digest_size=4).digest(), np.int32)[0]


def draw_caption(
  example: Mapping[str, Any], weights: Mapping[str, float], rng: np.random.Generator
) -> str:
  """Draws a text of the example.

  Args:
    example: texts by field; a field with several, as tags, gives some of them in any order.
    weights: how often each field is drawn; an empty one is passed over.
    rng: draws.

  Raises:
    ValueError: if all those fields are empty.
  """
  texts = {}
  for field in filter(weights.get, weights):
    value = example[field]
    value = value.strip() if isinstance(value, str) else [v.strip() for v in value if v.strip()]
    if value:
      texts[field] = value
  if not texts:
    raise ValueError(f'the caption is empty (fields {sorted(weights)})')
  text, *others = texts.values()
  if others:
    shares = np.array([weights[field] for field in texts], float)
    text = [text, *others][rng.choice(len(texts), p=shares / shares.sum())]
  if isinstance(text, str):
    return text
  return ', '.join(rng.permutation(text)[: rng.integers(1, len(text) + 1)])


def training_batches(
  source,
  tokenizer: Callable,
  *,
  batch_size: int,
  image_size: int,
  captions: Mapping[str, float],
  crop: tuple[float, float] | None = None,
  seed: int,
  shard: int = 0,
  shards: int = 1,
  threads: int | None = None,
) -> tuple[Iterator[dict[str, np.ndarray]], Skips]:
  """Endless batches of one process's shard, each epoch in another order.

  Args:
    source: examples by number, from `open_source`.
    tokenizer: list of texts -> [., L] integers.
    batch_size: b, the rows of this process.
    image_size: S, the side of the pictures.
    captions: see `draw_caption`.
    crop: least and greatest share of a picture that a random crop shows; None for the whole, as in
      evaluation.
    seed: of order, crops and captions.
    shard: this process's number.
    shards: the number of processes.
    threads: that decode and crop; default: two, or, where pictures are kept in memory, the caller's
      own, which saves what handing over costs.

  Returns:
    A checkpointable grain iterator of {'image': uint8 [b, S, S, 3], 'tokens': int32 [b, L], 'same':
    int32 [b], equal where captions are, 'id': int32 [b]}, and the count of examples it skipped.
  """
  _check(source, captions, crop, shards)

  def whole(index):
    return images.resize(images.decode(source[index]['image']), image_size)

  if source.cached:
    whole = functools.cache(whole)

  @functools.lru_cache(_KEPT_CAPTIONS)
  def tokens_and_id(caption):
    return tokenizer([caption])[0], caption_id(caption)

  def prepare(index, rng):
    example = source[index]
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
  examples = grain.MapDataset.range(len(source)).seed(seed).shuffle()[shard::shards].repeat()
  examples = examples.random_map(prepare).to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * batch_size)
  )
  return iter(examples.filter(skips).batch(batch_size, drop_remainder=True)), skips


def _check(source, captions, crop, shards) -> None:
  """A mistake in the config must not look like a bad picture."""
  if len(source) < shards:
    raise ValueError(f'{len(source)} examples do not serve {shards} processes')
  if crop is not None:
    images.random_resized_crop(Image.new('RGB', (8, 8)), 8, np.random.default_rng(0), area=crop)
  if not captions or (missing := [field for field in captions if field not in source[0]]):
    raise ValueError(
      f'config.data.captions = {captions} names {missing if captions else "nothing"}; '
      f'use fields of {sorted(source[0])}'
    )


def evaluation_images(source, image_size: int) -> np.ndarray:
  """All pictures of a source in order, uint8 [N, S, S, 3], as the model is evaluated on them."""
  return np.stack(
    [images.resize(images.decode(source[i]['image']), image_size) for i in range(len(source))]
  )
