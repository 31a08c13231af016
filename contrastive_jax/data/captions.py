"""The texts of an example: which of them the model is shown.

A field of texts is named by its path. 'caption' may hold one text or a list of them, as Flickr30k's
and COCO's five; 'captions.text' is the `text` of a dict, or of each dict of a list. 'join(tags)'
makes one text of a list.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# Letters; what is longer is a file that went astray, and no tokenizer reads so far.
_LONGEST_CAPTION = 2**16


def parse_captions(line: str) -> dict[str, float]:
  """The weights of the fields in `config.data.captions`; one without a weight has 1.

  >>> parse_captions('caption*3+join(tags)')
  {'caption': 3.0, 'join(tags)': 1.0}

  Raises:
    ValueError: if it cannot be read, or no weight is above 0.
  """
  weights = {}
  for part in line.split('+'):
    match = re.fullmatch(
      r'\s*([^*()]*[^*()\s]|join\([^*()]+\))\s*(?:\*\s*(\d+\.?\d*|\.\d+))?\s*', part
    )
    if match is None or match[1] in weights:
      raise ValueError(
        f'config.data.captions = {line!r}: cannot use {part!r}; write fields and their weights as '
        "in 'caption', 'captions.text' or 'caption*0.7+join(tags)*0.3'"
      )
    weights[match[1]] = float(match[2] or 1)
  if not any(weights.values()):
    raise ValueError(f'config.data.captions = {line!r} draws nothing; give a weight above 0')
  return weights


def check_captions(
  example: Mapping[str, Any], weights: Mapping[str, float], prompts: Sequence[str] = ()
) -> None:
  """Tells a mistake in the config from a bad example.

  Args:
    example: a good one.
    weights: see `draw_caption`.
    prompts: see `prompt_caption`.

  Raises:
    ValueError: if the example lacks a field, nothing is drawn, or a prompt has no place for a text.
  """
  drawn = [field for field in weights if weights[field]]
  missing = [field for field in drawn if _path(field)[0] not in example]
  if missing or not drawn:
    raise ValueError(
      f'config.data.captions = {dict(weights)} names {missing if drawn else "nothing"}; '
      f'use fields of {sorted(example)}'
    )
  if wrong := [prompt for prompt in prompts if prompt.count('{}') != 1]:
    raise ValueError(
      f'config.data.prompts has {wrong}; give each one {{}}, as in "a photo of {{}}"'
    )


def draw_caption(
  example: Mapping[str, Any], weights: Mapping[str, float], rng: np.random.Generator
) -> str:
  """Draws a field of the example by weight, and of several texts in it one.

  Args:
    example: texts by field.
    weights: how often each field is drawn; an empty one is passed over. Of a joined list some texts
      are taken, in any order.
    rng: draws, where there is a choice.

  Raises:
    ValueError: if all those fields are empty or missing, or one holds what is no text.
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
  """K texts of the example: all that it has, again from the first where there are fewer.

  Args:
    example: texts by field.
    weights: the fields, those of weight 0 left out; a joined list is one text, as it is drawn.
    count: K. Where there are more, the texts that are left out are drawn.
    rng: draws, where there is a choice.

  Raises:
    ValueError: as `draw_caption`.
  """
  texts = []
  for field, found in _find(example, weights).items():
    texts += [_draw(field, found, rng)] if _is_joined(field) else found
  if len(texts) > count:
    texts = [texts[i] for i in np.sort(rng.choice(len(texts), count, replace=False))]
  return [*itertools.islice(itertools.cycle(texts), count)]


def prompt_caption(caption: str, prompts: Sequence[str], rng: np.random.Generator) -> str:
  """The caption in one of the prompts, such as 'a photo of {}'; without prompts as it is.

  Args:
    caption: such as the name of a class, by whose `caption_id` an example is still known.
    prompts: each with one `{}`.
    rng: draws one of several.
  """
  if not prompts:
    return caption
  number = rng.integers(len(prompts)) if len(prompts) > 1 else 0
  return prompts[number].replace('{}', caption)


def caption_id(caption: str) -> np.int32:
  """An integer by which equal captions are known, the same on every process."""
  return np.frombuffer(hashlib.blake2b(caption.encode(), digest_size=4).digest(), np.int32)[0]


def texts_of(example: Mapping[str, Any], fields: Iterable[str]) -> list[str]:
  """The texts of some fields, none where they are empty or missing; those of lists one by one.

  Raises:
    ValueError: if one holds what is no text.
  """
  return [text for field in fields for text in _texts(example, _path(field))]


def _find(example, weights) -> dict[str, list[str]]:
  """The texts of each field that has any and may be drawn."""
  texts = {field: texts_of(example, [field]) for field in weights if weights[field]}
  texts = {field: found for field, found in texts.items() if found}
  if not texts:
    raise ValueError(f'the caption is empty (fields {sorted(weights)})')
  return texts


def _draw(field: str, texts: list[str], rng: np.random.Generator) -> str:
  if _is_joined(field):
    return ', '.join(rng.permutation(texts)[: rng.integers(1, len(texts) + 1)])
  return texts[rng.integers(len(texts)) if len(texts) > 1 else 0]


def _is_joined(field: str) -> bool:
  return field.startswith('join(')


def _path(field: str) -> list[str]:
  return field.removeprefix('join(').removesuffix(')').split('.')


def _texts(value: Any, path: Sequence[str]) -> list[str]:
  """The texts that are not empty at a path through dicts, and lists of them."""
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
  if len(value) > _LONGEST_CAPTION:
    raise ValueError(f'a caption has {len(value)} letters; the limit is {_LONGEST_CAPTION}')
  if not value.isascii():
    value.encode()  # Raises for half of a surrogate pair, which JSON can spell.
  return value.strip()
