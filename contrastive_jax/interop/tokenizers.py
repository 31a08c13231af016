"""Finds the tokenizer with which a model was trained."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from contrastive_jax import data
from contrastive_jax.interop import Model, fairseq_tokenizer, padded_tokenizer
from contrastive_jax.interop.export import TOKENIZER
from contrastive_jax.interop.table import UnsupportedError
from contrastive_jax.models.towers import pad_id_of

Tokenize = Callable[[Sequence[str]], np.ndarray]

_CLIP_VOCABULARY = 49_408
# Towers whose tokenizers have fairseq's ids, and the `tokenizer_kwargs` of these.
_OPTIONS = {'roberta': {'clean'}, 'nllb': {'clean', 'language'}}
# Vocabulary files of Hugging Face's tokenizers.
_HUGGING_FACE_FILES = ('vocab.json', 'tokenizer.json', 'spiece.model', 'tokenizer.model')


def find_tokenizer(
  folder: pathlib.Path, model: Model, given: str | pathlib.Path | Tokenize | None
) -> Tokenize | None:
  """Opens the given tokenizer, or the one that the files beside the weights name.

  Args:
    folder: folder of the weights.
    model: the model read from it.
    given: see `load`.

  Returns:
    The tokenizer; None if none is given or named, or the model has no texts.

  Raises:
    ValueError: if the model cannot have been trained with the tokenizer.
  """
  if callable(given) or 'text' not in model.fields:
    return given
  exported = min(folder.glob(f'{TOKENIZER}.*'), default=None)
  if given is None and not exported and (padded := _padded(folder, model)):
    return padded
  length, vocabulary = (model.fields['text'][name] for name in ('length', 'vocabulary'))
  if given is None:
    given = exported or _default(folder, model)
  elif not exported and (reason := _unsupported(folder, model)):
    raise ValueError(f'tokenizer = {str(given)!r}: {reason}')
  if given is None:
    return None
  tokenizer = data.open_tokenizer(str(given), length)
  size, added = tokenizer.vocab_size, ''
  if tokenizer.adds_start and model.source and not exported:
    added = ', the last one for a start token that its file lacks'
  # A model trained with an added start token has exactly as many rows as the tokenizer ids.
  if size > vocabulary or (added and size != vocabulary):
    raise ValueError(
      f'tokenizer = {str(given)!r} has {size} ids{added}, and the model in {folder} {vocabulary}; '
      'give the one that it was trained with, or a function from strings to tokens'
    )
  if (pad_id := pad_id_of(model.fields['text'])) != tokenizer.pad_id:
    raise ValueError(
      f'tokenizer = {str(given)!r} pads with {tokenizer.pad_id}, and the model in {folder} takes '
      f'texts padded with {pad_id}; give the one that it was trained with'
    )
  if model.end_id not in (None, tokenizer.end_id):
    raise ValueError(
      f'tokenizer = {str(given)!r} ends texts with the id {tokenizer.end_id}, and the model in '
      f'{folder} with {model.end_id}; give the one that it was trained with'
    )
  return tokenizer


class ModelTokens:
  """The tokens of texts as a model takes them: N strings -> integers [N, L], padded with 0.

  It holds no parameters, so that it can be sent to another process.
  """

  def __init__(self, tokenizer: Tokenize, model: Model):
    """Encodes texts by a tokenizer for a model; see `Model.zero_padded`."""
    self._tokenizer, self._model = tokenizer, dataclasses.replace(model, parameters=None)

  def __call__(self, texts: Sequence[str]) -> np.ndarray:
    """Returns the tokens.

    Raises:
      ValueError: if the tokens do not fit the model.
    """
    given, fields = self._tokenizer(texts), self._model.fields['text']
    try:
      tokens = np.asarray(given)
    except ValueError:  # rows of different lengths
      tokens = np.empty(0, object)
    if tokens.dtype.kind not in 'iu':
      raise ValueError(
        f'tokenizer gives a {type(given).__name__} that is no array of integers; the model takes '
        f"[{len(texts)}, {fields['length']}], of Hugging Face's tokenizers tokenizer(texts, "
        f"padding='max_length', truncation=True, max_length={fields['length']}, "
        "return_tensors='np').input_ids"
      )
    shape, vocabulary = (len(texts), fields['length']), fields['vocabulary']
    if tokens.shape != shape or not np.all((tokens >= 0) & (tokens < vocabulary)):
      raise ValueError(
        f'tokenizer gives {list(tokens.shape)} ids from {tokens.min()} to {tokens.max()}; the '
        f'model takes {list(shape)} ids from 0, below {vocabulary}'
      )
    return self._model.zero_padded(tokens)


def _padded(folder: pathlib.Path, model: Model) -> padded_tokenizer.PaddedTokenizer | None:
  """The tokenizer beside a model whose config names one of Hugging Face, or of a SiglipModel."""
  text = _text_config(model)
  is_siglip = model.source.get('model_type') == 'siglip'
  tower = model.fields['text'].get('tower')
  find_files = (fairseq_tokenizer if tower in _OPTIONS else padded_tokenizer).find_files
  if not (text.get('hf_tokenizer_name') or is_siglip) or not find_files(folder):
    return None
  options = {'clean': 'whitespace', **(text.get('tokenizer_kwargs') or {})}
  if is_siglip:
    # transformers' SiglipTokenizer cleans by itself; a tokenizer.json holds its normalization.
    options = {'clean': 'none' if (folder / 'tokenizer.json').is_file() else 'siglip'}
  known = _OPTIONS.get(tower, {'clean', 'strip_sep_token'})
  if text.get('tokenizer_mode') or options.keys() - known:
    raise UnsupportedError(
      f'text_cfg.tokenizer_mode = {text.get("tokenizer_mode")!r} with tokenizer_kwargs = '
      f'{text.get("tokenizer_kwargs")!r} is not supported; give tokenizer a function from strings '
      'to tokens'
    )
  length, vocabulary = (model.fields['text'][name] for name in ('length', 'vocabulary'))
  if tower in _OPTIONS:
    options['has_language'] = tower == 'nllb'
    tokenizer = fairseq_tokenizer.FairseqTokenizer(folder, length, **options)
  else:
    tokenizer = padded_tokenizer.PaddedTokenizer(folder, length, **options)
  if tokenizer.vocab_size > vocabulary:
    raise ValueError(
      f'the tokenizer in {folder} has {tokenizer.vocab_size} ids, and the model {vocabulary}; give '
      'the one that it was trained with, or a function from strings to tokens'
    )
  return tokenizer


def unknown_tokenizer(model: Model) -> str:
  """Returns the error message for encoding texts without a tokenizer."""
  if model.source.get('model_type') == 'siglip':
    return _siglip(model)
  name = _text_config(model).get('hf_tokenizer_name')
  told = f', but for hf_tokenizer_name = {name!r}' if name else ''
  return (
    f"the folder does not say how its texts become tokens{told}; load with tokenizer='clip', "
    "'emoji', the path of its file, or a function from strings to tokens"
  )


def _siglip(model: Model) -> str:
  return (
    "SigLIP's tokenizers write no start token, and its models see the padding (id 1, of SigLIP 2 "
    'id 0), so that tokenizers here would give other vectors; load with a function from strings to '
    'tokens, such as tokenizer=lambda texts: processor(text=texts, padding="max_length", '
    f'truncation=True, max_length={model.fields["text"]["length"]}, return_tensors="np").input_ids '
    "with transformers' AutoProcessor"
  )


def _unsupported(folder: pathlib.Path, model: Model) -> str:
  """Says why none of our tokenizers fits the model; '' if one may."""
  if options := _text_config(model).get('tokenizer_kwargs'):
    return (
      f'text_cfg.tokenizer_kwargs = {options!r} is not supported; give a function from strings to '
      'tokens'
    )
  is_theirs = 'transformers_version' in model.source or _hugging_face_files(folder)
  return _siglip(model) if model.source.get('model_type') == 'siglip' and is_theirs else ''


def _default(folder: pathlib.Path, model: Model) -> str | None:
  """Returns 'clip' if the files name it or, with a warning, if they name none; else None."""
  if model.fields['text']['vocabulary'] != _CLIP_VOCABULARY or _unsupported(folder, model):
    return None
  if 'model_cfg' in model.source:
    return None if _text_config(model).get('hf_tokenizer_name') else 'clip'
  if files := _hugging_face_files(folder):
    if _has_clips_ids(files[0]):
      return 'clip'
    logging.warning("%s is not CLIP's vocabulary: texts need a tokenizer that is given", files[0])
    return None
  if model.end_id is None:
    logging.warning("%s names no tokenizer: CLIP's, which has as many ids, is used", folder)
  return 'clip'


def _text_config(model: Model) -> dict:
  return model.source.get('model_cfg', {}).get('text_cfg', {})


def _hugging_face_files(folder: pathlib.Path) -> list[pathlib.Path]:
  return [folder / name for name in _HUGGING_FACE_FILES if (folder / name).is_file()]


def _has_clips_ids(path: pathlib.Path) -> bool:
  """Whether a vocab.json or tokenizer.json has CLIP's ids, up to the special tokens."""
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    ids = found if path.name == _HUGGING_FACE_FILES[0] else found['model']['vocab']
    words = {token: id_ for token, id_ in ids.items() if id_ < _CLIP_VOCABULARY - 2}
  except (ValueError, KeyError, TypeError, AttributeError):
    return False
  return words == data.ClipTokenizer().words
