"""Examples from Arrow columns, those of Parquet files and of Hugging Face's datasets.

Hugging Face stores the types of columns as JSON in the schema: an image is a struct of its bytes
and its path, and a class label the number of a name.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from absl import logging

from contrastive_jax.data import images
from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.rows import FIELDS
from contrastive_jax.data.sources.source import BadExampleError


class Columns:
  """What the columns of a schema hold.

  Attributes:
    fields: columns other than images.
    paths: selection of the paths of images, of one column or none, which is read with the fields.
    encoded: selection of the encoded images, of one column or none.
  """

  def __init__(self, schema: pa.Schema):
    """Finds the columns of the image and of the caption.

    The image is a column of encoded images: by a name that rows use, else by its type, a struct of
    bytes and path or Hugging Face's, else by the ending of an image file as its name. Without one,
    it is a column of paths by a name that rows use. Other columns of images are passed over, with a
    warning.
    """
    self._features = _features(schema)
    pictures = [field.name for field in schema if _holds_images(field, self._features)]
    self.image = _find_image(schema, pictures, self._features)
    self.paths, self.encoded = _parts(schema, self.image)
    if others := [name for name in pictures if name != self.image]:
      logging.warning('the image is %s; passed over are the images %s', self.image, others)
    self.fields = [name for name in schema.names if name not in pictures and name != self.image]
    candidates = [name for name in FIELDS['caption'] if name in self.fields]
    self._caption = candidates[0] if candidates else None

  def values(self, table: pa.Table | pa.RecordBatch, row: int) -> dict[str, Any]:
    """Returns the fields of a row, with class labels as names and the text as `caption`.

    Raises:
      BadExampleError: if a value has no Python value, such as text that is not UTF-8.
    """
    found = {}
    for name in self.fields:
      try:
        value = _plain(table.column(name)[row])
      except (ValueError, pa.ArrowException) as error:
        raise BadExampleError(f'the column {name!r} cannot be read: {error}') from error
      if name in self._features:
        value = _named(self._features[name], value)
      found['caption' if name == self._caption else name] = value
    return found

  def path(self, table: pa.Table | pa.RecordBatch, row: int) -> str | None:
    """Returns the path of the image of a row, None if it has none."""
    if not self.paths:
      return None
    value = table.column(self.image)[row]
    if not isinstance(value, pa.StructScalar):
      return value.as_py()
    return value['path'].as_py() if value.is_valid else None

  def content(self, table: pa.Table | pa.RecordBatch, row: int) -> bytes | None:
    """Returns the encoded image of a row, None if its column has none."""
    value = table.column(self.image)[row]
    if not isinstance(value, pa.StructScalar):
      return value.as_py()
    return value['bytes'].as_py() if value.is_valid else None

  def read_image(
    self,
    encoded: pa.Table | pa.RecordBatch | None,
    light: pa.Table | pa.RecordBatch,
    row: int,
    file: str,
  ) -> bytes:
    """Returns the encoded image of a row, from its column or from the file at its path.

    Args:
      encoded: the columns of `encoded`; None if there are none.
      light: the columns of `paths`.
      row: the row in both.
      file: the path of the file that holds the row, from which other paths are relative.

    Raises:
      BadExampleError: if the row has no image, or its file cannot be read.
    """
    content = None if encoded is None else self.content(encoded, row)
    if content is not None:
      return content
    if path := self.path(light, row):
      return files.read_image(files.beside(file, path))
    raise BadExampleError(f'{file}: the column {self.image!r} of the row is empty')


def _features(schema: pa.Schema) -> dict[str, Any]:
  """Returns the types that Hugging Face stores in a schema, by column; {} for other schemas."""
  try:
    found = json.loads((schema.metadata or {})[b'huggingface'])['info']['features']
  except (KeyError, TypeError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}


def _kind(feature: Any) -> str:
  return str(feature.get('_type', '')) if isinstance(feature, Mapping) else ''


def _is_bytes(kind: pa.DataType) -> bool:
  return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
  return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_file(kind: pa.DataType) -> bool:
  """Whether a type is a struct of bytes and maybe a path, as Hugging Face writes images."""
  if not pa.types.is_struct(kind):
    return False
  names = {field.name for field in kind}
  return 'bytes' in names <= {'bytes', 'path'} and _is_bytes(kind.field('bytes').type)


def _holds_images(field: pa.Field, features: Mapping[str, Any]) -> bool:
  """Whether a column holds encoded images, or lists of them, or sound in the same form."""
  kind = field.type
  while pa.types.is_list(kind) or pa.types.is_large_list(kind):
    kind = kind.value_type
  named = field.name in (*FIELDS['image'], *images.ENDINGS)
  image = _kind(features.get(field.name)) == 'Image'
  return _is_file(kind) or (_is_bytes(kind) and (named or image))


def _find_image(
  schema: pa.Schema, pictures: Sequence[str], features: Mapping[str, Any]
) -> str | None:
  """Returns the column of the image, see `Columns`; None if there is none."""
  kinds = {field.name: field.type for field in schema}
  single = [
    name
    for name in pictures
    if _is_bytes(kinds[name])
    or (_is_file(kinds[name]) and _kind(features.get(name)) in ('', 'Image'))
  ]
  candidates = [name for name in FIELDS['image'] if name in single]
  candidates += [name for name in single if name in features or _is_file(kinds[name])]
  candidates += single
  candidates += [name for name in FIELDS['image'] if name in kinds and _is_text(kinds[name])]
  return candidates[0] if candidates else None


def _parts(schema: pa.Schema, image: str | None) -> tuple[list[str], list[str]]:
  """Returns the selections of the paths and of the bytes of an image column."""
  if image is None:
    return [], []
  kind = schema.field(image).type
  if _is_text(kind):
    return [image], []
  if _is_bytes(kind):
    return [], [image]
  has_path = kind.get_field_index('path') >= 0
  return [f'{image}.path'] if has_path else [], [f'{image}.bytes']


def _plain(value: pa.Scalar) -> Any:
  """Returns a Python value; dates and times become text, durations and decimals numbers."""
  kind = value.type
  if pa.types.is_duration(kind):
    return value.cast(pa.int64()).as_py()
  if pa.types.is_temporal(kind):
    return value.cast(pa.string()).as_py()
  if pa.types.is_decimal(kind):
    return value.cast(pa.float64()).as_py()
  return value.as_py()


def _named(feature: Any, value: Any) -> Any:
  """Replaces class labels by their names; '' for a missing label."""
  if isinstance(feature, list) and feature:  # an older form of a list
    feature = {'_type': 'List', 'feature': feature[0]}
  if not isinstance(feature, Mapping):
    return value
  kind = _kind(feature)
  if kind == 'ClassLabel' and feature.get('names') and isinstance(value, int | None):
    names = feature['names']
    return names[value] if value is not None and 0 <= value < len(names) else ''
  if 'feature' in feature and isinstance(value, list):
    return [_named(feature['feature'], item) for item in value]
  if not kind and isinstance(value, dict):
    return {name: _named(feature.get(name, {}), item) for name, item in value.items()}
  return value
