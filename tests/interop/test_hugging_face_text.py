"""Text towers that open_clip builds by Hugging Face's names."""

import json

import numpy as np
import pytest
import safetensors.numpy

from contrastive_jax import interop
from contrastive_jax.interop.model import with_defaults
from contrastive_jax.interop.open_clip import hugging_face_text
from tests.interop.models import assert_same_parameters, model_of

WEIGHTS = 'open_clip_model.safetensors'
ROBERTA = {
  'model_type': 'roberta',
  'vocab_size': 32,
  'hidden_size': 16,
  'num_hidden_layers': 2,
  'num_attention_heads': 2,
  'intermediate_size': 64,
  'max_position_embeddings': 16,
  'pad_token_id': 1,
  'layer_norm_eps': 1e-5,
}
NLLB = {
  'model_type': 'm2m_100',
  'vocab_size': 32,
  'd_model': 16,
  'encoder_layers': 2,
  'encoder_attention_heads': 2,
  'encoder_ffn_dim': 64,
  'pad_token_id': 1,
  'scale_embedding': True,
}
FIELDS = {'roberta': {'tower': 'roberta', 'positions': 16}, 'nllb': {'tower': 'nllb'}}


@pytest.fixture(autouse=True)
def small_models(monkeypatch):
  for name, config in (('tiny-roberta', ROBERTA), ('tiny-nllb', NLLB)):
    monkeypatch.setitem(hugging_face_text.CONFIGS, name, config)


def published(**text):
  vision = {'image_size': 8, 'patch_size': 4, 'width': 64, 'layers': 1}
  return {
    'embed_dim': 12,
    'vision_cfg': vision,
    'text_cfg': {'hf_model_name': 'tiny-roberta', **text},
  }


@pytest.mark.parametrize(
  ('tower', 'pooling', 'projection'),
  [
    ('roberta', 'mean', 'mlp_mean'),
    ('roberta', 'pooler', 'linear'),
    ('roberta', 'class', 'linear'),
    ('nllb', 'class', 'mlp_mean'),
    ('nllb', 'mean', 'linear'),
  ],
)
def test_our_models_come_back_the_same(tower, pooling, projection, tmp_path):
  text = {**FIELDS[tower], 'pooling': pooling}
  model = model_of({'text': text, 'text_projection': projection})
  interop.write_open_clip(model, tmp_path)
  config = json.loads((tmp_path / 'open_clip_config.json').read_text())['model_cfg']
  assert config['text_cfg']['hf_model_name'] == f'tiny-{tower}'
  again = interop.read_open_clip(tmp_path)
  assert_same_parameters(model, again)
  read, ours = with_defaults(again.fields), with_defaults(model.fields)
  assert {**read, 'scale': 0} == {**ours, 'scale': 0}


def test_a_model_without_projection_comes_back_the_same(tmp_path):
  model = model_of({'embed': 16, 'text': FIELDS['nllb'], 'text_projection': 'none'})
  interop.write_open_clip(model, tmp_path)
  assert_same_parameters(model, interop.read_open_clip(tmp_path))


def test_a_buffer_of_old_files_is_ignored(tmp_path):
  model = model_of({'text': FIELDS['roberta']})
  interop.write_open_clip(model, tmp_path)
  weights = safetensors.numpy.load_file(tmp_path / WEIGHTS)
  buffer = {'text.transformer.embeddings.position_ids': np.arange(16)[None]}
  safetensors.numpy.save_file(weights | buffer, tmp_path / WEIGHTS)
  assert_same_parameters(model, interop.read_open_clip(tmp_path))


def test_padding_keeps_its_id(tmp_path):
  model = model_of({'text': FIELDS['roberta']}, end_id=2)
  tokens = np.array([[0, 5, 2, 1, 1, 1], [0, 5, 6, 2, 2, 2]], np.int32)
  np.testing.assert_array_equal(model.zero_padded(tokens), tokens)
  with pytest.raises(ValueError, match=r'tokens are from 0 to 40; the model takes ids from 0'):
    model.zero_padded(np.full((1, 6), [0, 40, 2, 1, 1, 1]))


