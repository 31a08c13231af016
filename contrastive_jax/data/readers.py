"""Readers: how each input of a model or a loss is read from an example.

A reader draws its part of an example where examples are loaded, and turns the parts of several
examples into arrays. Both raise ValueError for an example that cannot be used.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from contrastive_jax.data import images, sounds
from contrastive_jax.data.batch_shapes import BatchShape
from contrastive_jax.data.captions import (
  caption_id,
  check_captions,
  draw_caption,
  keep_captions,
  prompt_caption,
  texts_of,
)
from contrastive_jax.data.patches import Patches, patchify
from contrastive_jax.data.sources.rows import FIELDS
from contrastive_jax.data.sources.source import fields_of
from contrastive_jax.data.text.negatives import check_rules, hard_negatives

# Weights by field; or those of each text of an example.
Captions = Mapping[str, float] | Sequence[Mapping[str, float]]

# Number of sounds whose spectrograms are cached.
_CACHED_SOUNDS = 2**14
# Number of captions whose tokens are cached: tokenizing is the most expensive work that repeats.
_CACHED_CAPTIONS = 2**16


class Images:
  """Reads `image`: pixels of one example at a time, as their memory may be shared.

  Attributes:
    size: S, the side of the images.
  """

  def __init__(self, size: int, crop: tuple[float, float] | None, in_memory: bool):
    """Reads images by a random crop, or whole; `in_memory` caches whole ones by their number."""
    self.size, self._crop, self._in_memory = size, crop, in_memory
    self._cache: dict[Any, Any] = {}

  def __getstate__(self) -> dict[str, Any]:
    # Worker processes start with an empty cache.
    return vars(self) | {'_cache': {}}

  def check(self, example: Mapping[str, Any]) -> None:
    """Checks the crop, and that a good example has an image."""
    if self._crop is not None:
      images.resized_crop(Image.new('RGB', (8, 8)), 8, np.zeros(4), area=self._crop)
    encoded_image(example)

  def draw(self, example: Mapping[str, Any], rng: np.random.Generator) -> Any:
    """Draws the crop."""
    return encoded_image(example), rng.random(4)

  def pixels(self, number: int, drawn: Any, shape: BatchShape) -> tuple[np.ndarray]:
    """Returns the image of an example, (uint8 [S, S, 3],)."""
    del shape
    encoded, crop = drawn
    if self._crop is not None:
      return (images.resized_crop(encoded, self.size, crop, area=self._crop),)
    if (image := self._cache.get(number)) is None:
      image = images.resize(images.decode(encoded), self.size)
      if self._in_memory:
        self._cache[number] = image
    return (image,)


class PatchedImages(Images):
  """Reads `image` as patches, see `patchify`; crops keep the aspect but for a factor of 3/4."""

  def pixels(self, number: int, drawn: Any, shape: BatchShape) -> Patches:
    """Returns the patches of an example, for a batch of a shape."""
    encoded, crop = drawn
    cut = functools.partial(patchify, length=shape.length, patch=shape.patch)
    if self._crop is not None:
      # The shorter side that the whole image would have, at most.
      image = images.decode(encoded, math.ceil(shape.patch * (shape.length / self._crop[0]) ** 0.5))
      return cut(image, box=images.crop_box(image, crop, self._crop))
    if (patches := self._cache.get((number, shape))) is None:
      patches = cut(images.decode(encoded))
      if self._in_memory:
        self._cache[number, shape] = patches
    return patches


class Texts:
  """Reads `tokens` or `second_tokens`."""

  def __init__(
    self,
    name: str,
    tokenizer: Callable,
    captions: Captions | None,
    prompts: Sequence[str] = (),
    keep: int | None = None,
    negatives: int = 0,
    rules: Sequence[str] = (),
    augment: Callable | None = None,
    teacher_tokenizer: Callable | None = None,
    wrong: str = '',
  ):
    """Reads a text per example, or `keep` of them.

    Args:
      name: 'tokens', whose captions also give `same`, or 'second_tokens'.
      tokenizer: list of texts -> integers [., L]; if it has `encode`, truncated texts are counted.
      captions: see `draw_caption`; or those of each text.
      prompts: see `prompt_caption`.
      keep: K, see `keep_captions`; None draws one.
      negatives: M, wrong captions of the first text, see `hard_negatives`; with the prompt of the
        text. Where the rules give fewer, the text itself takes the place of the others.
      rules: of the negatives; none for all.
      augment: (texts of an example, generator) -> texts, see `TextAugmentation`.
      teacher_tokenizer: list of texts -> integers, for `teacher_tokens` of the same texts.
      wrong: field with wrong captions, which come before those of the rules; '' for none.

    Raises:
      ValueError: if `captions` are several, and not K; or a rule is unknown.
    """
    several = [captions or {}] if captions is None or isinstance(captions, Mapping) else captions
    if len(several) not in (1, keep or 1):
      raise ValueError(f'captions are of {len(several)} texts, and keep = {keep}; make them equal')
    check_rules(rules)
    self._negatives, self._rules, self._wrong = negatives, tuple(rules), wrong
    self._name, self._captions, self._prompts = name, [*map(dict, several)], tuple(prompts)
    self._keep, self._augment = keep, augment
    self._encode = getattr(tokenizer, 'encode', lambda texts: (tokenizer(texts), [0]))
    self._teacher = teacher_tokenizer
    self._clear_cache()

  def _clear_cache(self):
    self._cached = functools.lru_cache(_CACHED_CAPTIONS)(self._tokens)

  def __getstate__(self) -> dict[str, Any]:
    return {name: value for name, value in vars(self).items() if name != '_cached'}

  def __setstate__(self, state: dict[str, Any]):
    vars(self).update(state)
    self._clear_cache()

  def _tokens(self, text):
    tokens, lost = self._encode([text])
    return tokens[0], lost[0] > 0, self._teacher and self._teacher([text])[0]

  def check(self, example: Mapping[str, Any]) -> None:
    """Checks that a good example has the fields."""
    setting = 'captions' if self._name == 'tokens' else 'second_captions'
    for captions in self._captions:
      check_captions(example, captions, self._prompts, setting=setting)
    if self._negatives and self._wrong:
      check_captions(example, {self._wrong: 1.0}, setting='negative_captions')

  def draw(self, example: Mapping[str, Any], rng: np.random.Generator) -> Any:
    """Draws captions, their prompts with the edits of both, and negatives."""
    if self._keep is None or len(self._captions) > 1:
      captions = [draw_caption(example, weights, rng) for weights in self._captions]
    else:
      captions = keep_captions(example, self._captions[0], self._keep, rng)
    prompts = [prompt_caption('{}', self._prompts, rng) for _ in captions]
    texts = [prompt.replace('{}', own) for prompt, own in zip(prompts, captions, strict=True)]
    if self._augment is not None:
      texts = self._augment(texts, rng)
    wrong = []
    if self._negatives:
      if self._wrong:
        wrong = texts_of(example, [self._wrong])[: self._negatives]
      wrong += hard_negatives(captions[0], self._rules, self._negatives - len(wrong), rng)
      wrong = [prompts[0].replace('{}', caption) for caption in wrong]
      wrong += texts[:1] * (self._negatives - len(wrong))
    return captions, texts, wrong

  def arrays(self, drawn: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns tokens [b, L], whether they are `truncated`, and `same` [b]; or [b, K, ...].

    With negatives also `negative_tokens` [b, M, L], with a teacher's tokenizer `teacher_tokens`.
    """
    tokens = [self._cached(text) for _, texts, _ in drawn for text in texts]
    columns = {
      self._name: np.stack([row for row, *_ in tokens]),
      'truncated': np.array([lost for _, lost, _ in tokens]),
    }
    if self._teacher:
      columns['teacher_tokens'] = np.stack([row for *_, row in tokens]).astype(np.int32)
    if self._name == 'tokens':
      columns['same'] = np.array([caption_id(text) for captions, *_ in drawn for text in captions])
    if self._keep is not None:
      columns = {
        name: column.reshape(len(drawn), self._keep, *column.shape[1:])
        for name, column in columns.items()
      }
    if self._negatives:
      wrong = [self._cached(text)[0] for *_, negatives in drawn for text in negatives]
      columns['negative_tokens'] = np.stack(wrong).reshape(len(drawn), self._negatives, -1)
    return columns


