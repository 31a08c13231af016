"""timm's networks whose names stand for sizes, as open_clip builds them.

open_clip has the network take the mean over places, and puts a projection on top.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from contrastive_jax.interop.fields import Field
from contrastive_jax.interop.open_clip.blocks import BATCH_NORM, NORM
from contrastive_jax.interop.open_clip.kind import (
  Kind,
  Section,
  read_section,
  require,
  write_section,
)
from contrastive_jax.interop.table import Row, UnsupportedError, under

Rows = tuple[tuple[str, str, str], ...]

# Our projections by timm_proj and timm_proj_bias. With None it is the network's classifier.
_PROJECTIONS = {
  ('linear', False): 'linear',
  ('linear', True): 'affine',
  ('mlp', False): 'mlp',
  ('none', False): 'none',
  (None, False): 'affine',
}


def make_kind(
  tower: str,
  sizes: Mapping[str, Any],
  table: Sequence[Field],
  rows: Callable[[Mapping[str, Any]], list[Row]],
  free: Collection[str] = (),
) -> Kind:
  """Returns the kind of towers of some networks.

  Args:
    tower: name of our tower.
    sizes: named tuples of our fields of the tower, by timm's name of the network.
    table: further fields, beside 'pooling'.
    rows: all fields by path -> rows of the tower, relative to `visual.`.
    free: fields that open_clip needs not know, such as initial values.
  """
  table = (*table, Field('pooling', '', 'mean'))

  def read(section: Section, model_cfg: Section) -> dict[str, Any]:
    size = sizes[_name(section)]._asdict()
    image = {'tower': tower, **read_section(table, section, 'vision_cfg', ('image_size',)), **size}
    given = section.get('image_size', 224)
    sides = {*([given] if isinstance(given, int) else given)}
    if len(sides) == 1 and not image.get('positions', True):
      # Without positions a network takes any size, such as ViTamin-XL-384 of open_clip 256.
      (image['size'],) = sides
    if sides != {image['size']}:
      raise UnsupportedError(
        f'vision_cfg.image_size = {given!r} is not supported with timm_model_name = '
        f'{section["timm_model_name"]!r}; {image["size"]} is'
      )
    image['drop_path'] = section.get('timm_drop_path') or 0.0
    return {'image': image, 'image_projection': _read_projection(section)}

  def write(fields: Mapping[str, Any], before: Section) -> dict[str, Any]:
    names = [name for name, size in sizes.items() if _has(fields, size)]
    if not names:
      raise UnsupportedError(
        f'{_told(fields, next(iter(sizes.values())))} is not supported by open_clip; {tower}s of '
        f'timm are {", ".join(sizes)}'
      )
    name = before.get('timm_model_name') if _name(before) in names else names[0]
    elsewhere = {f'image/{field}' for field in (*sizes[names[0]]._fields, *free)}
    kept = {path: value for path, value in fields.items() if path not in elsewhere}
    section = {'image_size': fields['image/size'], **write_section(table, kept, 'image', before)}
    if section.get('timm_drop_path') or fields['image/drop_path']:
      section['timm_drop_path'] = fields['image/drop_path']
    return section | {'timm_model_name': name, **_write_projection(fields, before)}

  return Kind(
    tower=tower,
    matches=lambda section: _name(section) in sizes,
    read=read,
    write=write,
    rows=lambda fields, section: [*rows(fields), *under('', '', _projection_rows(section))],
  )


def _name(section: Section) -> str:
  """The network's name, without the tag of its weights that may follow a point."""
  return (section.get('timm_model_name') or '').partition('.')[0]


def _has(fields: Mapping[str, Any], size: Any) -> bool:
  return all(fields[f'image/{name}'] == value for name, value in size._asdict().items())


def _told(fields: Mapping[str, Any], size: Any) -> str:
  return ' with '.join(f'image.{name} = {fields[f"image/{name}"]!r}' for name in size._fields)


def _read_projection(section: Section) -> str:
  # '' leaves the pooling to the network, whose own is the mean.
  if (pool := section.get('timm_pool', 'avg')) not in ('', 'avg'):
    raise UnsupportedError(f"vision_cfg.timm_pool = {pool!r} is not supported; 'avg' is")
  projection = section.get('timm_proj', 'linear') or None, section.get('timm_proj_bias', False)
  if projection not in _PROJECTIONS:
    raise UnsupportedError(
      f'vision_cfg.timm_proj = {projection[0]!r} with timm_proj_bias = {projection[1]} is not '
      f'supported; use one of {list(_PROJECTIONS)}'
    )
  return _PROJECTIONS[projection]


def _write_projection(fields: Mapping[str, Any], before: Section) -> dict[str, Any]:
  require(fields, 'image_projection', *_PROJECTIONS.values())
  if before and _read_projection(before) == fields['image_projection']:
    return {}
  proj, bias = next(key for key, ours in _PROJECTIONS.items() if ours == fields['image_projection'])
  return {'timm_proj': proj, 'timm_proj_bias': bias}


def norm(ours: str, theirs: str) -> Rows:
  """Rows of a norm."""
  return tuple(under(f'{ours}/', f'{theirs}.', NORM))


def batch_norm(ours: str, theirs: str) -> Rows:
  """Rows of a batch norm with running statistics."""
  return tuple(under(f'{ours}/', f'{theirs}.', BATCH_NORM))


def affine(ours: str, theirs: str, axes: str = 'i o -> o i') -> Rows:
  """Rows of a linear map or a convolution."""
  rows = (('kernel', 'weight', axes), ('bias', 'bias', 'o -> o'))
  return tuple((f'{ours}/{mine}', f'{theirs}.{other}', axes) for mine, other, axes in rows)


# Axes of convolutions: of squares, per channel, and of 1 x 1.
SQUARE, PER_CHANNEL, POINT = 'p q i o -> o i p q', 'p q 1 o -> o 1 p q', 'i o -> o i 1 1'


def _projection_rows(section: Section) -> Rows:
  linear = 'head.proj' if section.get('timm_proj', 'linear') else 'trunk.head.fc'
  return (
    *affine('image_projection', linear),
    *affine('image_projection/up', 'head.mlp.fc1'),
    *affine('image_projection/down', 'head.mlp.fc2'),
  )