@pytest.mark.parametrize(
  ('name', 'length'),
  [
    ('roberta-base', 77),
    ('FacebookAI/xlm-roberta-large', 512),
    ('facebook/nllb-200-distilled-600M', 9),
  ],
)
def test_the_check_knows_published_names(name, length):
  interop.check_open_clip(published(hf_model_name=name, context_length=length))


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ({'hf_model_name': 'google/mt5-base'}, r"hf_model_name = 'google/mt5-base' .*'roberta-base'"),
    ({'hf_pooler_type': 'max_pooler'}, r"text_cfg\.hf_pooler_type = 'max_pooler'"),
    (
      {'hf_proj_type': None},
      r'hf_proj_type = None is not supported from width 16 to embed_dim = 12',
    ),
    ({'hf_proj_type': 'novelty'}, r"text_cfg\.hf_proj_type = 'novelty'"),
    ({'context_length': 15}, r'text\.positions = 16 is too small for text\.length = 15'),
    ({'pool_type': 'last'}, r"text_cfg\.pool_type = 'last'"),
  ],
)
def test_the_check_names_what_is_not_supported(text, message):
  interop.check_open_clip(published(context_length=14))
  with pytest.raises(ValueError, match=message):
    interop.check_open_clip(published(**{'context_length': 14, **text}))


@pytest.mark.parametrize(
  ('entries', 'message'),
  [
    ({'model_type': 'bert'}, r"config\.json: model_type = 'bert' .*'xlm-roberta'"),
    ({'type_vocab_size': 2}, r'config\.json\.type_vocab_size = 2 is not supported; 1 is'),
    ({'hidden_act': 'silu'}, r"config\.json\.hidden_act = 'silu'"),
    ({'hidden_size': None}, r'config\.json\.hidden_size = None'),
    ({'position_embedding_type': 'relative_key'}, r"position_embedding_type = 'relative_key'"),
  ],
)
def test_a_folder_says_what_it_holds(entries, message, tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(ROBERTA))
  interop.check_open_clip(published(hf_model_name=str(tmp_path), context_length=14))
  (tmp_path / 'config.json').write_text(json.dumps(ROBERTA | entries))
  with pytest.raises(interop.UnsupportedError, match=message):
    interop.check_open_clip(published(hf_model_name=str(tmp_path), context_length=14))


def test_a_captioner_of_open_clip_with_a_roberta_is_refused():
  config = {**published(context_length=14), 'multimodal_cfg': {'width': 16, 'heads': 2}}
  with pytest.raises(interop.UnsupportedError, match='see the tokens that a captioner predicts'):
    interop.check_open_clip(config)


def test_what_no_name_stands_for_is_not_written(tmp_path):
  text = {**FIELDS['roberta'], 'heads': 4}
  with pytest.raises(interop.UnsupportedError, match=r"text\.tower = 'roberta' of these sizes"):
    interop.write_open_clip(model_of({'text': text}), tmp_path)
  source = {'model_cfg': {'embed_dim': 12, 'text_cfg': {'hf_model_name': 'tiny-roberta'}}}
  with pytest.raises(interop.UnsupportedError, match=r'text\.heads = 4 .*tiny-roberta.*; 2 is'):
    interop.write_open_clip(model_of({'text': text}, source=source), tmp_path)
  with pytest.raises(interop.UnsupportedError, match=r"model\.text_projection = 'affine'"):
    model = model_of({'text': FIELDS['roberta'], 'text_projection': 'affine'})
    interop.write_open_clip(model, tmp_path)
  with pytest.raises(interop.UnsupportedError, match=r"model\.text_projection = 'mlp_mean'"):
    interop.write_open_clip(model_of({'text_projection': 'mlp_mean'}), tmp_path)


def test_hugging_faces_own_format_holds_no_roberta(tmp_path):
  with pytest.raises(interop.UnsupportedError, match=r"text\.tower = 'roberta'"):
    interop.write_hugging_face(model_of({'text': FIELDS['roberta']}), tmp_path)


def test_a_run_begins_with_such_weights(tmp_path):
  model = model_of({'text': FIELDS['roberta']})
  interop.write_open_clip(model, tmp_path)
  initial = interop.initial_parameters(tmp_path, model.fields)
  assert_same_parameters(model, interop.Model(model.fields, initial))
  other = {**model.fields, 'text': {**model.fields['text'], 'pooling': 'class'}}
  with pytest.raises(ValueError, match=r"text\.pooling is 'class', there 'mean'"):
    interop.initial_parameters(tmp_path, other)
