import gzip
import html
import json
import pathlib
import pickle

import ftfy
import numpy as np
import pytest
import sentencepiece
import tokenizers as library
from hypothesis import given
from hypothesis import strategies as st

from contrastive_jax.data import emoji, tokenizers

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


def write_words(path):
  """CLIP's own kind of file: bytes, bytes that end a word, and the padding's id is a '!'."""
  alphabet = sorted(library.pre_tokenizers.ByteLevel.alphabet())
  merges = [('r', 'e'), ('re', 'd</w>'), ('a', 'p')]
  tokens = [*alphabet, *(letter + '</w>' for letter in alphabet), *map(''.join, merges)]
  tokens += ['<|startoftext|>', '<|endoftext|>']
  vocabulary = {token: number for number, token in enumerate(tokens)}
  bpe = library.Tokenizer(library.models.BPE(vocabulary, merges, end_of_word_suffix='</w>'))
  bpe.add_special_tokens(tokens[-2:])
  split = library.pre_tokenizers.Split(library.Regex(r'\s+'), 'removed')
  bytes_ = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  bpe.pre_tokenizer = library.pre_tokenizers.Sequence([split, bytes_])
  bpe.decoder = library.decoders.ByteLevel()
  bpe.save(str(path))


def write_pieces(path):
  """BERT's kind of file."""
  letters = 'abcdefghijklmnopqrstuvwxyz'
  tokens = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', *letters, *(f'##{letter}' for letter in letters)]
  vocabulary = {token: number for number, token in enumerate(tokens)}
  model = library.Tokenizer(library.models.WordPiece(vocabulary, unk_token='[UNK]'))
  model.normalizer = library.normalizers.BertNormalizer()
  model.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
  model.decoder = library.decoders.WordPiece(cleanup=False)
  model.add_special_tokens(tokens[:4])
  model.save(str(path))


def write_unigrams(path):
  """T5's kind of file, which has no start token, and the end among its pieces."""
  pieces = [('<pad>', 0.0), ('</s>', 0.0), ('<unk>', 0.0), ('▁', -2.0)]
  pieces += [(letter, -3.0) for letter in 'abcdefghijklmnopqrstuvwxyz</>']
  model = library.Tokenizer(library.models.Unigram(pieces, unk_id=2))
  model.pre_tokenizer = library.pre_tokenizers.Metaspace()
  model.decoder = library.decoders.Metaspace()
  model.add_special_tokens(['<pad>', '</s>', '<unk>'])
  model.save(str(path))


def write_model(path, **fields):
  """A SentencePiece model that knows the small letters."""
  texts = ['woman farmer', 'red apple', 'grinning face', ' '.join('abcdefghijklmnopqrstuvwxyz')]
  with path.open('wb') as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(texts * 9),
      model_writer=file,
      vocab_size=330,
      hard_vocab_limit=False,
      byte_fallback=True,
      minloglevel=2,
      **fields,
    )
  return path


# File and writer of each kind; those of SentencePiece are as Gemma's, T5's and Llama's.
FILES = {
  'trained': ('tokenizer.json', write_tokenizer),
  'words': ('tokenizer.json', write_words),
  'pieces': ('tokenizer.json', write_pieces),
  'unigrams': ('tokenizer.json', write_unigrams),
  'gemma': ('spm.model', lambda p: write_model(p, pad_id=0, eos_id=1, bos_id=2, unk_id=3)),
  't5': ('spm.model', lambda p: write_model(p, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)),
  'llama': ('spm.model', lambda p: write_model(p)),
}


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
  found = {}
  for kind, (name, write) in FILES.items():
    found[kind] = tmp_path_factory.mktemp(kind) / name
    write(found[kind])
  return found


@pytest.fixture(scope='module', params=['clip', 'emoji', *FILES])
def name(request, paths):
  return str(paths.get(request.param, request.param))


@pytest.fixture(scope='module')
def tokenizer(name):
  return tokenizers.open_tokenizer(name, 32)


@pytest.fixture(scope='module')
def trained(paths):
  return tokenizers.Tokenizer(paths['trained'], length=16)


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
def test_a_text_does_not_depend_on_its_neighbors(tokenizer, text):
  together = tokenizer(['red apple', text, ''])
  np.testing.assert_array_equal(together[1], tokenizer([text])[0])


@given(words=st.lists(st.text('abcdefghijklmnopqrstuvwxyz', min_size=1, max_size=4), max_size=3))
def test_decode_inverts_encode(tokenizer, words):
  text = ' '.join(words)
  assert tokenizer.decode(tokenizer([text])[0]) == text


def test_decode_stops_at_the_first_end(tokenizer):
  row = tokenizer(['red'])[0].tolist()
  end = row.index(tokenizer.end_id)
  assert tokenizer.decode([*row[: end + 1], *tokenizer(['apple'])[0]]) == 'red'


def test_decode_keeps_punctuation_whose_id_is_zero(clip):
  assert 0 in clip(['!☮'])[0][: clip(['!☮'])[0].tolist().index(clip.end_id)]
  assert clip.decode(clip(['!☮'])[0]) == '!☮'


def test_captions_cannot_forge_special_tokens_of_any_kind(name, tokenizer):
  if name != 'clip':
    for specials in tokenizers._SPECIALS:
      check_row(tokenizer([f'a {" ".join(filter(None, specials))}'])[0], tokenizer)


def test_special_tokens_spelled_out_are_text(trained):
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


