"""Sharding rules: a table from the logical axes of parameters to the axes of the mesh."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def _is_axes(node) -> bool:
  return isinstance(node, tuple)


def parameter_shardings(axes, shapes, rules: dict[str, str | None], mesh: Mesh):
  """Returns the shardings of a tree of parameters.

  Args:
    axes: a tree of tuples of logical axis names, one tuple per parameter.
    shapes: a tree of arrays or `ShapeDtypeStruct`s of the same structure.
    rules: mesh axis by logical axis, such as {'embed': 'fsdp', 'mlp': 'tensor'}. Axes that are None
      or omitted are replicated. If two logical axes of a parameter map to one mesh axis, the first
      is sharded.
    mesh: the mesh.

  Raises:
    ValueError: if a rule names an unknown mesh axis, or the axis does not divide a parameter.
  """
  for logical, axis in rules.items():
    if axis is not None and axis not in mesh.shape:
      raise ValueError(
        f'config.sharding.{logical} = {axis!r} is no axis of the mesh; use one of {mesh.axis_names}'
      )

  def shard(path, names, parameter):
    taken: set[str] = set()
    spec: list[str | None] = []
    for name, size in zip(names, parameter.shape, strict=True):
      axis = rules.get(name)
      if axis is None or axis in taken or mesh.shape[axis] == 1:
        spec.append(None)
        continue
      if size % mesh.shape[axis]:
        raise ValueError(
          f'{jax.tree_util.keystr(path, simple=True, separator="/")} of shape {parameter.shape}: '
          f'config.sharding.{name} = {axis!r} cuts {size} into {mesh.shape[axis]}; '
          'choose a mesh whose axis divides it, or None'
        )
      taken.add(axis)
      spec.append(axis)
    return NamedSharding(mesh, PartitionSpec(*spec))

  return jax.tree_util.tree_map_with_path(shard, axes, shapes, is_leaf=_is_axes)


def place(shapes, shardings):
  """The tree of `ShapeDtypeStruct`s that says where each array lies."""

  def placed(shape, sharding):
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

  return jax.tree.map(placed, shapes, shardings)