class Sounds:
  """Reads `audio`, uint8 [b, K, S, S]: log-mel spectrograms of K sounds of each example."""

  def __init__(self, fields: str | Sequence[str], count: int, size: int, seconds: float):
    """Reads sounds of local files.

    Args:
      fields: with the paths of an example's sounds, each one path or several; see `captions`.
      count: K; of more sounds, random ones.
      size: S, frames and mel bands.
      seconds: at which sounds are cut, or to which they are padded.
    """
    self._fields = (fields,) if isinstance(fields, str) else tuple(fields)
    self._count, self._size, self._seconds = count, size, seconds
    self._clear_cache()

  def _clear_cache(self):
    self._cached = functools.lru_cache(_CACHED_SOUNDS)(self.spectrogram)

  def __getstate__(self) -> dict[str, Any]:
    return {name: value for name, value in vars(self).items() if name != '_cached'}

  def __setstate__(self, state: dict[str, Any]):
    vars(self).update(state)
    self._clear_cache()

  def spectrogram(self, path: str) -> np.ndarray:
    """Returns the spectrogram of a file, uint8 [S, S]."""
    samples = sounds.fit(sounds.read(path, self._seconds), self._seconds)
    return sounds.log_mel(samples, self._size, self._size)

  def paths(self, example: Mapping[str, Any]) -> list[str]:
    """Returns the paths of an example's sounds.

    Raises:
      ValueError: if they are fewer than K.
    """
    paths = texts_of(example, self._fields)
    if len(paths) < self._count:
      raise ValueError(
        f'the fields {self._fields} hold {len(paths)} sounds, and config.data.voices = '
        f"{self._count}; select examples that have them, as in 'train[spoken>={self._count}]'"
      )
    return paths

  def check(self, example: Mapping[str, Any]) -> None:
    """Checks that a good example has the fields, and that its sounds can be read."""
    check_captions(example, dict.fromkeys(self._fields, 1.0), setting='audio')
    self._cached(self.paths(example)[0])

  def draw(self, example: Mapping[str, Any], rng: np.random.Generator) -> Any:
    """Draws K sounds, and reads them."""
    paths = self.paths(example)
    if len(paths) > self._count:
      paths = [paths[i] for i in rng.choice(len(paths), self._count, replace=False)]
    return np.stack([self._cached(path) for path in paths])

  def arrays(self, drawn: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns the spectrograms."""
    return {'audio': np.stack(drawn)}


class Numbers:
  """Reads a number per field: `numbers`, float32 [b, n], or `nodes`, int32 [b, n]."""

  def __init__(self, name: str, fields: Sequence[str], dtype: type):
    """Reads the fields in their order."""
    self._name, self._fields, self._dtype = name, tuple(fields), np.dtype(dtype)

  def check(self, example: Mapping[str, Any]) -> None:
    """Checks that a good example has the fields."""
    missing = [field for field in self._fields if field not in example]
    if missing or not self._fields:
      raise ValueError(
        f'config.data.{self._name} = {self._fields} names {missing or "no field"}; use fields of '
        f'{sorted(example)}'
      )

  def draw(self, example: Mapping[str, Any], rng: np.random.Generator) -> Any:
    """Returns the numbers of an example; nothing is drawn."""
    return np.array([self._number(field, example.get(field)) for field in self._fields])

  def _number(self, field: str, value: Any) -> np.generic:
    try:
      # Tables give numbers as text.
      number = float(value) if self._dtype.kind == 'f' else int(value)
      found = self._dtype.type(number)
    except (TypeError, ValueError, OverflowError) as error:
      raise ValueError(f'{field} = {value!r} is no number of type {self._dtype}') from error
    if not np.isfinite(found) or (self._dtype.kind == 'i' and number != float(value)):
      raise ValueError(f'{field} = {value!r} is no finite number of type {self._dtype}')
    return found

  def arrays(self, drawn: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns the numbers."""
    return {self._name: np.stack(drawn)}


class Number(Numbers):
  """Reads `number`, float32 [b], the number that a loss of regression compares."""

  def __init__(self, field: str):
    """Reads a field of numbers, or of texts that are numbers."""
    super().__init__('number', (field,), np.float32)

  def arrays(self, drawn: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns the number of each example."""
    return {'number': np.concatenate(drawn)}


class Labels:
  """Reads `labels`, int32 [b], equal where the values of a field are."""

  def __init__(self, field: str, names: Sequence[str] = ()):
    """Reads a field of texts or numbers; the labels are positions in `names`, if it has any."""
    self._field = field
    self._numbers = {name: np.int32(number) for number, name in enumerate(names)}

  def check(self, example: Mapping[str, Any]) -> None:
    """Checks that a good example has the field."""
    if self._field not in example:
      raise ValueError(
        f'config.data.labels = {self._field!r} is no field of the data; use one of '
        f'{sorted(example)}'
      )

  def draw(self, example: Mapping[str, Any], rng: np.random.Generator) -> Any:
    """Returns the label of an example; nothing is drawn."""
    value = example.get(self._field)
    if value is None or isinstance(value, bytes | Mapping | list | tuple | np.ndarray):
      kind = 'missing' if value is None else f'a {type(value).__name__}'
      raise ValueError(f'the label {self._field!r} is {kind}')
    return self._numbers[str(value)] if self._numbers else caption_id(str(value))

  def arrays(self, drawn: Sequence[Any]) -> dict[str, np.ndarray]:
    """Returns the labels."""
    return {'labels': np.array(drawn)}


def class_names(source, field: str, classes: int) -> list[str]:
  """Returns the sorted values of a field of the data, as text; [] for 0 classes.

  Raises:
    ValueError: if there are more or fewer than `classes`.
  """
  if not classes:
    return []
  values = (fields_of(source, number).get(field) for number in range(len(source)))
  names = sorted({str(value) for value in values if value is not None})
  # A field that no example has is named by the check of the reader.
  if names and len(names) != classes:
    raise ValueError(
      f'config.data.classes = {classes}, and the field {field!r} of config.data.labels has '
      f'{len(names)} values in the data; use {len(names)}'
    )
  return names


def encoded_image(example: Mapping[str, Any]) -> bytes:
  """Returns the encoded image of an example.

  Raises:
    ValueError: if it has none.
  """
  if isinstance(image := example.get('image'), bytes):
    return image
  raise ValueError(
    f"the field 'image' is {'missing' if image is None else type(image).__name__}, not an encoded "
    f'image; the fields are {sorted(example)}, of which rows name it {", ".join(FIELDS["image"])}'
  )
