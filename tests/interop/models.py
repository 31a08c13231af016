"""Tiny models of ours that the tests send abroad."""

import jax
import numpy as np

from contrastive_jax.interop import Model
from contrastive_jax.interop.model import unstack_layers
from contrastive_jax.models.definition import define
from tests.models.towers import IMAGE, TEXT


def model_of(fields, seed=0, **attributes):
  """A CLIP, tiny but for what is given, with random parameters."""
  fields = {
    'name': 'clip',
    'embed': 12,
    **fields,
    'image': {**IMAGE, **fields.get('image', {})},
    'text': {**TEXT, **fields.get('text', {})},
  }
  random = np.random.default_rng(seed)
  shapes = define(**fields).shapes
  parameters = jax.tree.map(
    lambda leaf: np.asarray(random.normal(0, 0.3, leaf.shape), np.float32), shapes
  )
  return Model(fields, parameters, **attributes)


def assert_same_parameters(model, again):
  """Both hold the same numbers, their layers stacked or not."""
  theirs = unstack_layers(again.parameters)
  for path, array in unstack_layers(model.parameters).items():
    np.testing.assert_array_equal(theirs[path], array)
