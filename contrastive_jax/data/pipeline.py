"""From a source to batches: shuffle, decode, crop, draw a caption, tokenize, batch.

Batch t is a function of the seed and of t, whatever came before it: so the number of the step is
all that a checkpoint needs to go on at the very example, on any number of processes and workers.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags, logging
from PIL import Image

from contrastive_jax.data import images
from contrastive_jax.data.captions import (
  caption_id,
  check_captions,
  draw_caption,
  keep_captions,
  prompt_caption,
)

# Captions whose tokens are kept: they cost more than all else that an epoch repeats.
_KEPT_CAPTIONS = 2**16
# Of pictures of a source that may be kept, once they are decoded and resized.
_KEPT_BYTES = 2**28

# Of the examples seen, or of the first ones, this share may be bad.
_TOLERATED = 0.01
_FIRST = 10_000
# More bad ones than this in a row are no accident.
_BAD_IN_A_ROW = 20
# Examples all over the data, of which one at least is to be good before the first batch.
_LOOKED_AT = 50
# Examples that ids of int32, as the devices have them, tell apart.
_MOST = 2**31


class Skips:
  """Counts the bad examples, names them in the log, and stops the run when they are too many.

  Attributes:
    seen: examples, bad ones too.
    skipped: of them the bad ones.
    truncated: captions that were too long for the tokenizer, and lost their ends.
  """

  def __init__(self, examples: int, tolerated: float = _TOLERATED):
    """Starts from none.

    Args:
      examples: in one pass over the data.
      tolerated: share of the examples seen, or of the first ones, that may be bad.
    """
    self.seen = self.skipped = self.truncated = 0
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


class _Prepare:
  """(number of an example, random generator) -> what the model is shown of it, or its error."""

  def __init__(self, source, tokenizer, image_size: int, captions, prompts, keep, crop):
    self._source, self._image_size, self._crop = source, image_size, crop
    self._captions, self._prompts, self._keep = dict(captions), tuple(prompts), keep
    self._encode = getattr(tokenizer, 'encode', lambda texts: (tokenizer(texts), [0]))
    self._remember()

  def _remember(self):
    keep = _fit_in_memory(self._source, self._image_size)
    self._kept_whole = functools.cache(self._whole) if keep else self._whole
    self._kept_tokens = functools.lru_cache(_KEPT_CAPTIONS)(self._tokens)

  def __getstate__(self):
    # A worker process begins with empty caches.
    return {name: value for name, value in vars(self).items() if not name.startswith('_kept')}

  def __setstate__(self, state):
    vars(self).update(state)
    self._remember()

  def _whole(self, number):
    return images.resize(images.decode(encoded_image(self._source[number])), self._image_size)

  def _tokens(self, text):
    tokens, lost = self._encode([text])
    return {'tokens': tokens[0], 'truncated': lost[0] > 0}

  def _text(self, example, rng):
    """Of the caption that is drawn, or rows of those that are kept."""
    if self._keep is None:
      captions = [draw_caption(example, self._captions, rng)]
    else:
      captions = keep_captions(example, self._captions, self._keep, rng)
    rows = [
      {'same': caption_id(caption)} | self._kept_tokens(prompt_caption(caption, self._prompts, rng))
      for caption in captions
    ]
    return rows[0] if self._keep is None else _stack(rows)

  def __call__(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
    example = self._source[number]
    if 'error' in example:
      return example
    try:
      text = self._text(example, rng)
      if self._crop is None:
        image = self._kept_whole(number)
      else:
        encoded = encoded_image(example)
        image = images.random_resized_crop(encoded, self._image_size, rng, area=self._crop)
    except ValueError as error:
      return {'id': example['id'], 'error': str(error)}
    return {'image': image, 'id': np.int32(example['id'])} | text


def _fit_in_memory(source, image_size: int) -> bool:
  """Whether all pictures may be kept: those of a small file, decoded and enlarged, may be large."""
  return source.cached and 3 * image_size**2 * len(source) <= _KEPT_BYTES


def encoded_image(example: Mapping[str, Any]) -> bytes:
  """The bytes of the example's picture.

  Raises:
    ValueError: if it has none.
  """
  if isinstance(image := example.get('image'), bytes):
    return image
  raise ValueError(
    f"the field 'image' is {'missing' if image is None else type(image).__name__}, no encoded "
    f'picture; the fields are {sorted(example)}'
  )


def _stack(rows) -> dict[str, np.ndarray]:
  return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


class _Rounds(grain.MapDataset):
  """Of each epoch of the parent's stream its first examples alone, so many as a round has."""

  def __init__(self, parent: grain.MapDataset, epoch: int, size: int):
    super().__init__(parent)
    self._epoch, self._size = epoch, size

  def __len__(self) -> int:
    return len(self._parent) // self._epoch * self._size

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    number, place = divmod(index, self._size)
    return self._parent[number * self._epoch + place]


