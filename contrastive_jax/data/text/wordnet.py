"""WordNet, by nltk, whose data are installed apart from it."""

import functools
import importlib
import os
import tempfile
import warnings
from typing import Any

INSTALL = 'python -m nltk.downloader wordnet'


def nltk(module: str) -> Any:
  """Returns a module of nltk, which is imported on use."""
  if os.path.expanduser('~') == '~':
    # Importing nltk fails without a home folder, unless this variable names one.
    os.environ.setdefault('NLTK_DATA', tempfile.gettempdir())
  return importlib.import_module(f'nltk.{module}')


def open_wordnet() -> Any:
  """Returns nltk's reader of WordNet; None if its data are not installed."""
  return _read(tuple(nltk('data').path))


@functools.lru_cache(1)
def _read(paths: tuple[str, ...]):
  """Reads the first database in some folders."""
  for place in ('corpora/wordnet', 'corpora/wordnet.zip/wordnet/'):
    try:
      folder = nltk('data').find(place, paths)
    except LookupError:
      continue
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')  # It reads English alone.
      return nltk('corpus.reader.wordnet').WordNetCorpusReader(folder, omw_reader=None)
  return None
