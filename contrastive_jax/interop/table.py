"""Bidirectional tables between our parameters and the tensors of another format.

A row is `(ours, theirs, axes)`. For example,

    ('attention/out/kernel', 'attn.out_proj.weight', 'h e d -> d (h e)')

maps one array to another, with axes in einops notation. If a side has several arrays, their names
are separated by spaces, and the arrays are concatenated along the axis `*`:

    ('query/kernel key_value/kernel', 'in_proj_weight', 'd * h e -> (* h e) d')

concatenates our query [D, H, E] and our keys and values [D, 2, H, E] into one of their matrices. A
composed axis on our side, `(y x)`, is a square: its axes are equally long.
Reading applies a row from right to left, writing from left to right. `{layer}` in a name stands for
the number of each layer.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import einops
import jax.numpy as jnp
import numpy as np

Tensors = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

# An error lists at most this many tensors.
_LISTED = 12


class Row(NamedTuple):
  """A row of the table: names on either side, and the axes."""

  ours: str
  theirs: str
  axes: str


class UnsupportedError(ValueError):
  """A part of a model that the other format, or this library, does not support."""


def under(ours: str, theirs: str, rows: Iterable[tuple[str, str, str]]) -> list[Row]:
  """Prefixes every name of the rows, on either side."""

  def prefixed(prefix, names):
    return ' '.join(prefix + name for name in names.split())

  return [Row(prefixed(ours, a), prefixed(theirs, b), axes) for a, b, axes in rows]


def read(rows: Iterable[Row], theirs: Tensors, shapes: Shapes, where: str) -> Tensors:
  """Converts their tensors to our parameters.

  Args:
    rows: the table; rows of parameters that the model lacks are skipped.
    theirs: their tensors by name.
    shapes: the shape of each of our parameters.
    where: name of their tensors, for errors.

  Returns:
    Our parameters by path, float32.

  Raises:
    ValueError: lists the first tensors that are missing, unexpected, of another shape, or not
      floats.
    UnsupportedError: if a parameter has no row.
  """
  rows = _matching(rows, shapes)
  expected = _all_their_shapes(rows, shapes)
  faults = [f'{name} is missing' for name in expected.keys() - theirs.keys()]
  faults += [f'{name} is unexpected' for name in theirs.keys() - expected.keys()]
  faults += [
    f'{name} has the shape {list(theirs[name].shape)}, not {list(shape)}'
    for name, shape in expected.items()
    if name in theirs and theirs[name].shape != shape
  ]
  faults += [
    f'{name} is {theirs[name].dtype}, no float'
    for name in expected.keys() & theirs.keys()
    if not jnp.issubdtype(theirs[name].dtype, jnp.floating)
  ]
  if faults:
    listed = '; '.join(sorted(faults)[:_LISTED])
    more = len(faults) - _LISTED
    listed += f'; and {more} more' if more > 0 else ''
    raise ValueError(f'{where} does not hold the model of its config: {listed}')
  ours = {}
  for row in rows:
    our_axes, their_axes = row.axes.split('->')
    given = [theirs[name].astype(np.float32) for name in row.theirs.split()]
    joined = _rearrange(_join(given, their_axes), f'{their_axes}->{our_axes}', row, shapes)
    paths = row.ours.split()
    parts = _split(joined, [shapes[path] for path in paths], our_axes)
    ours |= dict(zip(paths, parts, strict=True))
  return ours


def their_shapes(rows: Iterable[Row], shapes: Shapes) -> Shapes:
  """Returns the shapes of their tensors by name, from those of our parameters by path.

  Raises:
    UnsupportedError: if a parameter has no row.
  """
  return _all_their_shapes(_matching(rows, shapes), shapes)


def _all_their_shapes(rows: Iterable[Row], shapes: Shapes) -> Shapes:
  return {name: shape for row in rows for name, shape in _their_shapes(row, shapes).items()}


def write(rows: Iterable[Row], ours: Tensors) -> Tensors:
  """Converts our parameters by path to their tensors by name.

  Raises:
    UnsupportedError: if a parameter has no row.
  """
  shapes = {path: array.shape for path, array in ours.items()}
  theirs = {}
  for row in _matching(rows, shapes):
    our_axes, their_axes = row.axes.split('->')
    joined = _join([ours[path] for path in row.ours.split()], our_axes)
    joined = _rearrange(joined, row.axes, row, shapes)
    written = _their_shapes(row, shapes)
    parts = _split(joined, list(written.values()), their_axes)
    theirs |= dict(zip(written, parts, strict=True))
  return theirs


def _matching(rows: Iterable[Row], shapes: Mapping[str, Sequence[int]]) -> list[Row]:
  """Returns the rows of the given parameters, with the numbers of the layers filled in."""
  matching = []
  for row in rows:
    first = row.ours.split()[0]
    pattern = re.compile(re.escape(first).replace(r'\{layer\}', r'(?P<layer>\d+)'))
    for match in filter(None, map(pattern.fullmatch, shapes)):
      matching.append(Row(*(part.format(**match.groupdict()) for part in row)))
  rest = shapes.keys() - {path for row in matching for path in row.ours.split()}
  if rest:
    raise UnsupportedError(
      f'the parameters {", ".join(sorted(rest))} are not supported by the other format'
    )
  return matching


def _names(axes: str) -> list[str]:
  """Splits the axes of one side; a composed axis such as `(h e)` is one."""
  return re.findall(r'\([^)]*\)|\S+', axes)


def _sizes(row: Row, shapes: Shapes) -> dict[str, int]:
  """Returns the size of each axis, from our shapes."""
  names = _names(row.axes.split('->')[0])
  sizes = {}
  for path in row.ours.split():
    shape, extra = list(shapes[path]), len(shapes[path]) - len(names) + 1
    if '*' in names:
      at = names.index('*')
      shape[at : at + extra] = [math.prod(shape[at : at + extra])]
      sizes['*'] = sizes.get('*', 0) + shape[at]
    sizes |= {name: size for name, size in zip(names, shape, strict=True) if name != '*'}
  for name in [name for name in sizes if name.startswith('(')]:
    axes, size = name.strip('()').split(), sizes.pop(name)
    sizes |= dict.fromkeys(axes, round(size ** (1 / len(axes))))
  return sizes


def _their_shapes(row: Row, shapes: Shapes) -> Shapes:
  sizes, names = _sizes(row, shapes), row.theirs.split()
  axes = _names(row.axes.split('->')[1])
  if len(names) > 1:
    axes.remove('*')
  sizes['1'] = 1
  shape = tuple(math.prod(sizes[axis] for axis in re.findall(r'[^\s()]+', name)) for name in axes)
  return dict.fromkeys(names, shape)


def _rearrange(array: np.ndarray, axes: str, row: Row, shapes: Shapes) -> np.ndarray:
  sizes = {name.replace('*', 'parts'): size for name, size in _sizes(row, shapes).items()}
  sizes.pop('1', None)
  return einops.rearrange(array, axes.replace('*', 'parts'), **sizes)


def _packed(axes: str) -> str:
  """Returns the pattern with which einops packs along `*`; a composed axis is one."""
  return ' '.join(re.sub('[() ]', '', name) for name in _names(axes))


def _join(arrays: Sequence[np.ndarray], axes: str) -> np.ndarray:
  return arrays[0] if len(arrays) == 1 else einops.pack(arrays, _packed(axes))[0]


def _split(array: np.ndarray, shapes: Sequence[tuple[int, ...]], axes: str) -> list[np.ndarray]:
  """Splits an array into arrays of the given shapes: the inverse of `_join`."""
  if len(shapes) == 1:
    return [array]
  names = _names(axes)
  at = names.index('*')
  joined = [shape[at : at + len(shape) - len(names) + 1] for shape in shapes]
  return einops.unpack(array, joined, _packed(axes))
