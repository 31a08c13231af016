"""Where each parameter lives: its logical axes, mapped to the mesh by a table."""

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def _is_axes(node) -> bool:
  return isinstance(node, tuple)


def parameter_shardings(axes, shapes, rules: dict[str, str | None], mesh: Mesh):
  """A tree of shardings for a tree of parameters.

  Args:
    axes: the tree of logical axis names, a tuple a parameter.
    shapes: the same tree of arrays or `ShapeDtypeStruct`s.
    rules: mesh axis by logical axis, such as {'embed': 'fsdp', 'mlp': 'tensor'}; None, or left out,
      for a copy everywhere. Of two logical axes on one mesh axis, the parameter's first takes it.
    mesh: the mesh.

  Raises:
    ValueError: if a rule names no axis of the mesh, or does not divide a parameter.
  """
  for logical, axis in rules.items():
    if axis is not None and axis not in mesh.shape:
      raise ValueError(
        f'config.sharding.{logical} = {axis!r} is no axis of the mesh; use one of {mesh.axis_names}'
      )

  def shard(path, names, parameter):
    taken, spec = set(), []
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
