"""Tables that tie our fields to the entries of another format's config, read in both directions."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from contrastive_jax.interop.table import NoForm

# How a model is run, and what a model that is done with training no longer uses.
_FREE = ('scan', 'patch_dropout')


def same(value, _width):
  """Keeps a value."""
  return value


def square(value, _width):
  """The side of a square, which they may give twice."""
  sides = {value} if isinstance(value, int) else set(value)
  if len(sides) != 1:
    raise KeyError(value)
  return sides.pop()


def number(value, _width):
  """A number, where others of their models have a list."""
  if not isinstance(value, int):
    raise KeyError(value)
  return value


class Field(NamedTuple):
  """One of our fields, and the entry of theirs that says it.

  Attributes:
    ours: our field, or '' for an entry that may only have its default.
    theirs: their entry, or '' for a field that may only have its default.
    default: what their entry is when left out; ours, where there is no entry.
    read: (their value, width of the tower) -> ours. A KeyError says that there is no such form.
    write: the inverse.
  """

  ours: str
  theirs: str
  default: Any
  read: Callable[[Any, int], Any] = same
  write: Callable[[Any, int], Any] = same


def words(ours: str, theirs: str, default: Any, values: Mapping[Any, Any]) -> Field:
  """A field whose values have other names there: `values` gives ours by theirs, the first wins."""
  back = {value: key for key, value in reversed(values.items())}
  return Field(ours, theirs, default, lambda x, _: values[x], lambda x, _: back[x])


def hidden(theirs: str, default: int) -> Field:
  """The hidden width of the MLPs, which we keep as a share of the width."""

  def read(value, width):
    # Rounding must not lose a unit when the share is multiplied out again.
    return value / width if int(width * (value / width)) == value else (value + 0.5) / width

  return Field('mlp_ratio', theirs, default, read, lambda ratio, width: int(width * ratio))


def heads(theirs: str, default: int) -> Field:
  """The number of heads, which they keep as the width of one."""
  return Field(
    'heads', theirs, default, lambda size, width: width // size, lambda n, width: width // n
  )


def read(
  rows: Iterable[Field], section: Mapping[str, Any], where: str, neutral: Iterable[str] | None
) -> dict[str, Any]:
  """Our fields of one tower.

  Args:
    rows: the table.
    section: their entries of this tower.
    where: the section's name, for errors.
    neutral: entries that make no difference to the model; None if all others make none.

  Raises:
    NoForm: names the entry, and what it has.
  """
  entries = {row.theirs: section.get(row.theirs, row.default) for row in rows if row.theirs}
  width = next((entries[row.theirs] for row in rows if row.ours == 'width'), 0)
  unknown = [] if neutral is None else section.keys() - entries.keys() - set(neutral)
  for name in sorted(unknown):
    raise NoForm(f'{where}.{name} = {section[name]!r} has no form here')
  fields = {}
  for row in rows:
    if not row.theirs:
      fields[row.ours] = row.default
    elif row.ours:
      try:
        fields[row.ours] = row.read(entries[row.theirs], width)
      except (KeyError, TypeError):
        raise NoForm(f'{where}.{row.theirs} = {entries[row.theirs]!r} has no form here') from None
    elif entries[row.theirs] != row.default:
      raise NoForm(
        f'{where}.{row.theirs} = {entries[row.theirs]!r} has no form here; '
        f'models with {row.default!r} do'
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
    source: their section as it was read, or {}; entries without a row are kept.
    form: the format's name, for errors.

  Raises:
    NoForm: names the field, and what it is.
  """
  table = {row.ours: row for row in rows if row.ours}
  known = {row.theirs for row in rows}
  section = {name: value for name, value in source.items() if name not in known}
  for path, value in fields.items():
    name = path.removeprefix(f'{tower}/')
    if name == path or (name in _FREE and name not in table):
      continue
    refused = f'{tower}.{name} = {value!r} has no form in {form}'
    row = table.get(name)
    if row is None:
      raise NoForm(refused)
    if row.theirs:
      try:
        entry = row.write(value, fields.get(f'{tower}/width', 0))
      except (KeyError, TypeError):
        raise NoForm(refused) from None
      if entry is not None:
        section[row.theirs] = entry
    elif value != row.default:
      raise NoForm(f'{refused}; {row.default!r} has')
  return section
