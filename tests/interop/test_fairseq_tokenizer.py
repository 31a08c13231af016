"""RoBERTa's, XLM-RoBERTa's and NLLB's tokenizers, trained here with fairseq's ids."""

import json

import numpy as np
import pytest
import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers, processors, trainers

import contrastive_jax
from contrastive_jax import data, interop
from contrastive_jax.interop.fairseq_tokenizer import FairseqTokenizer, find_files
from tests.data.test_tokenizers import write_model
from tests.interop.models import model_of
from tests.interop.peer.run import run

TEXTS = ['a red fish', 'two blue birds over the gray sea and a boat', 'Fish &amp; Chips!', 'żółw']
SPECIALS = ('<s>', '<pad>', '</s>', '<unk>')


def write_bytes(folder, fast=False):
  """RoBERTa's byte-level BPE: vocab.json and merges.txt, or the tokenizer.json of the same."""
  words = tokenizers.ByteLevelBPETokenizer()
  specials = [*SPECIALS, '<mask>']
  words.train_from_iterator(TEXTS * 9, 320, show_progress=False, special_tokens=specials)
  folder.mkdir(exist_ok=True)
  if fast:
    words._tokenizer.post_processor = processors.RobertaProcessing(
      ('</s>', 2), ('<s>', 0), add_prefix_space=False
    )
    words.save(str(folder / 'tokenizer.json'))
  else:
    words.save_model(str(folder))
  return words


def write_pieces(folder):
  """XLM-RoBERTa's kind of SentencePiece model, whose first pieces are <unk>, <s> and </s>."""
  with (folder / 'sentencepiece.bpe.model').open('wb') as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(TEXTS[:3] * 9),
      model_writer=file,
      vocab_size=60,
      hard_vocab_limit=False,
      minloglevel=2,
    )
  return sentencepiece.SentencePieceProcessor(str(folder / 'sentencepiece.bpe.model'))


def write_languages(folder, **config):
  """NLLB's kind of tokenizer.json, with tokens of languages at the end."""
  words = tokenizers.Tokenizer(models.BPE(unk_token='<unk>', fuse_unk=True))
  words.pre_tokenizer = pre_tokenizers.Metaspace()
  trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=[*SPECIALS], show_progress=False)
  words.train_from_iterator(TEXTS * 20, trainer)
  words.add_special_tokens(['eng_Latn', 'pol_Latn'])
  words.save(str(folder / 'tokenizer.json'))
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  return words


def padded(ids, length):
  return ids + [1] * (length - len(ids))


def test_xlm_robertas_pieces_are_shifted_by_one(tmp_path):
  pieces = write_pieces(tmp_path)
  tokenizer = FairseqTokenizer(tmp_path, 60)
  assert (tokenizer.vocab_size, tokenizer.pad_id) == (len(pieces) + 2, 1)
  for row, text in zip(tokenizer(['a red  fish', *TEXTS]), TEXTS[:1] + TEXTS, strict=True):
    ids = [piece + 1 if piece else 3 for piece in pieces.encode(text.replace('&amp;', '&'))]
    assert (text == TEXTS[-1]) == (3 in ids) and row.tolist() == padded([0, *ids, 2], 60)
  (short,) = FairseqTokenizer(tmp_path, 5)(TEXTS[1:2])
  assert short.tolist() == [0, *[piece + 1 for piece in pieces.encode(TEXTS[1])[:3]], 2]


@pytest.mark.parametrize('fast', [False, True])
def test_robertas_bytes_have_the_ids_of_the_vocabulary(fast, tmp_path):
  words = write_bytes(tmp_path, fast)
  tokenizer = FairseqTokenizer(tmp_path, 60)
  assert tokenizer.vocab_size == words.get_vocab_size()
  for row, text in zip(tokenizer(TEXTS), TEXTS, strict=True):
    ids = words.encode(text.replace('&amp;', '&'), add_special_tokens=False).ids
    assert row.tolist() == padded([0, *ids, 2], 60)
  # A space is part of the token after it, and a mask takes the space before it.
  (row,) = tokenizer(['a <mask>'])
  assert fast or row[:4].tolist() == [0, *words.encode('a').ids, 4, 2]


def test_nllbs_texts_start_with_their_language(tmp_path):
  words = write_languages(tmp_path)
  ids = words.encode('a red fish', add_special_tokens=False).ids
  for options, start in (({}, 'eng_Latn'), ({'language': 'pol_Latn'}, 'pol_Latn')):
    (row,) = FairseqTokenizer(tmp_path, 24, has_language=True, **options)(['a red fish'])
    assert row.tolist() == padded([words.token_to_id(start), *ids, 2], 24)
  write_languages(tmp_path, src_lang='pol_Latn')
  (row,) = FairseqTokenizer(tmp_path, 24, has_language=True)(['a red fish'])
  assert row[0] == words.token_to_id('pol_Latn')
  write_languages(tmp_path, legacy_behaviour=True)
  with pytest.raises(interop.UnsupportedError, match='legacy_behaviour'):
    FairseqTokenizer(tmp_path, 24, has_language=True)


