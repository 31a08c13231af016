"""What open_clip computes for the models in tests/parity_data."""

import pathlib

import numpy as np
import safetensors.numpy

FOLDER = pathlib.Path(__file__).parent.parent / 'parity_data'
CASES = ('clip', 'clip_quickgelu', 'siglip', 'coca')


def expected(case, folder=FOLDER):
  """The arrays of a case, its images as [B, H, W, 3]."""
  with np.load(folder / case / 'expected.npz') as arrays:
    found = dict(arrays)
  found['image'] = found['image'].transpose(0, 2, 3, 1)
  return found


def sampled(gradient, count=97):
  """Every n-th entry of a gradient, as many as expected.npz keeps of it."""
  flat = gradient.reshape(-1)
  return flat[:: max(1, flat.size // count)]


def assert_same_bytes(before, after):
  """Two files of tensors hold the same names, dtypes, shapes and bytes."""
  before, after = map(safetensors.numpy.load_file, (before, after))
  assert before.keys() == after.keys()
  for name, tensor in before.items():
    assert (after[name].dtype, after[name].shape) == (tensor.dtype, tensor.shape), name
    assert after[name].tobytes() == tensor.tobytes(), name
