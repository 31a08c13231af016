"""From a source to batches: shuffle, decode, crop, draw a caption, tokenize, batch.

Batch t is a function of the seed and t alone, so the step number is all that a checkpoint needs to
resume at the same example, on any number of processes and workers.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from PIL import Image

from contrastive_jax.data import images
from contrastive_jax.data.batches import BadExamples, Batches
from contrastive_jax.data.captions import (
  caption_id,
  check_captions,
  draw_caption,
  keep_captions,
  prompt_caption,
)
from contrastive_jax.data.sources.source import location_of

# Number of captions whose tokens are cached: tokenizing is the most expensive work that repeats.
_CACHED_CAPTIONS = 2**16
# Bytes up to which all decoded and resized images of a source are cached.
_CACHED_IMAGE_BYTES = 2**28
# Number of examples probed before the first batch; at least one must be good.
_PROBED_EXAMPLES = 50
# Number of examples that int32 ids, the devices' integers, can tell apart.
_MAX_EXAMPLES = 2**31


class _RandomTransform:
  """Loads an example and makes its random choices: (number, random generator) -> example."""

  def __init__(self, source, captions, prompts, keep):
    self._source, self._captions = source, dict(captions)
    self._prompts, self._keep = tuple(prompts), keep

  def _position(self, number, example):
    position = getattr(self._source, 'position', None)
    return position(number) if position else example['id']

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
        'position': self._position(number, example),
        'number': number,
        'where': functools.partial(location_of, self._source, number),
        'image': encoded_image(example),
        'captions': captions,
        'texts': [prompt_caption(caption, self._prompts, rng) for caption in captions],
        'crop': rng.random(4),
      }
    except ValueError as error:
      return {'id': example['id'], 'error': f'{location_of(self._source, number)}: {error}'}


class _ImageTextTransform:
  """Turns loaded examples into pixels and tokens, with a cache of each."""

  def __init__(self, tokenizer, image_size: int, crop, keep, in_memory: bool):
    self._encode = getattr(tokenizer, 'encode', lambda texts: (tokenizer(texts), [0]))
    self.image_size, self._crop, self._keep, self._in_memory = image_size, crop, keep, in_memory
    self._clear_caches()

  def _clear_caches(self):
    self._image_cache = {}
    self._token_cache = functools.lru_cache(_CACHED_CAPTIONS)(self._tokens)

  def __getstate__(self):
    # Worker processes start with empty caches.
    state = dict(vars(self))
    del state['_image_cache'], state['_token_cache']
    return state

  def __setstate__(self, state):
    vars(self).update(state)
    self._clear_caches()

  def _resized(self, drawn):
    picture = self._image_cache.get(drawn['number'])
    if picture is None:
      picture = images.resize(images.decode(drawn['image']), self.image_size)
      if self._in_memory:
        self._image_cache[drawn['number']] = picture
    return picture

  def _tokens(self, text):
    tokens, lost = self._encode([text])
    return tokens[0], lost[0] > 0

  def pixels(self, drawn: Mapping[str, Any]) -> np.ndarray:
    """Returns the image, uint8 [S, S, 3].

    Raises:
      ValueError: if the image does not decode, or loading the example failed.
    """
    if 'error' in drawn:
      raise ValueError(drawn['error'])
    try:
      if self._crop is None:
        return self._resized(drawn)
      return images.resized_crop(drawn['image'], self.image_size, drawn['crop'], area=self._crop)
    except ValueError as error:
      raise ValueError(f'{drawn["where"]()}: {error}') from error

  def texts(self, drawn: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Returns `id`, `position`, and per caption its id (`same`), `tokens`, and `truncated`."""
    captions = [caption for example in drawn for caption in example['captions']]
    tokens = [self._token_cache(text) for example in drawn for text in example['texts']]
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
    for name in ('id', 'position'):
      columns[name] = np.array([example[name] for example in drawn], np.int32)
    return columns


def _fit_in_memory(source, image_size: int) -> bool:
  """Whether all images may be cached: a small file can hold images that are large once decoded."""
  return source.cached and 3 * image_size**2 * len(source) <= _CACHED_IMAGE_BYTES