class _Rows(grain.MapDataset):
  """The batches of the parent's stream of examples, of each the rows that one process feeds.

  What a batch holds, and in which order, hangs neither on the number of processes nor on the mesh.
  For a bad example stands that of the same row in the next batch.
  """

  def __init__(self, parent: grain.MapDataset, rows: np.ndarray, batch_size: int):
    super().__init__(parent)
    self._rows, self._batch_size = rows, batch_size

  def __len__(self) -> int:
    return len(self._parent) // self._batch_size - _BAD_IN_A_ROW

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    errors = []
    examples = [self._good(index * self._batch_size + int(row), errors) for row in self._rows]
    return _stack(examples) | {'errors': errors}

  def _good(self, place: int, errors: list):
    example = self._parent[place]
    if 'error' not in example:
      return example
    errors.append(example)
    for batch in range(1, _BAD_IN_A_ROW):
      example = self._parent[place + batch * self._batch_size]
      if 'error' not in example:
        return example
    raise ValueError(
      f'{_BAD_IN_A_ROW} examples in a row cannot be used; '
      f'the last is {example["id"]}: {example["error"]}'
    )


class Batches:
  """Endless batches, which can be set to go on at any.

  Attributes:
    skips: counts the bad examples of the batches that were given out.
  """

  def __init__(self, batches: grain.MapDataset, skips: Skips, *, threads: int, workers: int):
    self._batches, self._threads, self._workers = batches, threads, workers
    self._next, self._ahead = 0, None
    self.skips = skips

  def __iter__(self):
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    if self._ahead is None:
      self._ahead = self._read_ahead()
    batch = next(self._ahead)
    self._next += 1
    errors = batch.pop('errors')
    self.skips.truncated += int(batch.pop('truncated').sum())
    self.skips.seen += len(batch['id']) - len(errors)
    for error in errors:
      self.skips(error)
    return batch

  def _read_ahead(self):
    options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=2 * self._threads)
    batches = self._batches[self._next :].to_iter_dataset(options)
    if self._workers:
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # grain hands the flags of a program on to its workers.
      batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=self._workers))
    return iter(batches)

  def get_state(self) -> dict[str, int]:
    """The place: the number of the next batch."""
    return {'batch': self._next}

  def set_state(self, state: dict[str, int]) -> None:
    """Goes on at the place of a `get_state`, of any number of processes, threads and workers."""
    self.close()
    self._next = state['batch']

  def close(self) -> None:
    """Ends what reads ahead; the next batch starts it anew."""
    if self._ahead is not None:
      self._ahead.close()
      self._ahead = None


