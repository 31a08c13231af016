"""Bidirectional tables between our model fields and the entries of another format's config."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from contrastive_jax.interop.table import UnsupportedError
from contrastive_jax.models import transformer

# Fields of a tower that only matter for how a model runs, or in training.
TRAINING = ('scan', 'patch_dropout', 'dropout', 'drop_path')
# The tower's name has a table of its own.
_IGNORED = ('tower', *TRAINING)
# Options that a format supports at their default, unless its table has them.
_OPTIONS: dict[str, Any] = {
  **transformer.OPTIONS,
  'drop_remainder': False,
  'class_position': True,
  'registers': 0,
  'final_norm': 'tokens',
  'rope': None,
  'rope_grid': None,
  'rope_offset': 0.0,
  'interpolation': 'bicubic',
  'pool_heads': None,
  'pool_mlp_ratio': None,
}


def identity(value, _width):
  """Returns the value."""
  return value


def square(value, _width):
  """Returns the side of a square, given once or twice."""
  sides = {value} if isinstance(value, int) else set(value)
  if len(sides) != 1:
    raise KeyError(value)
  return sides.pop()


def number(value, _width):
  """Returns an integer, where other models have a list."""
  if not isinstance(value, int):
    raise KeyError(value)
  return value


class Field(NamedTuple):
  """One of our fields and the corresponding entry of the other format.

  Attributes:
    ours: our field, or '' for an entry that must have its default.
    theirs: their entry, or '' for a field that must have its default.
    default: default of their entry, or of our field if there is no entry.
    read: (their value, width of the tower) -> our value; raises KeyError for unsupported values.
    write: the inverse.
  """

  ours: str
  theirs: str
  default: Any
  read: Callable[[Any, int], Any] = identity
  write: Callable[[Any, int], Any] = identity


def words(ours: str, theirs: str, default: Any, values: Mapping[Any, Any]) -> Field:
  """A field with other names of its values; `values` maps theirs to ours, the first one wins."""
  back = {value: key for key, value in reversed(values.items())}
  return Field(ours, theirs, default, lambda x, _: values[x], lambda x, _: back[x])


def hidden(theirs: str, default: int) -> Field:
  """The hidden width of the MLPs, which we store as a ratio to the width."""

  def read(value, width):
    # The ratio is raised where rounding would lose a unit of the hidden width.
    return value / width if int(width * (value / width)) == value else (value + 0.5) / width

  return Field('mlp_ratio', theirs, default, read, lambda ratio, width: int(width * ratio))


def heads(theirs: str, default: int) -> Field:
  """The number of heads, which they store as the width of a head."""
  return Field(
    'heads', theirs, default, lambda size, width: width // size, lambda n, width: width // n
  )


def read(
  rows: Iterable[Field], section: Mapping[str, Any], where: str, neutral: Iterable[str] | None
) -> dict[str, Any]:
  """Reads our fields of one tower.

  Args:
    rows: the table.
    section: their entries for this tower.
    where: the section's name, for errors.
    neutral: entries without effect on the model; None if all others have none.

  Raises:
    UnsupportedError: names the entry and its value.
  """
  entries = {row.theirs: section.get(row.theirs, row.default) for row in rows if row.theirs}
  width = next((entries[row.theirs] for row in rows if row.ours == 'width'), 0)
  unknown = [] if neutral is None else section.keys() - entries.keys() - set(neutral)
  for name in sorted(unknown):
    raise UnsupportedError(f'{where}.{name} = {section[name]!r} is not supported')
  fields = {}
  for row in rows:
    if not row.theirs:
      fields[row.ours] = row.default
    elif row.ours:
      try:
        fields[row.ours] = row.read(entries[row.theirs], width)
      except (KeyError, TypeError):
        raise UnsupportedError(
          f'{where}.{row.theirs} = {entries[row.theirs]!r} is not supported'
        ) from None
    elif entries[row.theirs] != row.default:
      raise UnsupportedError(
        f'{where}.{row.theirs} = {entries[row.theirs]!r} is not supported; {row.default!r} is'
      )
  return fields


def write(
  rows: Iterable[Field],
  fields: Mapping[str, Any],
  tower: str,
  source: Mapping[str, Any],
  form: str,
) -> dict[str, Any]:
  """The inverse of `read`.

  Args:
    rows: the table.
    fields: all fields of the model by path, 'image/width'.
    tower: 'image' or 'text'.
    source: their section as read, or {}; entries without a row are kept.
    form: the format's name, for errors.

  Raises:
    UnsupportedError: names the field and its value.
  """
  table = {row.ours: row for row in rows if row.ours}
  known = {row.theirs for row in rows}
  section = {name: value for name, value in source.items() if name not in known}
  for path, value in fields.items():
    name = path.removeprefix(f'{tower}/')
    if name == path or (name in _IGNORED and name not in table):
      continue
    refused = f'{tower}.{name} = {value!r} is not supported by {form}'
    row = table.get(name)
    if row is None and name in _OPTIONS:
      row = Field(name, '', _OPTIONS[name])
    if row is None:
      raise UnsupportedError(refused)
    if row.theirs:
      try:
        entry = row.write(value, fields.get(f'{tower}/width', 0))
      except (KeyError, TypeError):
        raise UnsupportedError(refused) from None
      if entry is not None:
        section[row.theirs] = entry
    elif value != row.default:
      raise UnsupportedError(f'{refused}; {row.default!r} is')
  return section
