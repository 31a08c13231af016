"""The texts of an example: which of them the model is shown."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

# Letters; what is longer is a file that went astray, and no tokenizer reads so far.
_LONGEST_CAPTION = 2**16


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
    ValueError: if all those fields are empty or missing, or one is no text.
  """
  texts = {}
  for field in filter(weights.get, weights):
    value = example.get(field)
    several = isinstance(value, list | tuple)
    value = [text for text in map(_stripped, value) if text] if several else _stripped(value)
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


def _stripped(value) -> str:
  if value is None:
    return ''
  if not isinstance(value, str):
    what = 'bytes that are not UTF-8' if isinstance(value, bytes) else type(value).__name__
    raise ValueError(f'a caption is no text but {what}')
  if len(value) > _LONGEST_CAPTION:
    raise ValueError(f'a caption has {len(value)} letters; the limit is {_LONGEST_CAPTION}')
  if not value.isascii():
    value.encode()  # Raises for half of a surrogate pair, which JSON can spell.
  return value.strip()