def training_batches(
  source,
  tokenizer: Callable,
  *,
  batch_size: int,
  image_size: int,
  captions: Mapping[str, float],
  prompts: Sequence[str] = (),
  keep: int | None = None,
  crop: tuple[float, float] | None = None,
  seed: int,
  subset: float = 1.0,
  replacement: bool = True,
  rows: np.ndarray | None = None,
  threads: int | None = None,
  workers: int = 0,
) -> tuple[Batches, Skips]:
  """Endless batches, of which one process gets its rows; each epoch in another order.

  Args:
    source: examples by number, from `open_source`.
    tokenizer: list of texts -> [., L] integers; one with `encode` tells which were too long.
    batch_size: B, of all processes.
    image_size: S, the side of the pictures.
    captions: see `draw_caption`.
    prompts: see `prompt_caption`.
    keep: K, captions of each example, see `keep_captions`; None to draw one. A step of one's own
      takes them, as tokens [b, K, L] and `same` [b, K].
    crop: least and greatest share of a picture that a random crop shows; None for the whole, as in
      evaluation.
    seed: of order, crops and captions.
    subset: share of the examples that a round draws, RS2 [1]; 1 for all, an epoch.
    replacement: whether a round may draw again what an earlier one did. Without, rounds walk
      through one order until all is drawn: the batches are those of `subset` 1.
    rows: [b] which rows of a batch this process feeds; default all.
    threads: that prepare batches; default: two, or, with workers, or where pictures are kept in
      memory, none but the process's own, which saves what handing over costs.
    workers: processes that prepare batches; 0 for none but the caller's.

  Returns:
    Batches {'image': uint8 [b, S, S, 3], 'tokens': int32 [b, L], 'same': int32 [b], equal where
    captions are, whatever the prompts, 'id': int32 [b]}, and the count of what is skipped in them.

  Raises:
    ValueError: if an option is out of range, or no example can be used.

  References:
    [1] Okanovic et al., Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning,
    2024.
  """
  _check(source, captions, prompts, crop)
  drawn = round(subset * len(source)) if 0 < subset <= 1 else 0
  if not drawn:
    raise ValueError(
      f'config.data.subset = {subset} of {len(source)} examples; use a share of 1 or less that '
      'draws at least one'
    )
  if workers < 0:
    raise ValueError(f'config.data.workers = {workers}; use 0 or more')
  stream = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
  if replacement and drawn < len(source):
    stream = _Rounds(stream, len(source), drawn)
  stream = stream.random_map(_Prepare(source, tokenizer, image_size, captions, prompts, keep, crop))
  rows = np.arange(batch_size) if rows is None else rows
  if threads is None:
    kept = crop is None and _fit_in_memory(source, image_size)
    threads = 0 if workers or kept else 2
  skips = Skips(len(source))
  batches = _Rows(stream, rows, batch_size)
  return Batches(batches, skips, threads=threads, workers=workers), skips


def _check(source, captions, prompts, crop) -> None:
  """A mistake in the config must not look like a bad picture."""
  if len(source) > _MOST:
    raise ValueError(
      f'config.data.name has {len(source)} examples, whose ids are int32; train on a slice, as '
      f'config.data.split = train[:{_MOST}]'
    )
  if crop is not None:
    images.random_resized_crop(Image.new('RGB', (8, 8)), 8, np.random.default_rng(0), area=crop)
  # The first examples may be bad ones; those of a bucket that stays away take seconds each.
  places = np.linspace(0, len(source) - 1, min(len(source), _LOOKED_AT)).astype(int).tolist()
  examples = (source[place] for place in places)
  first = next((example for example in examples if 'error' not in example), None)
  if first is None:
    raise ValueError(f'no example of {len(places)} can be used; the first: {source[0]["error"]}')
  encoded_image(first)
  check_captions(first, captions, prompts)


def evaluation_images(source, image_size: int) -> np.ndarray:
  """All pictures of a source in order, uint8 [N, S, S, 3], as the model is evaluated on them.

  Raises:
    ValueError: if one cannot be used: figures without it would be of another data set.
  """
  # Filled in place: a list to stack would take as much memory again.
  pictures = np.empty([len(source), image_size, image_size, 3], np.uint8)
  for number in range(len(source)):
    example = source[number]
    if 'error' in example:
      raise ValueError(f'example {example["id"]} cannot be evaluated: {example["error"]}')
    pictures[number] = images.resize(images.decode(encoded_image(example)), image_size)
  return pictures
