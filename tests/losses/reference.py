"""What the tests hold the losses to: dense, float64, NumPy."""

import jax
import numpy as np

from contrastive_jax.losses import pairwise

MESHES = {
  '1': ((1,), ('data',)),
  '2': ((2,), ('data',)),
  '4': ((4,), ('fsdp',)),
  '8': ((8,), ('data',)),
  '4x2': ((4, 2), ('data', 'fsdp')),
  '2x2x2': ((2, 2, 2), ('data', 'fsdp', 'tensor')),
  'copies': ((2,), ('tensor',)),
}


def make_mesh(name):
  """A mesh of simulated devices by its name; None for 'none'; a ring for 'NAME/BYTES'."""
  if name == 'none':
    return None
  name, _, gather_bytes = name.partition('/')
  if gather_bytes:
    return pairwise.Ring(make_mesh(name), int(gather_bytes))
  shape, axes = MESHES[name]
  types = (jax.sharding.AxisType.Auto,) * len(axes)
  devices = jax.devices()[: int(np.prod(shape))]
  return jax.make_mesh(shape, axes, axis_types=types, devices=devices)


def unit(rng, *shape):
  """Random unit vectors, float32."""
  vectors = rng.normal(size=shape)
  return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def uncorrelated(size=16, width=5):
  """Features of mean 0 and variance 1, no two of which correlate."""
  drawn = np.random.default_rng(0).normal(size=(size, width))
  return np.linalg.qr(drawn - drawn.mean(0))[0] * size**0.5


def logsumexp(scores, axis):
  """Log Σ exp of float64 scores; −inf where none is finite."""
  greatest = np.max(scores, axis=axis, keepdims=True)
  greatest = np.where(np.isfinite(greatest), greatest, 0.0)
  with np.errstate(divide='ignore'):
    return np.squeeze(greatest, axis) + np.log(np.sum(np.exp(scores - greatest), axis=axis))


def softmax(scores, axis):
  """The exponentials of float64 scores over their sum; 0 where none is finite."""
  total = np.expand_dims(logsumexp(scores, axis), axis)
  return np.exp(scores - np.where(np.isfinite(total), total, np.inf))


def counted(rows, columns, exclude=None, diagonal=True):
  """Which pairs count, [rows, columns] booleans; `exclude` is one set of integers or two."""
  same = np.arange(rows)[:, None] == np.arange(columns)
  counts = np.ones((rows, columns), bool)
  if exclude is not None:
    left, right = exclude if isinstance(exclude, tuple) else (exclude, exclude)
    counts = same | (np.asarray(left)[:, None] != np.asarray(right))
  return counts if diagonal else counts & ~same


def info_nce(image, text, scale, same=None, label_smoothing=0.0):
  """The loss and its gradients with respect to image, text and scale."""
  image, text, scale = (np.asarray(a, np.float64) for a in (image, text, scale))
  size = len(image)
  products = image @ text.T
  counts = counted(size, size, same)
  scores = np.where(counts, scale * products, -np.inf)
  # The pairs that count are the same in both directions.
  spread = counts / counts.sum(1, keepdims=True)
  spread = (1 - label_smoothing) * np.eye(size) + label_smoothing * (spread + spread.T) / 2
  loss = (logsumexp(scores, 1) + logsumexp(scores, 0)).mean() / 2
  loss -= scale * np.sum(spread * products) / size
  slope = (softmax(scores, 1) + softmax(scores, 0)) / (2 * size) - spread / size
  return loss, (scale * slope @ text, scale * slope.T @ image, np.sum(slope * products))


def differences(function, *arguments, step=1e-5):
  """A float64 function's gradient with respect to every argument, by central differences."""
  arguments = [np.asarray(a, np.float64) for a in arguments]
  gradients = []
  for place, argument in enumerate(arguments):
    gradient = np.zeros_like(argument)
    for index in np.ndindex(argument.shape):
      values = []
      for sign in (1, -1):
        moved = argument.copy()
        moved[index] += sign * step
        values.append(function(*arguments[:place], moved, *arguments[place + 1 :]))
      gradient[index] = (values[0] - values[1]) / (2 * step)
    gradients.append(gradient)
  return tuple(gradients)


def assert_near(got, expected, floor=1.0, tolerance=5e-5):
  """The largest error is under `tolerance` of the largest entry, or of a floor near zero."""
  got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
  assert got.shape == expected.shape
  np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected))
  finite = ~np.isneginf(expected)
  error = np.max(np.abs(got[finite] - expected[finite]), initial=0.0)
  largest = np.max(np.abs(expected[finite]), initial=floor)
  assert error <= tolerance * largest, f'{error} over {tolerance} of {largest}'


def float64_gradients(function, *arguments):
  """A dense JAX function's value and its gradients with respect to floats, in float64."""
  with jax.enable_x64(True):
    arguments = jax.tree.map(
      lambda a: np.asarray(a, np.float64) if np.issubdtype(np.asarray(a).dtype, np.floating) else a,
      arguments,
    )
    places = tuple(range(len(arguments)))
    value, gradients = jax.value_and_grad(function, places, allow_int=True)(*arguments)
    return np.asarray(value), jax.tree.map(np.asarray, gradients)
