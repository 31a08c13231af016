"""Held-out splits: images, texts and labels, checked before training."""

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from contrastive_jax import data
from contrastive_jax.data.captions import is_joined, joined_text, texts_of
from contrastive_jax.evaluation.agreement import merge_rows, raise_together

_DIGEST_BYTES = 16
_CHECKED_AT_ONCE = 256  # images that are decoded and in memory
_MAX_NAMED = 3  # bad examples named in an error
_MAX_REPEATED_SHARE = 0.01  # share of rows that repeat an image, above which to warn


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """N examples of a split.

  Attributes:
    images: [N, S, S, 3] uint8, decoded where they are indexed; None for a model of texts.
    fields: N values by field, for the fields that the examples have.
    first_texts: the first text of each pair of texts, N strings; None beside images.
    digests: [N, 16] uint8, equal for equal images; None without images.
    patches: the images as a model of patches takes them; None for square images.
  """

  images: data.DecodedImages | None
  fields: Mapping[str, Sequence[Any]]
  first_texts: Sequence[str] | None = None
  digests: np.ndarray | None = None
  patches: data.DecodedPatches | None = None


def read_split(
  source: data.Source,
  image_size: int | None,
  *,
  patches: tuple[int, int] | None = None,
  setting: str,
  name: str = '',
  texts: Sequence[str] = (),
  labels: Sequence[str] = (),
  first: str = '',
  share: Callable[[int], np.ndarray] = np.arange,
) -> Split:
  """Reads the texts and labels of a split, and checks its images.

  Args:
    source: the examples.
    image_size: S, the side of the images; None to read first texts instead.
    patches: (L, p), number and side of the patches that the model takes; None for square images.
    setting: the field of `config.evaluation` that names the split, for errors.
    name: name of the split, for errors.
    texts: fields that hold one text, several texts, or texts by language, of which 'FIELD.LANGUAGE'
      is one; 'join(FIELD)' joins several to one.
    labels: fields that hold a class.
    first: without images, the field of the first text of each pair, of one text or 'join(FIELD)'.
    share: N -> the rows whose images this process checks; all processes must call this.

  Raises:
    ValueError: if an image cannot be used, or if only some examples have a valid value of a field;
      metrics of the others would be of another dataset.
  """
  where = f'config.evaluation.{setting}' + (f': split {name!r}' if name else '')
  images = digests = None
  if image_size is not None:
    images = data.DecodedImages(source, image_size)
    digests = _digests(where, images, share(len(source)))
  fields = read_fields(where, source, [*texts, *([first] if images is None else [])], labels)
  if images is not None:
    cut = data.DecodedPatches(source, *patches) if patches else None
    return Split(images, fields, digests=digests, patches=cut)
  if not all(isinstance(text, str) for text in fields.get(first, [None])):
    raise ValueError(
      f"{where} has no {first!r} of one text per example; name another field, or 'join(FIELD)'"
    )
  return Split(images, fields, fields[first])


def read_fields(
  where: str, source: data.Source, texts: Sequence[str], labels: Sequence[str]
) -> dict[str, list]:
  """Reads N texts and labels by field, for the fields that the examples have; see `read_split`.

  Raises:
    ValueError: if only some examples have a valid value of a field. It starts with `where`.
  """
  kinds = dict.fromkeys(labels, _label_fault)
  kinds |= dict.fromkeys(texts, _text_fault)
  columns = {field: [] for field in kinds}
  ids = []
  for number in range(len(source)):
    example = source.fields(number)
    ids.append(example['id'])
    for field, column in columns.items():
      try:
        column.append(_value(example, field))
      except ValueError as error:
        raise ValueError(f'{where}: example {example["id"]}: {field}: {error}') from error
  return {
    field: column
    for field, column in columns.items()
    if _check_column(where, field, ids, column, kinds[field])
  }


def _value(example: Mapping[str, Any], field: str) -> Any:
  """The value of a field, or at a path such as 'names.zh'; None where there is none."""
  if is_joined(field):
    return joined_text(example, field)
  if field in example:
    return example[field]
  value: Any = example
  for name in field.split('.'):
    value = value.get(name) if isinstance(value, Mapping) else None
  return value


