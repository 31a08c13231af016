"""The mesh of devices, and the sharding of batches over it."""

import math
from collections.abc import Callable

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ('data', 'fsdp', 'tensor')
BATCH_AXES = ('data', 'fsdp')


def make_mesh(shape: str = 'data:-1', devices=None) -> Mesh:
  """Arranges devices in a mesh with the axes 'data', 'fsdp' and 'tensor'.

  Several TPU slices are joined along 'data': the other axes, which send more, stay within a slice.

  Args:
    shape: sizes by axis, such as 'data:-1,fsdp:4'. Omitted axes have size 1; one size may be -1,
      which takes the remaining devices.
    devices: default all devices.

  Raises:
    ValueError: if an axis is unknown, the sizes do not multiply to the number of devices or do not
      fit their torus, or the number of slices does not divide 'data'.
  """
  devices = jax.devices() if devices is None else devices
  sizes = dict.fromkeys(AXES, 1)
  for part in shape.split(','):
    axis, _, size = part.strip().partition(':')
    if axis not in AXES or not size.lstrip('-').isdigit() or int(size) == 0 or int(size) < -1:
      raise ValueError(
        f'config.mesh = {shape!r}: cannot read {part!r}; '
        f"write sizes by axis, such as 'data:-1,fsdp:4', with axes of {AXES}"
      )
    sizes[axis] = int(size)
  rest = [axis for axis, size in sizes.items() if size == -1]
  known = math.prod(size for size in sizes.values() if size > 0)
  if len(rest) == 1 and len(devices) % known == 0:
    sizes[rest[0]] = len(devices) // known
  if math.prod(sizes.values()) != len(devices) or len(rest) > 1:
    raise ValueError(
      f'config.mesh = {shape!r} does not fit {len(devices)} devices; '
      'its sizes must multiply to that, and one may be -1'
    )
  try:
    return _arrange(sizes, devices, shape)
  except NotImplementedError as error:  # of JAX, where axes do not divide along a torus
    raise ValueError(f'config.mesh = {shape!r} does not fit the torus: {error}') from error


def _arrange(sizes: dict[str, int], devices, shape: str) -> Mesh:
  """Makes a mesh of given sizes, whose slices are joined along 'data'."""
  types = (AxisType.Auto,) * len(AXES)
  slices = len({getattr(device, 'slice_index', 0) for device in devices})
  if slices == 1:
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=types, devices=devices)
  if sizes['data'] % slices:
    raise ValueError(
      f"config.mesh = {shape!r} has data:{sizes['data']} on {slices} slices; 'data' joins the "
      f'slices, so use a multiple of {slices}'
    )
  within = sizes['data'] // slices, sizes['fsdp'], sizes['tensor']
  return Mesh(mesh_utils.create_hybrid_device_mesh(within, (slices, 1, 1), devices), AXES, types)


def batch_shards(mesh: Mesh) -> int:
  """Returns the number of shards of a batch."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch along its first axis."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def local_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
  """Returns the rows of a batch on this process's devices, which it has to feed."""
  parts = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
  return np.unique(np.concatenate([np.arange(batch_size)[part] for part in parts]))


def place_rows(batch, mesh: Mesh, batch_size: int):
  """Builds global arrays [batch_size, ...] from the `local_rows` of each process."""
  sharding = batch_sharding(mesh)

  def put(rows):
    return jax.make_array_from_process_local_data(sharding, rows, (batch_size, *rows.shape[1:]))

  return jax.tree.map(put, batch)


def place_whole(batch, mesh: Mesh):
  """Shards arrays [B, ...] that every process holds in full."""
  size = len(jax.tree.leaves(batch)[0])
  own = local_rows(mesh, size)
  return place_rows(jax.tree.map(lambda array: array[own], batch), mesh, size)


def place_padded(array: np.ndarray, mesh: Mesh, fill: float = 0) -> jax.Array:
  """Shards an array [B, ...] that every process holds in full, for any B.

  Args:
    array: [B, ...]
    mesh: the mesh.
    fill: value of the last rows, which make B a multiple of the batch shards.
  """
  size = -(-len(array) // batch_shards(mesh)) * batch_shards(mesh)

  def part(index):
    start, stop, _ = index[0].indices(size)
    own = array[start:stop]
    missing = stop - start - len(own)
    padding = [(0, missing)] + [(0, 0)] * (array.ndim - 1)
    return np.pad(own, padding, constant_values=fill) if missing else own

  return jax.make_array_from_callback((size, *array.shape[1:]), batch_sharding(mesh), part)


def split_micro_batches(batch, parts: int, mesh: Mesh):
  """Reshapes [B, ...] to [parts, B / parts, ...] without communication between devices.

  Each device splits its own rows, so a micro-batch holds rows of every device.
  """
  shards, sharding = batch_shards(mesh), NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))

  def split(array):
    array = array.reshape(shards, parts, -1, *array.shape[1:]).swapaxes(0, 1)
    array = array.reshape(parts, -1, *array.shape[3:])
    return jax.lax.with_sharding_constraint(array, sharding)

  return jax.tree.map(split, batch)


def merge_micro_batches(parts, mesh: Mesh):
  """The inverse of `split_micro_batches`; of scalars [parts] it returns the first."""
  shards, sharding = batch_shards(mesh), batch_sharding(mesh)

  def merge(array):
    if array.ndim == 1:
      return array[0]
    array = array.reshape(len(array), shards, -1, *array.shape[2:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(array.reshape(-1, *array.shape[3:]), sharding)

  return jax.tree.map(merge, parts)


def on_mesh(function: Callable, mesh: Mesh) -> Callable:
  """Wraps a function to be traced with the mesh set, so that `constrain_batch` applies."""

  def traced(*arguments):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*arguments)

  return traced


def constrain_batch(array: jax.Array) -> jax.Array:
  """Constrains an activation [B, ...] to be sharded along B only; the identity without a mesh.

  Otherwise the compiler may move activations instead of gathering the sharded parameters.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return array
  return jax.lax.with_sharding_constraint(array, PartitionSpec(BATCH_AXES))
