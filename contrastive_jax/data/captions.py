"""Chooses the caption of an example.

A field is named by its path: 'caption' may hold one text or a list of texts, such as the five of
Flickr30k and COCO; 'captions.text' is the `text` of a dict, or of each dict in a list. 'join(tags)'
joins a list into one text, and 'head(caption)' is the caption up to its first colon.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

_FUNCTION = re.compile(r'(?:join|head)\(([^*()]+)\)')
# Characters. A longer text is a mistake in the data, and no tokenizer reads that far.
_MAX_CAPTION_LENGTH = 2**16


def parse_captions(line: str, setting: str = 'captions') -> dict[str, float]:
  """Parses the field weights in `config.data.captions`, or in another setting; the default is 1.

  >>> parse_captions('caption*3+join(tags)')
  {'caption': 3.0, 'join(tags)': 1.0}

  Raises:
    ValueError: if the line does not parse, or no weight is above 0.
  """
  weights = {}
  for part in line.split('+'):
    match = re.fullmatch(
      r'\s*([^*()]*[^*()\s]|(?:join|head)\([^*()]+\))\s*(?:\*\s*(\d+\.?\d*|\.\d+))?\s*', part
    )
    if match is None or match[1] in weights:
      raise ValueError(
        f'config.data.{setting} = {line!r}: cannot use {part!r}; write fields and their weights as '
        "in 'caption', 'captions.text' or 'caption*0.7+join(tags)*0.3'"
      )
    weights[match[1]] = float(match[2] or 1)
  if not any(weights.values()):
    raise ValueError(f'config.data.{setting} = {line!r} draws nothing; give a weight above 0')
  return weights


def check_captions(
  example: Mapping[str, Any],
  weights: Mapping[str, float],
  prompts: Sequence[str] = (),
  setting: str = 'captions',
) -> None:
  """Checks the config against an example, so that a mistake in it is not taken for bad data.

  Args:
    example: a good example.
    weights: see `draw_caption`.
    prompts: see `prompt_caption`.
    setting: the field of `config.data` that holds the weights, for errors.

  Raises:
    ValueError: if the example lacks a field, no field has weight, or a prompt lacks its `{}`.
  """
  drawn = [field for field in weights if weights[field]]
  missing = [field for field in drawn if _path(field)[0] not in example]
  if missing or not drawn:
    raise ValueError(
      f'config.data.{setting} = {dict(weights)} names {missing if drawn else "nothing"}; '
      f'use fields of {sorted(example)}'
    )
  if wrong := [prompt for prompt in prompts if prompt.count('{}') != 1]:
    raise ValueError(
      f'config.data.prompts has {wrong}; give each one {{}}, as in "a photo of {{}}"'
    )


def draw_caption(
  example: Mapping[str, Any], weights: Mapping[str, float], rng: np.random.Generator
) -> str:
  """Draws a field of the example by weight, then one of the texts in it.

  Args:
    example: texts by field.
    weights: weight per field; empty fields are skipped. A joined list contributes a random subset
      in random order.
    rng: random generator, used only where there is a choice.

  Raises:
    ValueError: if all fields are empty or missing, or one holds something other than text.
  """
  found = _find(example, weights)
  fields = [*found]
  number = 0
  if len(fields) > 1:
    shares = np.array([weights[field] for field in fields], float)
    number = rng.choice(len(fields), p=shares / shares.sum())
  return _draw(fields[number], found[fields[number]], rng)


def keep_captions(
  example: Mapping[str, Any], weights: Mapping[str, float], count: int, rng: np.random.Generator
) -> list[str]:
  """Returns K texts of the example, repeated from the first where it has fewer.

  Args:
    example: texts by field.
    weights: weight per field; fields of weight 0 are skipped. A joined list counts as one text.
    count: K. Of more texts, a random subset is kept.
    rng: random generator, used only where there is a choice.

  Raises:
    ValueError: see `draw_caption`.
  """
  texts = []
  for field, found in _find(example, weights).items():
    texts += [_draw(field, found, rng)] if is_joined(field) else found
  if len(texts) > count:
    texts = [texts[i] for i in np.sort(rng.choice(len(texts), count, replace=False))]
  return [*itertools.islice(itertools.cycle(texts), count)]


def prompt_caption(caption: str, prompts: Sequence[str], rng: np.random.Generator) -> str:
  """Fills a caption into one of the prompts, such as 'a photo of {}'.

  Args:
    caption: text such as a class name. The example keeps the `caption_id` of this text.
    prompts: templates with one `{}` each; if empty, the caption is returned unchanged.
    rng: random generator, used only to choose among several prompts.
  """
  if not prompts:
    return caption
  number = rng.integers(len(prompts)) if len(prompts) > 1 else 0
  return prompts[number].replace('{}', caption)


def caption_id(caption: str) -> np.int32:
  """Hashes a caption to an integer, the same on every process."""
  return np.frombuffer(hashlib.blake2b(caption.encode(), digest_size=4).digest(), np.int32)[0]


def texts_of(example: Mapping[str, Any], fields: Iterable[str]) -> list[str]:
  """Returns the texts of some fields as one flat list; empty and missing fields contribute none.

  Raises:
    ValueError: if a field holds something other than text.
  """
  return [
    _head(text) if field.startswith('head(') else text
    for field in fields
    for text in _texts(example, _path(field))
  ]


def is_joined(field: str) -> bool:
  """Whether a field is 'join(FIELD)'."""
  return field.startswith('join(')


def joined_text(example: Mapping[str, Any], field: str) -> str:
  """Returns all texts of 'join(FIELD)' as one, in their order; '' for none.

  Raises:
    ValueError: if the field holds something other than text.
  """
  return ', '.join(texts_of(example, [field]))


def _find(example, weights) -> dict[str, list[str]]:
  """Returns the texts by field, for fields that have texts and a weight above 0."""
  texts = {field: texts_of(example, [field]) for field in weights if weights[field]}
  texts = {field: found for field, found in texts.items() if found}
  if not texts:
    raise ValueError(f'the caption is empty (fields {sorted(weights)})')
  return texts


def _draw(field: str, texts: list[str], rng: np.random.Generator) -> str:
  if is_joined(field):
    return ', '.join(rng.permutation(texts)[: rng.integers(1, len(texts) + 1)])
  return texts[rng.integers(len(texts)) if len(texts) > 1 else 0]


def _path(field: str) -> list[str]:
  function = _FUNCTION.fullmatch(field)
  return (function[1] if function else field).split('.')


def _head(text: str) -> str:
  """Returns a text up to its first colon, or all of it."""
  return text.partition(':')[0].strip() or text


def _texts(value: Any, path: Sequence[str]) -> list[str]:
  """Returns the nonempty texts at a path through nested dicts and lists."""
  if isinstance(value, list | tuple):
    return [text for item in value for text in _texts(item, path)]
  if path:
    return _texts(value.get(path[0]) if isinstance(value, Mapping) else None, path[1:])
  text = _stripped(value)
  return [text] if text else []


def _stripped(value) -> str:
  if value is None:
    return ''
  if not isinstance(value, str):
    what = 'bytes that are not UTF-8' if isinstance(value, bytes) else type(value).__name__
    if isinstance(value, Mapping):
      what = f'a dict; name one of its fields {[*value]}, as in captions.text'
    raise ValueError(f'a caption is no text but {what}')
  if len(value) > _MAX_CAPTION_LENGTH:
    raise ValueError(f'a caption has {len(value)} letters; the limit is {_MAX_CAPTION_LENGTH}')
  if not value.isascii():
    value.encode()  # raises for a lone surrogate, which JSON can spell
  return value.strip()