def _digests(where: str, images: data.DecodedImages, rows: np.ndarray) -> np.ndarray:
  """Decodes some rows on each process; returns the digests [N, 16] of all, uint8."""
  digests, fault = np.zeros([len(images), _DIGEST_BYTES], np.uint8), None
  try:
    for start in range(0, len(rows), _CHECKED_AT_ONCE):
      part = rows[start : start + _CHECKED_AT_ONCE]
      for row, image in zip(part, images[part], strict=True):
        digest = hashlib.blake2b(image, digest_size=_DIGEST_BYTES).digest()
        digests[row] = np.frombuffer(digest, np.uint8)
  except ValueError as error:
    fault = ValueError(f'{where}: {error}')
  raise_together(fault)
  return merge_rows(digests)


def _check_column(where: str, field: str, ids, column, fault: Callable[[Any], str]) -> bool:
  """Whether the examples have a field; raises ValueError if only some have it."""
  faults = [
    (number, why) for number, value in zip(ids, column, strict=True) if (why := fault(value))
  ]
  if len(faults) == len(column) and all(why == _MISSING for _, why in faults):
    return False
  kinds = collections.Counter(isinstance(value, Mapping) for value in column)
  if not faults and len(kinds) > 1:
    faults = [
      (number, 'a dict where others have texts')
      for number, value in zip(ids, column, strict=True)
      if isinstance(value, Mapping)
    ]
  if faults:
    named = '; '.join(f'example {number}: {why}' for number, why in faults[:_MAX_NAMED])
    more = f'; and {len(faults) - _MAX_NAMED} more' if len(faults) > _MAX_NAMED else ''
    raise ValueError(
      f'{where} cannot be evaluated by {field!r}, which {len(faults)} of {len(column)} examples '
      f'lack or fill wrongly: {named}{more}; mend or remove these examples'
    )
  return True


_MISSING = 'it is missing or empty'


def _label_fault(value) -> str:
  """Describes the fault of a label, '' if it has none. An empty label is a class of its own."""
  if value is None:
    return _MISSING
  if isinstance(value, Mapping | list | tuple | np.ndarray):
    return f'a {type(value).__name__} is no label'
  return _unicode_fault(str(value))


def _text_fault(value) -> str:
  """Describes the fault of a text, a list of texts, or texts by language; '' if it has none."""
  if value is None or (isinstance(value, str | list | tuple | Mapping) and not len(value)):
    return _MISSING
  if isinstance(value, Mapping):
    # A language may be missing, see `retrieval.languages`.
    value = [text for text in value.values() if text]
  several = list(value) if isinstance(value, list | tuple) else [value]
  try:
    found = texts_of({'text': several}, ['text'])
  except ValueError as error:
    return str(error)
  return '' if len(found) == len(several) else 'a text of it is empty'


def _unicode_fault(text: str) -> str:
  try:
    text.encode()
  except UnicodeEncodeError as error:
    return str(error)
  return ''


def warn_of_repeats(name: str, digests: np.ndarray, texts: Sequence[str | Sequence[str]]) -> None:
  """Warns if rows with one image and different texts make perfect retrieval impossible.

  Args:
    name: name of the split.
    digests: [N, 16] uint8, equal for equal images.
    texts: the text or texts of each image.
  """
  rows = collections.defaultdict(list)
  for digest, text in zip(digests, texts, strict=True):
    rows[digest.tobytes()].append(text)
  repeated = [own for own in rows.values() if any(text != own[0] for text in own)]
  count = sum(map(len, repeated))
  if count > _MAX_REPEATED_SHARE * len(digests):
    logging.warning(
      'split %r: %d of %d rows repeat %d images with other captions. Copies of an image tie, so a '
      'perfect model has a recall@1 below 100%%, or 20%% if every image has five rows; give each '
      'image one row with a list of captions, or join its rows by grouped:',
      name,
      count,
      len(digests),
      len(repeated),
    )


def captions_of(source: data.Source, field: str) -> list[str]:
  """Returns the distinct first captions of the usable examples.

  Raises:
    ValueError: if there are none.
  """
  found = {}
  for number in range(len(source)):
    try:
      found |= dict.fromkeys(texts_of(source.fields(number), [field])[:1])
    except ValueError:
      continue  # training skips it too
  if not found:
    raise ValueError(
      f'config.evaluation.captions are compared with {field!r} of the training data, which has no '
      'such texts; config.evaluation.captions = {} does without'
    )
  return list(found)


def labels_of(split: Split, classes: Mapping[str, Any]) -> dict[str, list[str]]:
  """Returns the labels of a split, by the class fields that it has."""
  fields = (field for field in classes if field in split.fields)
  return {field: list(map(str, split.fields[field])) for field in fields}


def first_of(texts: str | Sequence[str]) -> str:
  """Returns a text, or the first of several."""
  return texts if isinstance(texts, str) else texts[0]
