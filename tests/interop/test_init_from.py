"""The weights that a run begins with."""

import json

import jax
import numpy as np
import pytest

from contrastive_jax import interop
from contrastive_jax.interop.model import unstack_layers
from contrastive_jax.models.definition import define
from tests.interop.models import model_of
from tests.models.towers import IMAGE


def test_parameters_fit_a_config_that_scans_and_sees_larger_images(tmp_path):
  model = model_of({})
  interop.write_open_clip(model, tmp_path)
  image = {**model.fields['image'], 'scan': True, 'size': 16}
  initial = interop.initial_parameters(tmp_path, {**model.fields, 'image': image, 'scale': 1.0})
  flat, resized = unstack_layers(initial), unstack_layers(model.resize(16).parameters)
  assert flat.keys() == resized.keys()
  for path, array in flat.items():
    np.testing.assert_array_equal(array, resized[path])
  assert initial['image']['transformer']['blocks']['mlp']['up']['kernel'].shape == (2, 16, 64)


def test_an_encoder_without_texts_begins_with_its_weights(tmp_path):
  fields = {'name': 'encoder', 'embed': 16, 'image': IMAGE}
  shapes = define(**fields).shapes
  parameters = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
  interop.write_model(interop.Model(fields, parameters), tmp_path)
  initial = interop.initial_parameters(tmp_path, fields)
  jax.tree.map(np.testing.assert_array_equal, initial, parameters)


def test_another_normalization_than_that_of_the_weights_is_told(tmp_path, caplog):
  model = model_of({}, source={'preprocess_cfg': {'mean': [0.5] * 3, 'std': [0.5] * 3}})
  interop.write_open_clip(model, tmp_path)
  interop.initial_parameters(tmp_path, model.fields, mean=(0.5,) * 3, std=(0.5,) * 3)
  assert not caplog.messages
  interop.initial_parameters(tmp_path, model.fields)
  (message,) = caplog.messages
  assert 'mean (0.5, 0.5, 0.5)' in message and 'config.data.mean and config.data.std' in message


def test_no_folder_gives_no_parameters():
  assert interop.initial_parameters('', model_of({}).fields) is None


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'image': {'layers': 1}}, r'config\.model\.image\.layers is 1, there 2'),
    ({'text': {'activation': 'quick_gelu'}}, r"text\.activation is 'quick_gelu', there 'gelu'"),
    ({'image': {'mlp_ratio': 2}}, r'image/.*mlp/up/kernel has the shape \[16, 32\], there'),
    ({'bias': -10.0}, r'config\.model\.bias is True, there False'),
    ({'text': {'length': 9}}, r'config\.model\.text\.length is 9, there 6'),
  ],
)
def test_another_model_is_refused_by_what_differs(fields, message, tmp_path):
  interop.write_open_clip(model_of({}), tmp_path)
  with pytest.raises(ValueError, match=message):
    interop.initial_parameters(tmp_path, model_of(fields).fields)


def test_a_folder_of_another_kind_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r'holds no open_clip_config\.json and no config\.json'):
    interop.read(tmp_path)
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'bert'}))
  (tmp_path / 'model.safetensors').write_bytes(b'')
  with pytest.raises(ValueError, match=r"model_type = 'bert'"):
    interop.read(tmp_path)
  (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(ValueError, match=r'workdir of a run; export it with --mode=export'):
    interop.read(tmp_path)
