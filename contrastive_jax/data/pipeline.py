"""From a source to batches: shuffle, read what the model takes, batch.

Batch t is a function of the seed and t alone, so the step number is all that a checkpoint needs to
resume at the same example, on any number of processes and workers.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from contrastive_jax.data.batch_shapes import BatchShape, BatchShapes
from contrastive_jax.data.batches import BadExamples, Batches
from contrastive_jax.data.decoded import CACHED_BYTES, DecodedImages
from contrastive_jax.data.readers import (
  Captions,
  Images,
  Labels,
  Number,
  Numbers,
  PatchedImages,
  Sounds,
  Texts,
  class_names,
)
from contrastive_jax.data.reinforcement import Table
from contrastive_jax.data.shard_order import ShardOrder
from contrastive_jax.data.sources.source import location_of

# Number of examples probed before the first batch; at least one must be good.
_PROBED_EXAMPLES = 50
# Number of examples that int32 ids, the devices' integers, can tell apart.
_MAX_EXAMPLES = 2**31


class _Draw:
  """Loads an example and makes its random choices: (number, random generator) -> example."""

  def __init__(self, source, readers):
    self._source, self._readers = source, readers

  def __call__(self, number: int, rng: np.random.Generator) -> dict[str, Any]:
    example = self._source[number]
    if 'error' in example:
      return example
    try:
      parts = self._parts(example, rng)
    except ValueError as error:
      return {'id': example['id'], 'error': f'{location_of(self._source, number)}: {error}'}
    return parts | {
      'id': example['id'],
      'position': self._position(number, example),
      'index': number,
      'where': functools.partial(location_of, self._source, number),
    }

  def _parts(self, example, rng):
    if (table := self._readers.get('teacher')) is not None:
      return table.draw(example, rng, self._readers)
    return {name: reader.draw(example, rng) for name, reader in self._readers.items()}

  def _position(self, number, example):
    position = getattr(self._source, 'position', None)
    return position(number) if position else example['id']


class _Arrays:
  """Turns loaded examples into arrays."""

  def __init__(self, readers):
    self._images = readers.get('image')
    self._others = {name: reader for name, reader in readers.items() if name != 'image'}
    self.image_size = self._images and self._images.size

  def pixels(self, drawn: Mapping[str, Any], shape: BatchShape) -> Sequence[np.ndarray]:
    """Returns the image, (uint8 [S, S, 3],), or its `Patches`; () if images are not read.

    Raises:
      ValueError: if the image does not decode, or loading the example failed.
    """
    if 'error' in drawn:
      raise ValueError(drawn['error'])
    if self._images is None:
      return ()
    try:
      return self._images.pixels(drawn['index'], drawn['image'], shape)
    except ValueError as error:
      raise ValueError(f'{drawn["where"]()}: {error}') from error

  def columns(self, drawn: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Returns the other arrays by name, each [b, ...], with `id`, `position` and `truncated`."""
    columns = {'truncated': np.zeros(len(drawn), np.int32)}
    for name, reader in self._others.items():
      own = reader.arrays([example[name] for example in drawn])
      if 'truncated' in own:
        columns['truncated'] += own.pop('truncated').reshape(len(drawn), -1).sum(1, np.int32)
      columns |= own
    for name in ('id', 'position'):
      columns[name] = np.array([example[name] for example in drawn], np.int32)
    return columns


def _fit_in_memory(source, image_size: int, shapes: Sequence[BatchShape]) -> bool:
  """Whether all images may be cached: a small file can hold images that are large once decoded."""
  pixels = image_size**2 + sum(shape.length * shape.patch**2 for shape in {*shapes})
  return source.cached and 3 * pixels * len(source) <= CACHED_BYTES


