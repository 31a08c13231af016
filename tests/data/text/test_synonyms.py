"""Synonyms from files and from WordNet."""

import re

import pytest

from contrastive_jax import data
from contrastive_jax.data import emoji
from contrastive_jax.data.text.synonyms import open_synonyms


@pytest.fixture(autouse=True)
def afresh():
  """WordNet may lie elsewhere in the next test."""
  open_synonyms.cache_clear()


def test_a_file_has_a_word_and_its_synonyms_per_line(tmp_path):
  path = tmp_path / 'synonyms.txt'
  path.write_text('# Furniture\nCouch: sofa, settee\n\nchair: seat\n')
  find = open_synonyms(str(path))
  assert (find('couch'), find('chair'), find('sofa')) == (('sofa', 'settee'), ('seat',), ())


@pytest.mark.parametrize('line', ['couch', ': sofa', 'couch: ,'])
def test_a_line_without_a_word_or_synonyms_is_told(tmp_path, line):
  path = tmp_path / 'synonyms.txt'
  path.write_text(f'chair: seat\n{line}\n')
  with pytest.raises(ValueError, match=rf'synonyms\.txt, line 2 is {line!r}; write it as word: '):
    open_synonyms(str(path))


@pytest.mark.parametrize('source', ['', '/none'])
def test_a_missing_file_is_told(source):
  message = rf"synonyms_from = {source!r} is no file; use a file, 'wordnet' or 'emoji'"
  with pytest.raises(ValueError, match=message):
    open_synonyms(source)


def test_wordnet_has_the_other_words_of_a_synset(wordnet):
  find = open_synonyms('wordnet')
  assert (find('car'), find('auto'), find('bus')) == (('auto',), ('car',), ())


def test_wordnet_may_not_be_installed(tmp_path, monkeypatch):
  monkeypatch.setattr('nltk.data.path', [str(tmp_path)])
  with pytest.raises(
    ValueError, match=r"'wordnet' needs the data of WordNet; python -m nltk\.down"
  ):
    open_synonyms('wordnet')


@pytest.mark.slow
def test_the_embedded_synonyms_are_of_captions_and_name_no_other_emoji():
  words = set()
  for split in ('train', 'openmoji', 'heldout_style', 'heldout_composition'):
    source = data.open_source('emoji', split)
    captions = ' '.join({*source.values('caption')})
    words.update(re.findall(r'[\w’-]+', captions.lower()))
  lines = emoji.SYNONYMS.read_text().splitlines()
  named = [line.partition(':')[0] for line in lines if not line.startswith('#')]
  find = open_synonyms('emoji')
  assert set(named) <= words and len(set(named)) == len(named) > 150
  assert not {synonym for word in named for synonym in find(word)} & words