@pytest.mark.parametrize('text', ['', 'red', 'red apple ' * 40, '</s> [SEP] <|endoftext|> woman'])
def test_a_shorter_length_loses_the_last_tokens_and_counts_them(name, text):
  long = tokenizers.open_tokenizer(name, 1000)
  (row,), (lost,) = long.encode([text])
  ids = row[: row.tolist().index(long.end_id)]
  assert lost == 0
  for length in {3, 4, *(max(len(ids) + more, 3) for more in range(3))}:
    tokenizer = tokenizers.open_tokenizer(name, length)
    (row,), (lost,) = tokenizer.encode([text])
    kept = row[: row.tolist().index(tokenizer.end_id)]
    np.testing.assert_array_equal(kept, ids[: len(kept)])
    assert lost == len(ids) - len(kept)
    assert lost == 0 or len(kept) == length - 1


@given(text=st.text())
def test_decode_gives_back_any_text_as_the_file_cleans_it(roundtrip, text):
  tokenizer, clean = roundtrip
  (row,), (lost,) = tokenizer.encode([text])
  assert lost == 0
  assert tokenizer.decode(row) == clean(text).strip()


@pytest.fixture(scope='module', params=['emoji', 'gemma', 't5', 'llama'])
def roundtrip(request, paths):
  """Those that know every text, and their cleaning by their own library."""
  name = str(paths.get(request.param, request.param))
  tokenizer = tokenizers.open_tokenizer(name, 4096)
  if request.param == 'emoji':
    return tokenizer, library.Tokenizer.from_file(str(emoji.TOKENIZER)).normalizer.normalize_str
  processor = sentencepiece.SentencePieceProcessor(model_file=name)
  return tokenizer, lambda text: processor.normalize(text).replace('▁', ' ')


@given(text=st.text())
@pytest.mark.parametrize('kind', ['gemma', 't5', 'llama'])
def test_ids_are_sentencepieces_own(paths, kind, text):
  processor = sentencepiece.SentencePieceProcessor(model_file=str(paths[kind]))
  tokenizer = tokenizers.SentencePieceTokenizer(paths[kind], 4096)
  row = tokenizer([text])[0].tolist()
  assert row[1 : row.index(tokenizer.end_id)] == processor.encode(text)
  assert tokenizer.end_id == processor.eos_id()
  start = processor.bos_id() if kind != 't5' else processor.get_piece_size()
  assert tokenizer.start_id == start


def test_a_file_without_a_start_token_is_given_one(paths):
  for kind in ('unigrams', 't5'):
    tokenizer = tokenizers.open_tokenizer(str(paths[kind]), 8)
    assert tokenizer.start_id == tokenizer.vocab_size - 1
    assert tokenizer.decode([tokenizer.start_id, *tokenizer(['ab'])[0]]) == 'ab'


@pytest.mark.parametrize('specials', [row for row in tokenizers._SPECIALS if row[0] != '!'])
def test_special_tokens_are_known_by_name(tmp_path, specials):
  path = write_tokenizer(tmp_path / 'tokenizer.json', filter(None, specials))
  tokenizer = tokenizers.Tokenizer(path, length=8)
  file = library.Tokenizer.from_file(str(path))
  assert tokenizer.end_id == file.token_to_id(specials[2])
  assert file.id_to_token(tokenizer.start_id) == specials[1]
  check_row(tokenizer([f'a {specials[2]} b'])[0], tokenizer)


@pytest.mark.parametrize(
  'specials',
  [('<start>', '<pad>'), ('<s>', '<pad>', '</s>'), ('<|endoftext|>',), ('[PAD]', '[CLS]'), ()],
)
def test_file_without_special_tokens_is_refused(tmp_path, specials):
  path = write_tokenizer(tmp_path / 'tokenizer.json', specials)
  with pytest.raises(ValueError, match=r'for id 0.*\(\[PAD\], \[CLS\], \[SEP\]\)'):
    tokenizers.Tokenizer(path, length=8)


@pytest.mark.parametrize(
  'fields',
  [
    {'bos_id': 0, 'unk_id': 1, 'eos_id': 2},
    {'pad_id': 3},
    {'pad_id': 0, 'unk_id': 3, 'eos_id': -1},
  ],
)
def test_model_without_padding_or_end_is_refused(tmp_path, fields):
  path = write_model(tmp_path / 'spm.model', **fields)
  with pytest.raises(ValueError, match=r'for id 0.*--pad_id=0'):
    tokenizers.SentencePieceTokenizer(path, length=8)


@pytest.mark.parametrize('content', [b'', b'{}', b'junk', b'\xff'])
@pytest.mark.parametrize('file', ['tokenizer.json', 'spm.model'])
def test_what_is_no_tokenizer_is_refused(tmp_path, file, content):
  (tmp_path / file).write_bytes(content)
  with pytest.raises(ValueError, match=f'{file} is no '):
    tokenizers.open_tokenizer(str(tmp_path / file), 8)


def test_a_missing_file_is_named():
  with pytest.raises(ValueError, match=r"config\.data\.tokenizer = 'none\.model' is no file"):
    tokenizers.open_tokenizer('none.model', 8)


@pytest.mark.parametrize('content', [b'not gzip', gzip.compress(b'head\na b\n', mtime=0), b''])
def test_other_vocabulary_is_refused(tmp_path, content):
  path = tmp_path / 'vocabulary.gz'
  path.write_bytes(content)
  with pytest.raises(ValueError, match='vocabulary'):
    tokenizers.ClipTokenizer(vocabulary=path)


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_clip_mends_no_plain_text(text):
  """So that the tokenizer may leave out the mending, which costs most of its time."""
  whole = html.unescape(html.unescape(ftfy.fix_text(text)))
  assert tokenizers._clip_clean(text) == ' '.join(whole.split()).lower()
  if '&' not in text:
    assert whole == text
