"""From a source to batches: shuffle, decode, crop, draw a caption, tokenize, batch.

Batch t is a function of the seed and of t, whatever came before it: so the number of the step is
all that a checkpoint needs to go on at the very example, on any number of processes and workers.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from PIL import Image

from contrastive_jax.data import images
from contrastive_jax.data.batches import Batches, Skips
from contrastive_jax.data.captions import (
  caption_id,
  check_captions,
  draw_caption,
  keep_captions,
  prompt_caption,
)
from contrastive_jax.data.sources.source import place_of

# Captions whose tokens are kept: they cost more than all else that an epoch repeats.
_KEPT_CAPTIONS = 2**16
# Of pictures of a source that may be kept, once they are decoded and resized.
_KEPT_BYTES = 2**28
# Examples all over the data, of which one at least is to be good before the first batch.
_LOOKED_AT = 50
# Examples that ids of int32, as the devices have them, tell apart.
_MOST = 2**31


class _Draw:
  """(number of an example, random generator) -> the example, and all that chance decides of it."""

  def __init__(self, source, captions, prompts, keep):
    self._source, self._captions = source, dict(captions)
    self._prompts, self._keep = tuple(prompts), keep

  def __call__(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
    example = self._source[number]
    if 'error' in example:
      return example
    try:
      if self._keep is None:
        captions = [draw_caption(example, self._captions, rng)]
      else:
        captions = keep_captions(example, self._captions, self._keep, rng)
      return {
        'id': example['id'],
        'number': number,
        'where': functools.partial(place_of, self._source, number),
        'image': encoded_image(example),
        'captions': captions,
        'texts': [prompt_caption(caption, self._prompts, rng) for caption in captions],
        'place': rng.random(4),
      }
    except ValueError as error:
      return {'id': example['id'], 'error': f'{place_of(self._source, number)}: {error}'}


class _Show:
  """What the model is shown of an example that was drawn: its pixels and its tokens."""

  def __init__(self, tokenizer, image_size: int, crop, keep, in_memory: bool):
    self._encode = getattr(tokenizer, 'encode', lambda texts: (tokenizer(texts), [0]))
    self.image_size, self._crop, self._keep, self._in_memory = image_size, crop, keep, in_memory
    self._remember()

  def _remember(self):
    self._kept_pictures = {}
    self._kept_tokens = functools.lru_cache(_KEPT_CAPTIONS)(self._tokens)

  def __getstate__(self):
    # A worker process begins with empty caches.
    return {name: value for name, value in vars(self).items() if not name.startswith('_kept')}

  def __setstate__(self, state):
    vars(self).update(state)
    self._remember()

  def _whole(self, drawn):
    picture = self._kept_pictures.get(drawn['number'])
    if picture is None:
      picture = images.resize(images.decode(drawn['image']), self.image_size)
      if self._in_memory:
        self._kept_pictures[drawn['number']] = picture
    return picture

  def _tokens(self, text):
    tokens, lost = self._encode([text])
    return tokens[0], lost[0] > 0

  def pixels(self, drawn: Mapping[str, Any]) -> np.ndarray:
    """uint8 [S, S, 3].

    Raises:
      ValueError: if the picture does not decode, or the example was a bad one before.
    """
    if 'error' in drawn:
      raise ValueError(drawn['error'])
    try:
      if self._crop is None:
        return self._whole(drawn)
      return images.resized_crop(drawn['image'], self.image_size, drawn['place'], area=self._crop)
    except ValueError as error:
      raise ValueError(f'{drawn["where"]()}: {error}') from error

  def texts(self, drawn: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Ids, and of each caption what it is known by, its tokens, and whether they are all."""
    captions = [caption for example in drawn for caption in example['captions']]
    tokens = [self._kept_tokens(text) for example in drawn for text in example['texts']]
    columns = {
      'same': np.array([caption_id(caption) for caption in captions]),
      'tokens': np.stack([row for row, _ in tokens]),
      'truncated': np.array([lost for _, lost in tokens]),
    }
    if self._keep is not None:
      columns = {
        name: column.reshape(len(drawn), self._keep, *column.shape[1:])
        for name, column in columns.items()
      }
    return columns | {'id': np.array([example['id'] for example in drawn], np.int32)}


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
  stream = stream.random_map(_Draw(source, captions, prompts, keep))
  in_memory = crop is None and _fit_in_memory(source, image_size)
  show = _Show(tokenizer, image_size, crop, keep, in_memory)
  rows = np.arange(batch_size) if rows is None else rows
  if threads is None:
    threads = 0 if workers or in_memory else 2
  skips = Skips(len(source))
  options = {'batch_size': batch_size, 'threads': threads, 'workers': workers}
  return Batches(stream, show, rows, skips, **options), skips


def _check(source, captions, prompts, crop) -> None:
  """A mistake in the config must not look like a bad picture."""
  if len(source) > _MOST:
    raise ValueError(
      f'config.data.name has {len(source)} examples, whose ids are int32; train on a slice, as '
      f'config.data.split = train[:{_MOST}]'
    )
  if crop is not None:
    images.resized_crop(Image.new('RGB', (8, 8)), 8, np.zeros(4), area=crop)
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
    try:
      pictures[number] = images.resize(images.decode(encoded_image(example)), image_size)
    except ValueError as error:
      raise ValueError(
        f'example {example["id"]} cannot be evaluated: {place_of(source, number)}: {error}'
      ) from error
  return pictures
