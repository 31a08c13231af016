"""Names of what methods read, from the model's outputs, a target's, and the batch.

  first, second     [B, D]     the two sides of a pair: image and text, or what the model compares
  image, text       [B, D]     unit embeddings
  image_features, text_features    [B, W]    pooled features before the projection
  views:V           [B, V, D]  unit embeddings of V views of each image; the first is `image`
  view.N            [B, D]     view N of them, from 0
  view_features:V   [B, V, W]  their pooled features before the projection
  features_of_view.N  [B, W]   those of view N
  tokens_of_view.N  [B, P, W]  tokens of view N; in `partial` only
  texts:K           [B, K, D]  unit embeddings of K texts of each example; the first is `text`
  text.N            [B, D]     text N of them, from 0
  texts_features:K  [B, K, W]  their pooled features before the projection
  audio.N           [B, D]     unit embeddings of a sound of each example, from 0, the default
  negatives:K       [B, K, D]  unit embeddings of at least K wrong captions of each example
  patch_errors      [B, M]     of the reconstruction of masked patches of the first view
  predicted_errors  [B, M]     what a loss predictor expects; [B, P] of all patches by a target
  scale, bias       []         learned by the model
  caption_logits, hidden, vocabulary, image_tokens, text_tokens    see `Outputs`; in `partial` only
  target.NAME                  any of the above but the learned, from the target encoder
  teacher.NAME                 any of the above, from the teacher, a frozen model of its own
  tokens            [B, L]     and `next_tokens` [B, L - 1], each position's successor
  id                [B]        the example, the same in every epoch and split
  same              [B]        equal where captions are
  texts_same        [B, K]     the same of all K texts
  negative_valid    [B, K]     whether each of `negatives` differs from the caption
  labels            [B]        classes, from the field `config.data.labels`; numbered from 0 with
                               `config.data.classes`
  pixels            [B, H, H, 3]  the square images before augmentation on the device, from 0 to
                               255; in `loss` only
  number            [B]        the number of each example, from the field `config.data.number`
  batch_size        []         B
  masked            [B, M]     patches masked by `Method.transform`; in `partial` only
  transformed       [B]        how `Method.transform` changed a view, an index; in `partial` only
  boxes:V           [B, V, 4]  where each of V views lies in the image, (x₀, y₀, x₁, y₁) from 0 to
                               1, x₁ < x₀ if it is flipped; in `partial` only
  step              []         number of the step, from 0
  progress          []         share of the run's steps that are done, from 0 to 1

With a final '?', a name is optional.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from contrastive_jax.models.outputs import Outputs

_PROPERTIES = ('first', 'second')
_PATCHES = ('patch_errors', 'predicted_errors')
# Names with a final number, that of a view.
ONE_VIEW = ('view', 'features_of_view', 'tokens_of_view')
OUTPUTS = {field.name for field in dataclasses.fields(Outputs)} | {*_PROPERTIES, *ONE_VIEW}
EMBEDDINGS = {'first', 'second', 'image', 'text', 'view', 'audio'}  # unit vectors, one per example
ENCODERS = ('target', 'teacher')  # beside '', the model that is trained
BATCH = {'tokens', 'next_tokens', 'id', 'same', 'texts_same', 'negative_valid', 'labels', 'step'}
BATCH |= {'batch_size', 'boxes', 'masked', 'number', 'pixels', 'progress', 'transformed'}


def parse(read: str) -> tuple[str, str, int]:
  """Splits a read into the encoder, of `ENCODERS`, the name, and the number it asks for."""
  encoder, _, name = read.rstrip('?').partition('.')
  if encoder not in ENCODERS:
    encoder, name = '', read.rstrip('?')
  name, _, number = re.sub(r'(view|text|audio)\.', r'\1:', name).partition(':')
  if name not in OUTPUTS | BATCH:
    raise ValueError(f'{read!r} is unknown; methods read {sorted(OUTPUTS | BATCH)}')
  return encoder, name, int(number or 0)


def count(reads: Iterable[str], *names: str) -> int:
  """How many views, texts, sounds or negatives reads of some names ask for; 0 where none does."""
  asked = [0]
  for _, name, number in map(parse, reads):
    if name in names:
      asked.append(number + (name in (*ONE_VIEW, 'text', 'audio')))
  return max(asked)


def fields(reads: Iterable[str], encoder: str = '') -> set[str]:
  """Fields of `Outputs` that the reads of an encoder need."""
  needed = set()
  for which, name, number in map(parse, reads):
    if which == encoder and name in OUTPUTS:
      needed |= {'texts'} if name == 'text' and number else {*Outputs.NEEDS.get(name, (name,))}
  return needed


def views_read(reads: Iterable[str], encoder: str, views: int, paired: bool) -> set[int]:
  """Numbers of the views whose outputs by an encoder are read; the others are not computed.

  Args:
    reads: the names.
    encoder: '', or one of `ENCODERS`.
    views: V, how many there are.
    paired: whether `second` is a text, not the second view.
  """
  read: set[int] = set()
  for which, name, number in map(parse, reads):
    if which != encoder:
      continue
    if name in ('views', 'view_features', 'view_tokens'):
      read |= set(range(views))
    elif name in ONE_VIEW or (name == 'second' and not paired):
      read.add(number or int(name == 'second'))
    elif name in ('image', 'image_features', 'first', *_PATCHES, *Outputs.TOKENS):
      read.add(0)
  return read


def gather(
  reads: Iterable[str],
  outputs: Outputs,
  batch: Mapping[str, Any],
  *,
  target: Outputs | None = None,
  teacher: Outputs | None = None,
) -> dict[str, Any]:
  """The arrays that a method reads, by name without the count; absent ones are left out."""
  found, encoders = {}, {'': outputs, 'target': target, 'teacher': teacher}
  for read in reads:
    encoder, name, number = parse(read)
    value = _find(name, number, encoders[encoder], batch)
    if value is not None:
      found[read.rstrip('?').partition(':')[0]] = value
  return found


def _find(name: str, number: int, outputs: Outputs | None, batch: Mapping[str, Any]):
  if name == 'next_tokens':
    return batch['tokens'][:, 1:] if 'tokens' in batch else None
  if name == 'negative_valid':
    wrong = batch.get('negative_tokens')
    return None if wrong is None else (wrong != batch['tokens'][:, None]).any(-1)
  if name == 'pixels':
    images = batch.get('image')
    return images if getattr(images, 'ndim', 0) == 4 else None
  if name == 'batch_size':
    return len(batch['id']) if 'id' in batch else None
  if name in BATCH:
    return batch.get(name)
  if outputs is None:
    return None
  if name == 'text' and number:
    return None if outputs.texts is None else outputs.texts[:, number]
  if name == 'audio':
    return None if outputs.audio is None else outputs.audio[:, number]
  if name in ONE_VIEW:
    first, views = (getattr(outputs, field) for field in Outputs.NEEDS[name])
    return first if number == 0 else None if views is None else views[:, number]
  return getattr(outputs, name)
