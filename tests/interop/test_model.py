"""A model apart from any run: its call, other image sizes, our own form."""

import jax
import numpy as np
import pytest

from contrastive_jax import interop
from contrastive_jax.interop.model import stack_layers, unstack_layers
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


ZEROS = [[5, 0, 9, 31, 0, 0], [7, 8, 9, 3, 11, 31], [7, 8, 9, 3, 11, 6], [31, 0, 0, 0, 0, 0]]
ENDS = [[5, 0, 9, 31, 31, 31], [7, 8, 9, 3, 11, 31], [7, 8, 9, 3, 11, 6], [31, 31, 31, 31, 31, 31]]
BIDIRECTIONAL = {'causal': False, 'pooling': 'mean'}


@pytest.mark.parametrize('end_id', [None, 31, 2])
@pytest.mark.parametrize('text', [{}, {'pooling': 'mean'}, BIDIRECTIONAL, {'pooling': 'class'}])
def test_padding_with_the_end_token_is_padding_with_zeros(text, end_id):
  model = model_of({'text': text}, end_id=end_id)
  zeros, ends = (np.where(np.array(rows) == 31, end_id or 31, rows) for rows in (ZEROS, ENDS))
  for tokens in (zeros, ends):
    np.testing.assert_array_equal(model.zero_padded(tokens), zeros)
    np.testing.assert_array_equal(jax.jit(model.zero_padded)(tokens), zeros)


def test_a_causal_text_ends_at_its_first_end_whatever_follows():
  tokens = [[5, 9, 31, 1, 1, 1], [5, 31, 7, 31, 0, 0]]
  cut = [[5, 9, 31, 0, 0, 0], [5, 31, 0, 0, 0, 0]]
  np.testing.assert_array_equal(model_of({}, end_id=31).zero_padded(tokens), cut)
  # open_clip and transformers take the largest id of each text, be it the vocabulary's or not.
  there = model_of({}, source={'model_type': 'clip'})
  np.testing.assert_array_equal(there.zero_padded(tokens), cut)
  np.testing.assert_array_equal(there.zero_padded([[5, 30, 3, 30, 0, 0]]), [[5, 30, 0, 0, 0, 0]])
  # Our tower takes all but zeros for text, where nothing else is known.
  np.testing.assert_array_equal(model_of({}).zero_padded(tokens), tokens)


@pytest.mark.parametrize('text', [BIDIRECTIONAL, {'pooling': 'class'}, {'pooling': 'mean'}])
def test_ids_after_the_end_that_would_be_seen_are_refused(text):
  with pytest.raises(ValueError, match=r'the id 1 at \[1, 3\], after the end of the text; pad wi'):
    model_of({'text': text}, end_id=31).zero_padded([[5, 31, 0, 0, 0, 0], [5, 9, 31, 1, 1, 1]])


def test_padding_that_is_seen_is_kept_or_refused():
  """Without a mask a token that is not causal sees the padding: another padding, another text."""
  seen = {'causal': False, 'mask_padding': False}
  last = model_of({'text': {**seen, 'pooling': 'last'}}, end_id=31)
  np.testing.assert_array_equal(last.zero_padded([[5, 31, 1, 1, 31, 31]]), [[5, 31, 1, 1, 31, 31]])
  for pooling in ('end', 'mean'):
    model = model_of({'text': {**seen, 'pooling': pooling}}, end_id=31)
    np.testing.assert_array_equal(model.zero_padded(ZEROS), ZEROS)
    with pytest.raises(ValueError, match=r'the id 31 at \[0, 4\]'):
      model.zero_padded(ENDS)


@pytest.mark.parametrize('id_', [-1, 32])
def test_ids_without_an_embedding_are_refused(id_):
  with pytest.raises(ValueError, match='the model takes ids from 0, below 32'):
    model_of({}).zero_padded([[id_, 31, 0, 0, 0, 0]])


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


def test_stack_layers_inverts_unstack_layers_scanned_or_not():
  for scan in (False, True):
    model = model_of({'image': {'scan': scan}})
    again = stack_layers(unstack_layers(model.parameters), model.fields)
    jax.tree.map(np.testing.assert_array_equal, again, model.parameters)
