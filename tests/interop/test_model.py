"""A model apart from any run: its call, other image sizes, our own form."""

import jax
import numpy as np
import pytest

from contrastive_jax import interop
from contrastive_jax.interop.model import roll, unroll
from tests.interop.models import model_of
from tests.interop.parity import FOLDER
from tests.models.towers import batch_of


def test_a_call_is_the_definitions_on_its_parameters():
  model, (images, tokens) = model_of({}), batch_of()
  outputs = model(images, tokens)
  direct = model.definition.bind(model.parameters)(images, tokens)
  np.testing.assert_allclose(outputs.image, direct.image, atol=1e-6)
  np.testing.assert_allclose(outputs.text, direct.text, atol=1e-6)
  with pytest.raises(ValueError, match=r'images have shape .* the model takes \[B, 8, 8, 3\]'):
    model(images[:, :4], tokens)


def test_positions_are_interpolated_as_open_clip_does():
  model = model_of({'image': {'size': 32, 'patch': 8, 'width': 8}})
  with np.load(FOLDER / 'positions.npz') as arrays:
    parameters = {**model.parameters, 'image': {**model.parameters['image']}}
    parameters['image']['positions'] = arrays['grid4']
    model = interop.Model(model.fields, parameters)
    for grid in (6, 2):
      resized = model.resize(8 * grid)
      assert resized.fields['image']['size'] == 8 * grid
      positions = resized.parameters['image']['positions']
      np.testing.assert_allclose(positions, arrays[f'grid{grid}'], atol=1e-5)
  assert model.resize(32) is model
  with pytest.raises(ValueError, match='image_size = 30'):
    model.resize(30)


@pytest.mark.parametrize('pooling', ['class', 'mean'])
def test_a_constant_grid_stays_and_so_does_the_class_token(pooling):
  model = model_of({'image': {'pooling': pooling}})
  table = np.array(model.parameters['image']['positions'])
  table[-4:] = 0.7
  model.parameters['image']['positions'] = table
  resized = model.resize(12)
  positions = resized.parameters['image']['positions']
  np.testing.assert_allclose(positions[-9:], 0.7, rtol=1e-5)
  np.testing.assert_array_equal(positions[:-9], table[:-4])
  images, tokens = batch_of({'size': 12})
  assert np.isfinite(resized(images, tokens).image).all()


def test_read_open_clip_gives_the_size_that_is_asked_for():
  model = interop.read_open_clip(FOLDER / 'clip', image_size=48)
  assert model.fields['image']['size'] == 48
  assert model.parameters['image']['positions'].shape == (37, 64)


@pytest.mark.parametrize(
  'fields',
  [
    {'image': {'stem': 'convolution', 'pooling': 'mean'}, 'text': {'pooling': 'mean'}},
    {'image': {'scan': True, 'pooling': 'attention'}, 'bias': -10.0},
  ],
)
def test_our_own_form_holds_any_model(fields, tmp_path):
  model = model_of(fields, end_id=3)
  interop.write_model(model, tmp_path)
  again = interop.read(tmp_path)
  assert again.fields == model.fields and again.end_id == 3
  assert jax.tree.structure(again.parameters) == jax.tree.structure(model.parameters)
  jax.tree.map(np.testing.assert_array_equal, again.parameters, model.parameters)


def test_rolling_undoes_unrolling_scanned_or_not():
  for scan in (False, True):
    model = model_of({'image': {'scan': scan}})
    again = roll(unroll(model.parameters), model.fields)
    jax.tree.map(np.testing.assert_array_equal, again, model.parameters)
