"""The search index of the report: quantized embeddings, small enough to embed in the page."""

import base64
import io
import math
from typing import Any

import numpy as np
from PIL import Image

from contrastive_jax.evaluation.embedded import EmbeddedSplit

MAX_IMAGES = 1600  # per split
MAX_TILE_PIXELS = 48  # side of a thumbnail

_MAX_PAGE_BYTES = 3_200_000  # of all indices in one page, before base64
_TILE_BYTES = 700  # approximate size of a compressed thumbnail


def build_index(split: EmbeddedSplit, splits: int) -> dict[str, Any]:
  """Builds the index of a split: thumbnails, distinct captions, and int8 embeddings.

  Images are in a fixed random order, and cut to the number that fits into the page.

  Args:
    split: the split.
    splits: number of splits that share the page.

  Returns:
    `captions`; `own`, the index of each image's caption; `image` and `text`, int8 [., dimension] in
    base64; `unit`, the factor from an integer product to a cosine; `tiles`, a sheet of thumbnails
    as a data URI, with `columns` per row, each of `side` pixels.
  """
  dimension = split.image_embeddings.shape[1]
  room = _MAX_PAGE_BYTES // splits // (2 * dimension + _TILE_BYTES)
  order = np.random.default_rng(0).permutation(len(split.captions))
  rows = order[: max(1, min(MAX_IMAGES, room))]
  captions = {split.captions[row]: row for row in rows}
  names = list(captions)
  indices = {name: index for index, name in enumerate(names)}
  image, image_unit = _quantized(split.image_embeddings[rows])
  text, text_unit = _quantized(split.text_embeddings[[captions[name] for name in names]])
  return {
    'captions': names,
    'own': [indices[split.captions[row]] for row in rows],
    'dimension': dimension,
    'image': image,
    'text': text,
    'unit': image_unit * text_unit,
    **_tiles(split.images[rows]),
  }


def _quantized(embeddings: np.ndarray) -> tuple[str, float]:
  """Quantizes embeddings to int8 in base64; returns them and the quantization step."""
  unit = float(np.abs(embeddings).max()) / 127
  return base64.b64encode(np.round(embeddings / unit).astype(np.int8).tobytes()).decode(), unit


def _tiles(images: np.ndarray) -> dict[str, Any]:
  side = min(MAX_TILE_PIXELS, images.shape[1])
  columns = math.ceil(len(images) ** 0.5)
  sheet = Image.new('RGB', (columns * side, math.ceil(len(images) / columns) * side), 'white')
  for index, image in enumerate(images):
    tile = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
    sheet.paste(tile, (index % columns * side, index // columns * side))
  return {'tiles': data_uri(sheet, quality=80), 'side': side, 'columns': columns}


def data_uri(image: Image.Image, *, quality: int) -> str:
  """Encodes an image as a data URI."""
  file = io.BytesIO()
  image.save(file, 'WEBP', quality=quality)
  return 'data:image/webp;base64,' + base64.b64encode(file.getvalue()).decode()
