"""What open_clip computes for the models in tests/parity_data."""

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent.parent / 'parity_data'
CASES = ('clip', 'clip_quickgelu', 'siglip', 'coca')


def expected(case):
  """The arrays of a case, its images as [B, H, W, 3]."""
  with np.load(FOLDER / case / 'expected.npz') as arrays:
    found = dict(arrays)
  found['image'] = found['image'].transpose(0, 2, 3, 1)
  return found


def sampled(gradient):
  """Every n-th entry of a gradient, as many as expected.npz keeps of it."""
  flat = gradient.reshape(-1)
  return flat[:: max(1, flat.size // 97)]
