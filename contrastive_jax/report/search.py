"""What the report's search box searches: stored embeddings, small enough to lie in the page."""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from contrastive_jax.evaluation.embedded import Retrieved

PICTURES = 1600  # at most of a split
TILE = 48  # pixels at most, the side of a picture

_BYTES = 3_200_000  # of all splits in one page, before base64
_TILE_BYTES = 700  # of a compressed picture, about


def stored(split: Retrieved, splits: int) -> dict[str, Any]:
  """A split's pictures and distinct captions, and their embeddings in eight bits.

  They stand in a fixed random order, whose first are kept where the page has no room for more.

  Args:
    split: what is searched.
    splits: how many share the page's room.

  Returns:
    `captions`; `own`, the caption's place by picture; `image` and `text`, int8 [., dimension] in
    base64; `unit`, what a product of the two is multiplied by to be a cosine; and `tiles`, the
    pictures side by side, `columns` in a row, each of `side` pixels, as a data URI.
  """
  dimension = split.image_embeddings.shape[1]
  room = _BYTES // splits // (2 * dimension + _TILE_BYTES)
  order = np.random.default_rng(0).permutation(len(split.captions))
  rows = order[: max(1, min(PICTURES, room))]
  captions = {split.captions[row]: row for row in rows}
  names = list(captions)
  places = {name: place for place, name in enumerate(names)}
  image, image_unit = _quantized(split.image_embeddings[rows])
  text, text_unit = _quantized(split.text_embeddings[[captions[name] for name in names]])
  return {
    'captions': names,
    'own': [places[split.captions[row]] for row in rows],
    'dimension': dimension,
    'image': image,
    'text': text,
    'unit': image_unit * text_unit,
    **_tiles(split.images[rows]),
  }


def _quantized(embeddings: np.ndarray) -> tuple[str, float]:
  """Embeddings as base64 of int8, and the value of 1."""
  unit = float(np.abs(embeddings).max()) / 127
  return base64.b64encode(np.round(embeddings / unit).astype(np.int8).tobytes()).decode(), unit


def _tiles(images: np.ndarray) -> dict[str, Any]:
  side = min(TILE, images.shape[1])
  columns = math.ceil(len(images) ** 0.5)
  sheet = Image.new('RGB', (columns * side, math.ceil(len(images) / columns) * side), 'white')
  for place, image in enumerate(images):
    tile = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    sheet.paste(tile, (place % columns * side, place // columns * side))
  return {'tiles': data_uri(sheet, quality=80), 'side': side, 'columns': columns}


def data_uri(picture: Image.Image, *, quality: int) -> str:
  """A picture as a URI that holds it."""
  file = io.BytesIO()
  picture.save(file, 'WEBP', quality=quality)
  return 'data:image/webp;base64,' + base64.b64encode(file.getvalue()).decode()