def _open_readers(inputs: Sequence[str], table: Mapping[str, Callable], **fields: str) -> dict:
  """Opens the readers of some inputs, and of fields that are named, in the order of the table."""
  if unknown := [name for name in inputs if name not in table]:
    raise ValueError(f'the model reads {unknown}; inputs are {[*table]}')
  asked = {*inputs, *(name for name, field in fields.items() if field)}
  return {name: read() for name, read in table.items() if name in asked}


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
  tokenizer: Callable | None,
  *,
  batch_size: int,
  image_size: int = 0,
  captions: Captions | None = None,
  prompts: Sequence[str] = (),
  keep: int | None = None,
  augment_texts: Callable | None = None,
  crop: tuple[float, float] | None = None,
  seed: int,
  subset: float = 1.0,
  replacement: bool = True,
  shuffle: str = 'global',
  shuffle_buffer: int = 2**16,
  rows: np.ndarray | Callable[[int], np.ndarray] | None = None,
  shapes: Sequence[BatchShape] = (),
  threads: int | None = None,
  workers: int = 0,
  inputs: Sequence[str] = ('image', 'tokens'),
  second_captions: Mapping[str, float] | None = None,
  numbers: Sequence[str] = (),
  nodes: Sequence[str] = (),
  labels: str = '',
  classes: int = 0,
  number: str = '',
  audio: Sequence[str] = (),
  voices: int = 1,
  audio_size: int = 0,
  audio_seconds: float = 2.0,
  negatives: int = 0,
  negative_rules: Sequence[str] = (),
  negative_captions: str = '',
  teacher_tokenizer: Callable | None = None,
  table: Table | None = None,
) -> tuple[Batches, BadExamples]:
  """Returns endless batches, cut to the rows of one process; each epoch is shuffled anew.

  Args:
    source: examples by number, from `open_source`.
    tokenizer: list of texts -> integers [., L]; if it has `encode`, truncated texts are counted.
      None where no texts are read.
    batch_size: B, over all processes.
    image_size: S, the side of the images; not read with `shapes`.
    captions: see `draw_caption`; or, with `keep`, those of each text.
    prompts: of `captions`, see `prompt_caption`.
    keep: K, captions per example, see `keep_captions`; None draws one. Tokens are then [b, K, L]
      and `same` [b, K].
    augment_texts: (texts of an example, generator) -> texts, such as a `TextAugmentation`; `same`
      compares the captions before.
    crop: minimum and maximum share of the image in a random crop; None for the evaluation
      transform.
    seed: seed of the order, the crops and the captions.
    subset: share of the examples drawn per round, RS2 [1]; with 1 a round is an epoch.
    replacement: whether rounds draw independently. Otherwise they walk through one permutation
      until it is exhausted: the batches equal those of `subset` 1.
    shuffle: 'global', or 'shards', which reads files in long stretches; see `ShardOrder`.
    shuffle_buffer: number of examples over all processes among which 'shards' shuffles. Memory
      holds their files' bytes up to three times.
    rows: [b] rows of the batch that this process feeds, or a function from B to them; default all.
    shapes: shapes of batches of patches, see `shapes_of_budget`, in the order of `BatchShapes`; ()
      for square images in batches of `batch_size`.
    threads: number of threads that prepare batches. Default: two; or none beside the process's own
      with workers or cached examples, which saves the handover.
    workers: number of processes that prepare batches; 0 for the caller's process alone.
    inputs: what a batch holds, of 'image', 'tokens', 'second_tokens', 'numbers', 'nodes' and
      'audio'.
    second_captions: captions of the second text of a pair, see `draw_caption`.
    numbers: fields of numbers.
    nodes: fields of integers.
    labels: field that holds the class of an example; '' for none.
    classes: K, the number of classes in the data, which are then numbered from 0 in the order of
      their names; 0 for labels that are equal where the classes are.
    number: field with the number that a loss of regression compares; '' for none.
    audio: fields that hold paths of sounds, see `readers.Sounds`.
    voices: K, sounds per example.
    audio_size: S, frames and mel bands of a sound.
    audio_seconds: duration of a sound.
    negatives: M, wrong captions per example, see `data.text.negatives.hard_negatives`.
    negative_rules: their rules; () for all.
    negative_captions: field with wrong captions, which come before those of the rules.
    teacher_tokenizer: list of texts -> integers [., L'], by which a teacher reads the texts.
    table: embeddings of teachers, whose views are drawn in place of others.

  Returns:
    Batches of the inputs, and the count of bad examples. A batch holds, as far as asked for,
    'image': uint8 [b, S, S, 3], or `Patches`; 'tokens' and 'second_tokens': int32 [b, L]; 'same':
    int32 [b], beside 'tokens', equal for equal captions whatever the prompts; 'negative_tokens':
    int32 [b, M, L], the caption's own tokens where the rules give fewer; 'teacher_tokens': int32
    [b, L'], the same texts; 'numbers': float32 [b, n]; 'nodes': int32 [b, n]; 'labels': int32 [b],
    equal for equal labels, below K with `classes`; 'number': float32 [b]; 'audio': uint8 [b, K, S,
    S]; with a table 'seed' [b], of the view, 'teacher_image' and 'teacher_text', float16 [b, W]. It
    always holds 'id': int32 [b], the same wherever a split repeats an example, and 'position':
    int32 [b], its number in the split.

  Raises:
    ValueError: if an option is out of range, the data has another number of classes, or no example
      can be used.

  References:
    [1] Okanovic et al., Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning,
      2024.
  """
  _check_count(source)
  ordered = BatchShapes(shapes or [BatchShape(batch_size)], seed)
  side = image_size if 'image' in inputs and not shapes else 0
  in_memory = (crop is None or 'image' not in inputs) and _fit_in_memory(source, side, shapes)
  images = PatchedImages if shapes else Images
  # Random choices are made in this order.
  by_input = {
    'tokens': lambda: Texts(
      *('tokens', tokenizer, captions, prompts, keep, negatives, negative_rules, augment_texts),
      *(teacher_tokenizer, negative_captions),
    ),
    'image': lambda: images(side, crop, in_memory),
    'second_tokens': lambda: Texts('second_tokens', tokenizer, second_captions),
    'numbers': lambda: Numbers('numbers', numbers, np.float32),
    'nodes': lambda: Numbers('nodes', nodes, np.int32),
    'labels': lambda: Labels(labels, class_names(source, labels, classes)),
    'number': lambda: Number(number),
    'audio': lambda: Sounds(audio, voices, audio_size, audio_seconds),
  }
  readers = _open_readers(inputs, by_input, labels=labels, number=number)
  if table is not None:
    readers['teacher'] = table
  _check(source, readers)
  if workers < 0:
    raise ValueError(f'config.data.workers = {workers}; use 0 or more')
  if shuffle not in ('global', 'shards'):
    raise ValueError(f"config.data.shuffle = {shuffle!r}; use 'global' or 'shards'")
  rows = _rows_by_size(rows, ordered.shapes)
  order = grain.MapDataset.range(len(source)).seed(seed)
  if by_shards := shuffle == 'shards':
    order = _shard_order(order.repeat(), source, seed, ordered.per_round, shuffle_buffer)
    fed = sum(len(rows[shape.batch_size]) for shape in ordered.shapes)
    lanes = -(-fed // (max(workers, 1) * order.lane_rows)) + len(ordered.shapes)
    source = source.reading_ahead(order.stretch, lanes)
  else:
    order = order.shuffle().repeat()
  stream = _rounds(order, len(source), subset, replacement).random_map(_Draw(source, readers))
  if threads is None:
    threads = 0 if workers or in_memory else 2
  bad_examples = BadExamples(len(source))
  options = {'threads': threads, 'workers': workers, 'split_rows': by_shards, 'shapes': ordered}
  return Batches(stream, _Arrays(readers), rows, bad_examples, **options), bad_examples


def _rows_by_size(rows, shapes: Sequence[BatchShape]) -> dict[int, np.ndarray]:
  """Returns the rows that this process feeds, by the size of the batch."""
  of = rows if callable(rows) else lambda size: np.arange(size) if rows is None else rows
  return {shape.batch_size: of(shape.batch_size) for shape in shapes}


def _shard_order(parent, source, seed: int, batch_size: int, buffer: int) -> ShardOrder:
  if not hasattr(source, 'shard_sizes'):
    raise ValueError(
      "config.data.shuffle = 'shards' reads the shards of one source, and config.data.name is a "
      "mixture; use 'global'"
    )
  sizes = source.shard_sizes()
  return ShardOrder(parent, sizes, seed=seed, batch_size=batch_size, buffer=buffer)


def _rounds(
  order: grain.MapDataset, examples: int, subset: float, replacement: bool
) -> grain.MapDataset:
  """The numbers of the examples in their order, epoch after epoch or round after round."""
  drawn = round(subset * examples) if 0 < subset <= 1 else 0
  if not drawn:
    raise ValueError(
      f'config.data.subset = {subset} of {examples} examples; use a share of 1 or less that '
      'draws at least one'
    )
  return _Rounds(order, examples, drawn) if replacement and drawn < examples else order


def _check_count(source) -> None:
  if (count := max(len(source), getattr(source, 'rows', 0))) > _MAX_EXAMPLES:
    raise ValueError(
      f'config.data.name has {count} examples, whose ids are int32; train on a slice, as '
      f'config.data.split = train[:{_MAX_EXAMPLES}]'
    )


def _check(source, readers) -> None:
  """Checks the config, so that a mistake in it is not taken for bad data."""
  # The probed examples spread over the data, as the first ones may be bad; they are few, as a
  # bucket that does not respond takes seconds per example.
  indices = np.linspace(0, len(source) - 1, min(len(source), _PROBED_EXAMPLES)).astype(int).tolist()
  examples = (source[index] for index in indices)
  first = next((example for example in examples if 'error' not in example), None)
  if first is None:
    raise ValueError(f'no example of {len(indices)} can be used; the first: {source[0]["error"]}')
  for reader in readers.values():
    reader.check(first)


def evaluation_images(source, image_size: int) -> np.ndarray:
  """Returns all images of a source in order, resized for evaluation: uint8 [N, S, S, 3].

  Raises:
    ValueError: if an image cannot be used; metrics without it would be of another dataset.
  """
  return DecodedImages(source, image_size)[:]
