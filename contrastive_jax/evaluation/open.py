"""Opens the evaluator of a config."""

import re
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.data.images import normalizer
from contrastive_jax.data.readers import Sounds
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.evaluation.zero_shot import (
  read_classes,
  read_templates,
)
from contrastive_jax.models.definition import Definition


def evaluation_length(config: ConfigDict) -> int:
  """Patches per image in evaluation, by default the longest of training; 0 for square images."""
  # Configs of older runs lack these fields.
  lengths = config.data.get('sequence_lengths') or (0,)
  return config.evaluation.get('sequence_length', 0) or max(lengths)


def open_evaluator(
  config: ConfigDict,
  definition: Definition,
  tokenizer: data.Tokenizer | None,
  mesh: Mesh,
  source: data.Source | None = None,
  open_source: Callable[..., data.Source] = data.open_source,
) -> Evaluator:
  """Opens the evaluator of a config.

  Args:
    config: the config.
    definition: the model.
    tokenizer: the model's tokenizer; None without texts.
    mesh: mesh over which batches are sharded.
    source: the training examples; None opens them on demand.
    open_source: as `data.open_source`; all processes call it for the same splits in one order.

  Raises:
    ValueError: if a split, a file or a probe cannot be used.
  """
  evaluation = config.evaluation
  open_split = partial(_open_split, open_source, config.data.name, config.data.folder or None)
  opened = [open_split(split, 'splits') for split in evaluation.splits]
  if len(sources := dict(opened)) < len(opened):
    raise ValueError(
      f'config.evaluation.splits = {tuple(evaluation.splits)} has two of one name; write '
      'NAME=SOURCE for each'
    )

  @cache
  def training(without):
    if source is not None:
      return source
    try:
      return open_source(config.data.name, config.data.split, config.data.folder or None)
    except ValueError as error:
      raise ValueError(f'{error}; config.evaluation.{without} evaluates without them') from error

  texts, first = _text_fields(evaluation, 'second_tokens' in definition.inputs)
  # Configs of older runs lack these fields.
  pairs, partners, captions = (evaluation.get(f, ()) for f in ('pairs', 'partners', 'captions'))
  arithmetic = evaluation.get('arithmetic', ())
  if not (sources and partners and (pairs or arithmetic)):
    partners = ''
  fields = evaluation.zero_shot if sources else ()
  probes = evaluation.probes if fields else ()
  numbers = evaluation.get('numbers', ()) if sources else ()
  return Evaluator(
    definition,
    tokenizer,
    sources,
    mesh,
    image_size=config.model.image.size if 'image' in definition.inputs else None,
    patches=(length, config.model.image.patch) if (length := evaluation_length(config)) else None,
    batch_size=evaluation.batch_size,
    classes=dict(
      read_classes(field, lambda name: training('zero_shot = ()').values(name)) for field in fields
    ),
    templates=read_templates(evaluation.templates) if fields or evaluation.templates else (),
    texts=texts,
    first=first,
    probes=probes,
    probe_source=open_split(evaluation.probe_split, 'probe_split')[1]
    if probes or numbers
    else None,
    numbers=numbers,
    pairs=pairs,
    arithmetic=arithmetic,
    partners=open_split(partners, 'partners')[1] if partners else None,
    captions=captions,
    candidates=training('captions = {}') if captions else None,
    audio=partial(_first_sounds, config) if 'audio' in definition.inputs else None,
    normalize=normalizer(config.data.get('mean', ()), config.data.get('std', ())),
    augmentation=dict(config.get('augmentation', {})),
  )


def _text_fields(evaluation: ConfigDict, pairs_of_texts: bool) -> tuple[Sequence[str], str]:
  """The fields of the texts to retrieve, and that of the first text of a pair of texts or ''."""
  texts = evaluation.get('texts', ('caption',))
  if not pairs_of_texts:
    return texts, ''
  if not texts or not evaluation.second_texts:
    raise ValueError(
      f'config.evaluation.texts = {tuple(texts)} and second_texts = '
      f'{tuple(evaluation.second_texts)}; name the fields of both texts of a pair'
    )
  return evaluation.second_texts, texts[0]


def _first_sounds(config: ConfigDict, source: data.Source) -> np.ndarray:
  """The spectrograms [N, S, S] of the first sound of each example."""
  reader = Sounds(config.data.audio, 1, config.model.audio.size, config.data.audio_seconds)
  paths = (reader.paths(source.fields(number))[0] for number in range(len(source)))
  return np.stack([reader.spectrogram(path) for path in paths])


# The field whose removal makes a setting unnecessary, by setting.
_OPTIONAL = {'splits': 'splits', 'probe_split': 'probes', 'partners': 'pairs'}


def _open_split(
  open_source: Callable[..., data.Source],
  name: str,
  folder: str | None,
  split: str,
  setting: str = 'splits',
) -> tuple[str, data.Source]:
  """Opens a split of the dataset, or of another one, 'NAME=SOURCE'; returns its name and source."""
  other = re.fullmatch(r'(\w+)=(\w+:.*)', split)
  try:
    if other:
      return other[1], open_source(other[2], 'train', folder)
    return split, open_source(name, split, folder)
  except ValueError as error:
    meant = '; {split} stands for train in NAME=SOURCE' if other and '{split}' in split else ''
    raise ValueError(
      f'config.evaluation.{setting} names {split!r}: {error}{meant}; config.evaluation.'
      f'{_OPTIONAL[setting]} = () does without'
    ) from error
