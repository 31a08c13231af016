"""Hugging Face's CLIPModel and SiglipModel; equality with transformers is in test_peers.py."""

import json

import numpy as np
import pytest
import safetensors.numpy

from contrastive_jax import interop
from contrastive_jax.interop.model import with_defaults
from tests.interop.models import assert_same_parameters, model_of

SIGLIP = {
  'embed': 16,
  'bias': -10.0,
  'image_projection': 'none',
  'text_projection': 'affine',
  'image': {'pooling': 'attention', 'pre_norm': False, 'stem_bias': True, 'epsilon': 1e-6},
  'text': {'pooling': 'last', 'causal': False, 'mask_padding': False, 'epsilon': 1e-6},
}


@pytest.mark.parametrize(
  'fields', [{}, {'image': {'scan': True}, 'text': {'mlp_ratio': 3.7362}}, SIGLIP]
)
def test_our_models_come_back_the_same(fields, tmp_path):
  model = model_of(fields)
  interop.write_hugging_face(model, tmp_path)
  again = interop.read(tmp_path)
  assert_same_parameters(model, again)
  ours, theirs = with_defaults(model.fields), with_defaults(again.fields)
  for name in ours.keys() - {'scale', 'image/scan', 'text/mlp_ratio'}:
    assert theirs[name] == ours[name], name
  before = safetensors.numpy.load_file(tmp_path / 'model.safetensors')
  interop.write_hugging_face(again, tmp_path)
  after = safetensors.numpy.load_file(tmp_path / 'model.safetensors')
  assert before.keys() == after.keys()
  assert all(after[name].tobytes() == tensor.tobytes() for name, tensor in before.items())


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'image': {'stem': 'convolution'}},
      r"image\.stem = 'convolution' is not supported by CLIPModel",
    ),
    ({'text': {'pooling': 'last'}}, r"text\.pooling = 'last' is not supported by CLIPModel"),
    ({'bias': -10.0}, r"image_projection = 'linear' is not supported by SiglipModel; 'none' is"),
    ({**SIGLIP, 'text': {**SIGLIP['text'], 'mask_padding': True}}, r'text\.mask_padding = True'),
  ],
)
def test_a_part_without_a_form_is_named(fields, message, tmp_path):
  with pytest.raises(interop.UnsupportedError, match=message):
    interop.write_hugging_face(model_of(fields), tmp_path)


def test_the_old_numbers_of_positions_are_passed_over_and_faults_listed(tmp_path):
  interop.write_hugging_face(model_of({}), tmp_path)
  path = tmp_path / 'model.safetensors'
  weights = safetensors.numpy.load_file(path)
  weights['text_model.embeddings.position_ids'] = np.arange(6)[None]
  safetensors.numpy.save_file(weights, path)
  interop.read_hugging_face(tmp_path)
  del weights['text_model.encoder.layers.1.self_attn.k_proj.weight']
  safetensors.numpy.save_file(weights, path)
  with pytest.raises(ValueError, match=r'layers\.1\.self_attn\.k_proj\.weight is missing'):
    interop.read_hugging_face(tmp_path)


def test_an_activation_that_does_not_exist_here_is_named(tmp_path):
  interop.write_hugging_face(model_of({}), tmp_path)
  config = json.loads((tmp_path / 'config.json').read_text())
  config['vision_config']['hidden_act'] = 'silu'
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with pytest.raises(ValueError, match=r"vision_config\.hidden_act = 'silu'"):
    interop.read_hugging_face(tmp_path)
