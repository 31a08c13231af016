import gzip
import json
import pathlib
import pickle

import numpy as np
import pytest
import tokenizers as library
from hypothesis import given
from hypothesis import strategies as st

from contrastive_jax.data import tokenizers

PARITY = json.loads((pathlib.Path(__file__).parent / 'parity' / 'tokenizer.json').read_text())
SPELLED = ('<start_of_text>', '<end_of_text>')


@pytest.fixture(scope='module')
def clip():
  return tokenizers.ClipTokenizer()


def write_tokenizer(path, specials=('<pad>', '<start>', '<end>')):
  """A byte-level BPE whose file asks for truncation, padding and a template of its own."""
  bpe = library.Tokenizer(library.models.BPE())
  bpe.normalizer = library.normalizers.Lowercase()
  bpe.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
  bpe.decoder = library.decoders.ByteLevel()
  trainer = library.trainers.BpeTrainer(
    vocab_size=300,
    special_tokens=list(specials),
    initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  bpe.train_from_iterator(['woman farmer', 'red apple', 'grinning face'], trainer)
  bpe.enable_padding(length=40)
  bpe.enable_truncation(3)
  bpe.save(str(path))
  return path


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  path = write_tokenizer(tmp_path_factory.mktemp('trained') / 'tokenizer.json')
  return tokenizers.Tokenizer(path, length=16)


@pytest.fixture(scope='module', params=['clip', 'trained'])
def tokenizer(request):
  return request.getfixturevalue(request.param)


def check_row(row, tokenizer):
  """Start, ids, one end, zeros."""
  end = row.tolist().index(tokenizer.end_id)
  assert row[0] == tokenizer.start_id
  assert tokenizer.start_id not in row[1:]
  assert not row[end + 1 :].any()
  assert (row < tokenizer.vocab_size).all()
  assert (row >= 0).all()


def test_clip_ids_equal_open_clips(clip):
  tokens = clip([text for text, _ in PARITY])
  assert len(PARITY) == 420
  for row, (text, ids) in zip(tokens, PARITY, strict=True):
    assert row.tolist() == ids + [0] * (77 - len(ids)), text


def test_clip_vocabulary(clip):
  assert (clip.vocab_size, clip.start_id, clip.end_id, clip.pad_id) == (49408, 49406, 49407, 0)


def test_clip_ids_of_special_tokens_spelled_out_are_special(clip):
  assert clip(['<START_OF_TEXT>a<end_of_text>'])[0, :5].tolist() == [
    49406,
    49406,
    320,
    49407,
    49407,
  ]


def test_clip_entities_are_unescaped_twice_even_beside_a_tag(clip):
  np.testing.assert_array_equal(clip(['<i> &amp;eacute;']), clip(['<i> é']))


@pytest.mark.parametrize('words', [74, 75, 76, 200])
def test_long_text_keeps_its_end_token(clip, words):
  row = clip(['cat ' * words])[0]
  count = min(words, 75)
  assert row.tolist() == [49406] + [2368] * count + [49407] + [0] * (75 - count)


@given(texts=st.lists(st.text().filter(lambda text: not any(s in text.lower() for s in SPELLED))))
def test_any_text_is_start_ids_end_zeros(tokenizer, texts):
  tokens = tokenizer(texts)
  assert tokens.shape == (len(texts), tokenizer.length)
  assert tokens.dtype == np.int32
  for row in tokens:
    check_row(row, tokenizer)


@given(text=st.text())
def test_a_text_does_not_depend_on_its_neighbours(tokenizer, text):
  together = tokenizer(['red apple', text, ''])
  np.testing.assert_array_equal(together[1], tokenizer([text])[0])


@given(words=st.lists(st.text('abcdefghijklmnopqrstuvwxyz', min_size=1, max_size=4), max_size=3))
def test_decode_inverts_encode(tokenizer, words):
  text = ' '.join(words)
  assert tokenizer.decode(tokenizer([text])[0]) == text


def test_decode_stops_at_the_first_end(tokenizer):
  row = tokenizer(['red'])[0]
  tail = tokenizer(['apple'])[0]
  assert tokenizer.decode([*row[:4], *tail]) == 'red'


def test_decode_keeps_punctuation_whose_id_is_zero(clip):
  assert 0 in clip(['!☮'])[0][: clip(['!☮'])[0].tolist().index(clip.end_id)]
  assert clip.decode(clip(['!☮'])[0]) == '!☮'


def test_captions_cannot_forge_special_tokens(trained):
  row = trained(['<end> <pad> x'])[0]
  check_row(row, trained)
  assert trained.decode(row) == '<end> <pad> x'


def test_the_files_own_truncation_and_padding_are_ignored(trained):
  assert trained.decode(trained(['Woman farmer'])[0]) == 'woman farmer'


def test_survives_the_way_to_a_worker(tokenizer):
  copy = pickle.loads(pickle.dumps(tokenizer))
  np.testing.assert_array_equal(copy(['red apple']), tokenizer(['red apple']))


@pytest.mark.parametrize('texts', ['a cat', ['a cat', None], [b'a cat']])
def test_what_is_not_a_list_of_strings_is_refused(tokenizer, texts):
  with pytest.raises(ValueError, match=r'texts .*strings'):
    tokenizer(texts)


def test_length_without_room_is_refused():
  with pytest.raises(ValueError, match='length = 2'):
    tokenizers.ClipTokenizer(length=2)


def test_file_without_special_tokens_is_refused(tmp_path):
  path = write_tokenizer(tmp_path / 'tokenizer.json', specials=('<start>', '<pad>'))
  with pytest.raises(ValueError, match='<pad>'):
    tokenizers.Tokenizer(path, length=8)


@pytest.mark.parametrize('content', [b'not gzip', gzip.compress(b'head\na b\n', mtime=0), b''])
def test_other_vocabulary_is_refused(tmp_path, content):
  path = tmp_path / 'vocabulary.gz'
  path.write_bytes(content)
  with pytest.raises(ValueError, match='vocabulary'):
    tokenizers.ClipTokenizer(vocabulary=path)
