"""The tokenizer of a folder is the one that its model was trained with, or none."""

import functools
import json
import shutil

import numpy as np
import pytest

import contrastive_jax
from contrastive_jax import data, interop
from contrastive_jax.interop.export import TOKENIZER
from tests.data.test_tokenizers import write_model, write_unigrams
from tests.interop.models import model_of
from tests.interop.test_hugging_face import SIGLIP

VOCABULARY = 49_408


def configure(folder, name, section, entries):
  config = json.loads((folder / name).read_text())
  node = functools.reduce(dict.get, section, config)
  node |= entries
  (folder / name).write_text(json.dumps(config))


def write(folder, form='hugging_face', vocabulary=VOCABULARY, fields=None, **attributes):
  fields = fields or {}
  text = {**fields.get('text', {}), 'vocabulary': vocabulary, 'length': 8, 'layers': 1}
  model = model_of({**fields, 'text': text}, **attributes)
  getattr(interop, f'write_{form}')(model, folder)
  return folder


def write_vocabulary(folder, name, changed=None):
  """CLIP's vocabulary as Hugging Face writes it."""
  ids = data.ClipTokenizer().words | {'<|startoftext|>': 49406, '<|endoftext|>': 49407}
  ids |= {'cat</w>': ids['dog</w>'], 'dog</w>': ids['cat</w>']} if changed else {}
  content = ids if name == 'vocab.json' else {'model': {'type': 'BPE', 'vocab': ids}}
  (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize('name', ['vocab.json', 'tokenizer.json'])
def test_clips_tokenizer_is_used_where_the_vocabulary_is_clips(name, tmp_path, caplog):
  write(tmp_path)
  loaded = contrastive_jax.load(tmp_path)
  assert isinstance(loaded.tokenizer, data.ClipTokenizer)
  assert 'names no tokenizer' in caplog.text
  caplog.clear()
  write_vocabulary(tmp_path, name)
  assert isinstance(contrastive_jax.load(tmp_path).tokenizer, data.ClipTokenizer)
  assert 'names no tokenizer' not in caplog.text
  # A vocabulary of the same size is not the same vocabulary.
  write_vocabulary(tmp_path, name, changed=True)
  loaded = contrastive_jax.load(tmp_path)
  assert loaded.tokenizer is None and f"{name} is not CLIP's vocabulary" in caplog.text
  with pytest.raises(ValueError, match='does not say how its texts become tokens'):
    loaded.encode_text('a cat')


def test_another_tokenizer_that_open_clip_names_is_not_clips(tmp_path):
  name, section = 'open_clip_config.json', ('model_cfg', 'text_cfg')
  write(tmp_path, 'open_clip')
  assert isinstance(contrastive_jax.load(tmp_path).tokenizer, data.ClipTokenizer)
  configure(tmp_path, name, section, {'hf_tokenizer_name': 'org/name'})
  loaded = contrastive_jax.load(tmp_path)
  assert loaded.tokenizer is None
  with pytest.raises(ValueError, match="hf_tokenizer_name = 'org/name'"):
    loaded.encode_text('a cat')
  configure(tmp_path, name, section, {'tokenizer_kwargs': {'strip_sep_token': True}})
  with pytest.raises(ValueError, match=r'text_cfg\.tokenizer_kwargs = .*; give a function'):
    contrastive_jax.load(tmp_path, tokenizer='clip')


@pytest.mark.parametrize('form', ['hugging_face', 'open_clip', 'model'])
def test_a_tokenizer_with_another_end_is_refused(form, tmp_path):
  write(tmp_path, form, end_id=7)
  with pytest.raises(ValueError, match=r"'clip' ends texts with the id 49407, and the model .* 7;"):
    contrastive_jax.load(tmp_path, tokenizer='clip')
  assert contrastive_jax.load(write(tmp_path, form, end_id=49407)).model.end_id == 49407


def write_siglip(folder, size):
  write(folder, vocabulary=size, fields=SIGLIP)
  return folder


def test_siglips_own_tokenizer_is_refused_by_its_start_and_padding(tmp_path):
  path = write_model(tmp_path / 'spiece.model', pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
  size = data.SentencePieceTokenizer(path, 8).vocab_size - 1
  write_siglip(tmp_path, size)
  with pytest.raises(ValueError, match='no start token, and its models see the padding'):
    contrastive_jax.load(tmp_path, tokenizer=path)
  loaded = contrastive_jax.load(tmp_path)
  assert loaded.tokenizer is None
  with pytest.raises(ValueError, match=r'load with a function .*max_length=8'):
    loaded.encode_text('a cat')
  # Wherever the file lies, a start token that it lacks is one id too many.
  shutil.move(path, tmp_path / 'elsewhere.model')
  with pytest.raises(ValueError, match='a start token that its file lacks'):
    contrastive_jax.load(tmp_path, tokenizer=tmp_path / 'elsewhere.model')


def test_siglip_2s_tokenizer_with_a_start_token_is_refused(tmp_path):
  path = write_model(tmp_path / 'tokenizer.model', pad_id=0, eos_id=1, bos_id=2, unk_id=3)
  write_siglip(tmp_path, data.SentencePieceTokenizer(path, 8).vocab_size)
  with pytest.raises(ValueError, match='no start token, and its models see the padding'):
    contrastive_jax.load(tmp_path, tokenizer=path)
  # Without files of Hugging Face's it may be one that was trained here.
  shutil.move(path, tmp_path / 'ours.model')
  assert contrastive_jax.load(tmp_path, tokenizer=tmp_path / 'ours.model').tokenizer.end_id == 1
  configure(tmp_path, 'config.json', (), {'transformers_version': '4.49.0'})
  with pytest.raises(ValueError, match='no start token, and its models see the padding'):
    contrastive_jax.load(tmp_path, tokenizer=tmp_path / 'ours.model')


def test_an_added_start_token_needs_a_row_that_was_trained(tmp_path):
  write_unigrams(tmp_path / 'text.json')
  size = data.Tokenizer(tmp_path / 'text.json', 8).vocab_size
  write(tmp_path / 'padded', 'open_clip', size + 5)
  with pytest.raises(ValueError, match='the last one for a start token that its file lacks'):
    contrastive_jax.load(tmp_path / 'padded', tokenizer=tmp_path / 'text.json')
  write(tmp_path / 'fits', 'open_clip', size)
  loaded = contrastive_jax.load(tmp_path / 'fits', tokenizer=tmp_path / 'text.json')
  assert loaded.model.end_id == loaded.tokenizer.end_id == 1
  # A model in our own form was trained here, where start tokens are added.
  write(tmp_path / 'ours', 'model', size + 5)
  assert contrastive_jax.load(tmp_path / 'ours', tokenizer=tmp_path / 'text.json').tokenizer
  # An export brings the tokenizer that it was trained with.
  shutil.copy(tmp_path / 'text.json', tmp_path / 'padded' / f'{TOKENIZER}.json')
  assert contrastive_jax.load(tmp_path / 'padded').tokenizer.start_id == size - 1


@pytest.mark.parametrize(
  ('tokens', 'message'),
  [
    ([[1, 2, 3]], r'gives \[1, 3\] ids .* takes \[1, 8\]'),
    ([[0.0] * 8], 'gives a list that is no array of integers'),
    ([[1, 2], [3]], r"a list that is no array of integers; .* max_length=8, return_tensors='np'"),
    ({'input_ids': [[1] * 8]}, 'a dict that is no array of integers'),
  ],
)
def test_what_is_no_array_of_tokens_is_refused(tokens, message, tmp_path):
  loaded = contrastive_jax.load(write(tmp_path, vocabulary=32), tokenizer=lambda _: tokens)
  with pytest.raises(ValueError, match=message):
    loaded.encode_text('a cat')


def test_the_ends_that_configs_of_transformers_name_wrongly_are_one(tmp_path):
  """Early configs say 2, and transformers takes the largest id then."""
  tokens = np.array([[5, 9, 31, 31, 31, 31, 31, 31]])
  write(tmp_path, vocabulary=32)
  for entries in ({'eos_token_id': 31}, {'eos_token_id': 2}, {'eos_token_id': None}):
    configure(tmp_path, 'config.json', ('text_config',), entries)
    if entries['eos_token_id'] is None:
      config = json.loads((tmp_path / 'config.json').read_text())
      del config['text_config']['eos_token_id']
      (tmp_path / 'config.json').write_text(json.dumps(config))
    model = interop.read(tmp_path)
    np.testing.assert_array_equal(model.zero_padded(tokens), [[5, 9, 31, 0, 0, 0, 0, 0]])