def encoded_image(example: Mapping[str, Any]) -> bytes:
  """Returns the encoded image of an example.

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
  """Keeps the first `size` examples of each epoch of the parent's stream."""

  def __init__(self, parent: grain.MapDataset, epoch: int, size: int):
    super().__init__(parent)
    self._epoch, self._size = epoch, size

  def __len__(self) -> int:
    return len(self._parent) // self._epoch * self._size

  def __getitem__(self, index):
    if isinstance(index, slice):
      return self.slice(index)
    round_index, position = divmod(index, self._size)
    return self._parent[round_index * self._epoch + position]


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
) -> tuple[Batches, BadExamples]:
  """Returns endless batches, cut to the rows of one process; each epoch is shuffled anew.

  Args:
    source: examples by number, from `open_source`.
    tokenizer: list of texts -> integers [., L]; if it has `encode`, truncated texts are counted.
    batch_size: B, over all processes.
    image_size: S, the side of the images.
    captions: see `draw_caption`.
    prompts: see `prompt_caption`.
    keep: K, captions per example, see `keep_captions`; None draws one. Tokens are then [b, K, L]
      and `same` [b, K], for custom steps.
    crop: minimum and maximum share of the image in a random crop; None for the evaluation
      transform.
    seed: seed of the order, the crops and the captions.
    subset: share of the examples drawn per round, RS2 [1]; with 1 a round is an epoch.
    replacement: whether rounds draw independently. Otherwise they walk through one permutation
      until it is exhausted: the batches equal those of `subset` 1.
    rows: [b] rows of the batch that this process feeds; default all.
    threads: number of threads that prepare batches. Default: two; or none beside the process's own
      with workers or cached images, which saves the handover.
    workers: number of processes that prepare batches; 0 for the caller's process alone.

  Returns:
    Batches {'image': uint8 [b, S, S, 3], 'tokens': int32 [b, L], 'same': int32 [b], equal for equal
    captions whatever the prompts, 'id': int32 [b], the same wherever a split repeats an example,
    'position': int32 [b], its number in the split}, and the count of bad examples.

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
  stream = stream.random_map(_RandomTransform(source, captions, prompts, keep))
  in_memory = crop is None and _fit_in_memory(source, image_size)
  transform = _ImageTextTransform(tokenizer, image_size, crop, keep, in_memory)
  rows = np.arange(batch_size) if rows is None else rows
  if threads is None:
    threads = 0 if workers or in_memory else 2
  bad_examples = BadExamples(len(source))
  options = {'batch_size': batch_size, 'threads': threads, 'workers': workers}
  return Batches(stream, transform, rows, bad_examples, **options), bad_examples


def _check(source, captions, prompts, crop) -> None:
  """Checks the config, so that a mistake in it is not taken for bad data."""
  if (count := max(len(source), getattr(source, 'rows', 0))) > _MAX_EXAMPLES:
    raise ValueError(
      f'config.data.name has {count} examples, whose ids are int32; train on a slice, as '
      f'config.data.split = train[:{_MAX_EXAMPLES}]'
    )
  if crop is not None:
    images.resized_crop(Image.new('RGB', (8, 8)), 8, np.zeros(4), area=crop)
  # The probed examples spread over the data, as the first ones may be bad; they are few, as a
  # bucket that does not respond takes seconds per example.
  indices = np.linspace(0, len(source) - 1, min(len(source), _PROBED_EXAMPLES)).astype(int).tolist()
  examples = (source[index] for index in indices)
  first = next((example for example in examples if 'error' not in example), None)
  if first is None:
    raise ValueError(f'no example of {len(indices)} can be used; the first: {source[0]["error"]}')
  encoded_image(first)
  check_captions(first, captions, prompts)


def evaluation_images(source, image_size: int) -> np.ndarray:
  """Returns all images of a source in order, resized for evaluation: uint8 [N, S, S, 3].

  Raises:
    ValueError: if an image cannot be used; metrics without it would be of another dataset.
  """
  # The array is filled in place: stacking a list would take twice the memory.
  pictures = np.empty([len(source), image_size, image_size, 3], np.uint8)
  for number in range(len(source)):
    example = source[number]
    if 'error' in example:
      raise ValueError(f'example {example["id"]} cannot be evaluated: {example["error"]}')
    try:
      pictures[number] = images.resize(images.decode(encoded_image(example)), image_size)
    except ValueError as error:
      raise ValueError(
        f'example {example["id"]} cannot be evaluated: {location_of(source, number)}: {error}'
      ) from error
  return pictures