def test_files_of_another_kind_are_refused(tmp_path):
  assert not find_files(tmp_path)
  path = write_model(tmp_path / 'sentencepiece.bpe.model', pad_id=0, eos_id=1, bos_id=2, unk_id=3)
  assert find_files(tmp_path)
  with pytest.raises(ValueError, match='not of XLM-RoBERTa'):
    FairseqTokenizer(tmp_path, 8)
  write_model(path)
  with pytest.raises(ValueError, match=r"no token 'eng_Latn'; give a tokenizer\.json"):
    FairseqTokenizer(tmp_path, 8, has_language=True)
  path.write_bytes(b'')
  (tmp_path / 'vocab.json').write_text('[]')
  (tmp_path / 'merges.txt').write_text('')
  path.unlink()
  with pytest.raises(ValueError, match=r'vocab\.json and merges\.txt are no BPE'):
    FairseqTokenizer(tmp_path, 8)
  (tmp_path / 'vocab.json').write_text(json.dumps({'a': 0, '<pad>': 1, '</s>': 2, '<unk>': 3}))
  with pytest.raises(ValueError, match='does not have the tokens'):
    FairseqTokenizer(tmp_path, 8)


def write_roberta(folder, vocabulary=400, **text_cfg):
  """A model of open_clip with a small RoBERTa, whose sizes are in the folder `text`."""
  text = {'tower': 'roberta', 'vocabulary': vocabulary, 'length': 12, 'positions': 16}
  model = model_of({'text': text, 'text_projection': 'mlp_mean'})
  config = {
    'model_type': 'roberta',
    'vocab_size': vocabulary,
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 64,
    'max_position_embeddings': 16,
    'pad_token_id': 1,
    'layer_norm_eps': 1e-5,
  }
  (folder / 'text').mkdir(exist_ok=True)
  (folder / 'text' / 'config.json').write_text(json.dumps(config))
  text_cfg = {'hf_model_name': str(folder / 'text'), **text_cfg}
  source = {'model_cfg': {'embed_dim': 12, 'text_cfg': text_cfg}, 'preprocess_cfg': {}}
  interop.write_open_clip(interop.Model(model.fields, model.parameters, source=source), folder)
  return model


def test_load_finds_a_robertas_tokenizer(tmp_path):
  model = write_roberta(tmp_path, hf_tokenizer_name='roberta-base')
  with pytest.raises(ValueError, match="hf_tokenizer_name = 'roberta-base'"):
    contrastive_jax.load(tmp_path).encode_text(['a red fish'])
  write_bytes(tmp_path)
  loaded = contrastive_jax.load(tmp_path)
  assert isinstance(loaded.tokenizer, FairseqTokenizer)
  tokens = loaded.tokenize(TEXTS)
  np.testing.assert_array_equal(tokens, loaded.tokenizer(TEXTS))  # no padding becomes 0
  expected = model.definition.bind(model.parameters).encode_text(tokens)
  np.testing.assert_allclose(loaded.encode_text(TEXTS), expected, atol=1e-5)


def test_the_vocabulary_and_the_padding_must_fit_the_model(tmp_path):
  write_roberta(tmp_path, vocabulary=300, hf_tokenizer_name='roberta-base')
  write_bytes(tmp_path)
  with pytest.raises(ValueError, match=r'has \d+ ids, and the model 300'):
    contrastive_jax.load(tmp_path)
  write_roberta(tmp_path, vocabulary=5000)
  with pytest.raises(ValueError, match=r"'emoji' pads with 0, and the model .* padded with 1"):
    contrastive_jax.load(tmp_path, tokenizer='emoji')
  write_roberta(tmp_path, hf_tokenizer_name='x', tokenizer_kwargs={'strip_sep_token': True})
  with pytest.raises(interop.UnsupportedError, match='strip_sep_token'):
    contrastive_jax.load(tmp_path)


def test_training_opens_the_same_tokenizers_with_their_padding(tmp_path):
  words = write_bytes(tmp_path, fast=True)
  tokenizer = data.open_tokenizer(str(tmp_path / 'tokenizer.json'), 12)
  assert (tokenizer.pad_id, tokenizer.start_id, tokenizer.end_id) == (1, 0, 2)
  np.testing.assert_array_equal(tokenizer(TEXTS[:2]), FairseqTokenizer(tmp_path, 12)(TEXTS[:2]))
  assert tokenizer.decode(tokenizer(['a red fish'])[0]) == 'a red fish'
  words = write_languages(tmp_path)
  tokenizer = data.open_tokenizer(str(tmp_path / 'tokenizer.json'), 12)
  assert (tokenizer.pad_id, tokenizer.start_id) == (1, words.token_to_id('eng_Latn'))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['Roberta', 'XLMRoberta', 'Nllb'])
def test_ids_are_those_of_open_clips_tokenizer(kind, tmp_path):
  {'Roberta': write_bytes, 'XLMRoberta': write_pieces, 'Nllb': write_languages}[kind](tmp_path)
  (tmp_path / 'tokenizer_config.json').write_text(
    json.dumps({'tokenizer_class': f'{kind}Tokenizer'})
  )
  theirs = json.loads(run('tokenize_texts.py', tmp_path, 12, json.dumps(TEXTS)))
  tokenizer = FairseqTokenizer(tmp_path, 12, has_language=kind == 'Nllb')
  np.testing.assert_array_equal(tokenizer(TEXTS), theirs)
