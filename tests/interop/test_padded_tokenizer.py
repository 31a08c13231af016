"""Hugging Face's tokenizers beside the weights: their template, padding and cleaning."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

import contrastive_jax
from contrastive_jax import interop
from contrastive_jax.interop.padded_tokenizer import CLEANS, PaddedTokenizer
from tests.data.test_tokenizers import write_model
from tests.interop.models import model_of
from tests.interop.test_hugging_face import SIGLIP

TEXTS = ['a red fish', 'two blue birds over the gray sea and a boat', 'Fish!']


def write_fast(folder, specials=('<pad>', '</s>', '<unk>'), template='$A </s>', **config):
  """A Unigram tokenizer.json as T5's, with a pad token and a template; trained here."""
  words = tokenizers.Tokenizer(models.Unigram())
  words.normalizer = normalizers.NFKC()
  words.pre_tokenizer = pre_tokenizers.Metaspace()
  trainer = trainers.UnigramTrainer(
    vocab_size=60, special_tokens=list(specials), unk_token=specials[-1], show_progress=False
  )
  words.train_from_iterator([text.lower() for text in TEXTS * 20], trainer)
  if template:
    ids = [(token, words.token_to_id(token)) for token in specials]
    words.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
  folder.mkdir(exist_ok=True)
  words.save(str(folder / 'tokenizer.json'))
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  return words


def test_siglips_padding_is_seen_and_has_no_start(tmp_path):
  words = write_fast(tmp_path, pad_token='</s>')
  tokens = PaddedTokenizer(tmp_path, 8, clean='canonicalize')(TEXTS)
  assert tokens.shape == (3, 8) and tokens.dtype == np.int32
  expected = words.encode('fish', add_special_tokens=False).ids
  assert tokens[2].tolist() == expected + [1] * (8 - len(expected))
  # A long text keeps its end token.
  long = words.encode(TEXTS[1], add_special_tokens=False).ids
  assert len(long) > 8 and tokens[1].tolist() == [*long[:7], 1]


def test_gemmas_flags_say_which_tokens_are_added(tmp_path):
  specials = ('<pad>', '<eos>', '<bos>', '<unk>')
  flags = {'pad_token': {'content': '<pad>'}, 'eos_token': '<eos>', 'bos_token': '<bos>'}
  for start, end in ((False, True), (True, False), (True, True)):
    # The template of the file is Gemma's usual one, which the flags replace.
    config = flags | {'add_bos_token': start, 'add_eos_token': end, 'padding_side': 'right'}
    words = write_fast(tmp_path, specials, '<bos> $A', **config)
    (row,) = PaddedTokenizer(tmp_path, 16)(['a red fish'])
    plain = words.encode('a red fish', add_special_tokens=False).ids
    expected = [2] * start + plain + [1] * end
    assert row.tolist() == expected + [0] * (16 - len(expected))


def test_clipas_separator_becomes_zero(tmp_path):
  specials = ('[PAD]', '[CLS]', '[SEP]', '[UNK]')
  config = {'pad_token': '[PAD]', 'sep_token': '[SEP]'}
  words = write_fast(tmp_path, specials, '[CLS] $A [SEP]', **config)
  (row,) = PaddedTokenizer(tmp_path, 16, strip_sep_token=True)(['a red fish'])
  expected = [1, *words.encode('a red fish', add_special_tokens=False).ids]
  assert row.tolist() == expected + [0] * (16 - len(expected))


def test_a_sentencepiece_model_ends_texts_and_pads_by_its_config(tmp_path):
  write_model(tmp_path / 'spiece.model', pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
  with pytest.raises(ValueError, match='names no pad_token'):
    PaddedTokenizer(tmp_path, 8)
  (tmp_path / 'special_tokens_map.json').write_text(json.dumps({'pad_token': '</s>'}))
  tokens = PaddedTokenizer(tmp_path, 8, clean='siglip')(['A Red, fish!', 'a red fish'])
  np.testing.assert_array_equal(*tokens)
  assert tokens[0, -1] == 1 and (tokens[0] > 2).sum() > 0


@pytest.mark.parametrize(
  ('clean', 'text', 'expected'),
  [
    ('none', ' A_b  c!', ' A_b  c!'),
    ('whitespace', ' A_b &amp;  c!', 'A_b & c!'),
    ('lower', ' A_b  c!', 'a_b c!'),
    ('canonicalize', ' A_b &amp;  c!', 'a b c'),
    ('siglip', ' A_b  c!', 'ab c'),
  ],
)
def test_texts_are_cleaned_by_name(clean, text, expected):
  assert CLEANS[clean](text) == expected


def test_left_padding_and_unknown_cleaning_are_named(tmp_path):
  write_fast(tmp_path, pad_token='<pad>', padding_side='left')
  with pytest.raises(interop.UnsupportedError, match="padding_side = 'left'"):
    PaddedTokenizer(tmp_path, 8)
  with pytest.raises(interop.UnsupportedError, match="clean = 'novelty'"):
    PaddedTokenizer(tmp_path, 8, clean='novelty')


def test_load_finds_the_tokenizer_of_a_siglip_of_open_clip(tmp_path):
  text = {'vocabulary': 70, 'causal': False, 'mask_padding': False, 'pooling': 'last'}
  model = model_of({'text': text, 'text_projection': 'affine', 'bias': -10.0})
  interop.write_open_clip(model, tmp_path)
  config = json.loads((tmp_path / 'open_clip_config.json').read_text())
  names = {'hf_tokenizer_name': 'timm/x', 'tokenizer_kwargs': {'clean': 'canonicalize'}}
  config['model_cfg']['text_cfg'] |= names
  config['preprocess_cfg'] = {'interpolation': 'bilinear', 'resize_mode': 'squash'}
  (tmp_path / 'open_clip_config.json').write_text(json.dumps(config))
  assert contrastive_jax.load(tmp_path).tokenizer is None
  write_fast(tmp_path, pad_token='</s>')
  loaded = contrastive_jax.load(tmp_path)
  assert loaded.tokenizer.pad_id == 1 and loaded.transform.interpolation == 'bilinear'
  np.testing.assert_array_equal(*loaded.encode_text(['A red fish!', 'a red fish']))
  # The padding is seen: it is not zeroed.
  tokens = loaded.tokenizer(['a red fish'])
  np.testing.assert_array_equal(loaded.tokenize(['a red fish']), tokens)
  config['model_cfg']['text_cfg']['tokenizer_kwargs'] = {'novelty': 1}
  (tmp_path / 'open_clip_config.json').write_text(json.dumps(config))
  with pytest.raises(interop.UnsupportedError, match='novelty'):
    contrastive_jax.load(tmp_path)


def test_load_finds_the_tokenizer_of_a_siglip_of_hugging_face(tmp_path):
  fields = {**SIGLIP, 'text': {**SIGLIP['text'], 'vocabulary': 70}}
  interop.write_hugging_face(model_of(fields), tmp_path)
  assert contrastive_jax.load(tmp_path).tokenizer is None
  write_fast(tmp_path, pad_token='<pad>')
  assert contrastive_jax.load(tmp_path).tokenizer.pad_id == 0
  interop.write_hugging_face(
    model_of({**SIGLIP, 'text': {**SIGLIP['text'], 'vocabulary': 9}}), tmp_path
  )
  with pytest.raises(ValueError, match=r'has \d+ ids, and the model 9'):
    contrastive_jax.load(tmp_path)
