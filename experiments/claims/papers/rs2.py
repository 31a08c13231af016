"""RS2: a new random subset per round, beside a fixed subset and all data."""

import pathlib

import numpy as np

from contrastive_jax import data
from contrastive_jax.data.sources import array_record
from experiments.claims.claim import Arm, Claim, Comparison

SPLIT = ('train[skin_tone=,{}]', 'train[skin_tone=,{}]', 'train[{}]')  # the recipe's, restricted


def prepare(folder: pathlib.Path) -> None:
  """Writes a copy of the emoji whose examples carry a random tenth, 0 to 9."""
  for split, selection in (('train', '[vendor=noto|twemoji]'), ('heldout_style', '')):
    path = folder / 'tenths' / f'{split}.array_record'
    if not path.exists():
      path.parent.mkdir(parents=True, exist_ok=True)
      source = data.open_source('emoji', split + selection)
      tenth = np.random.default_rng(0).permutation(len(source)) * 10 // len(source)
      rows = (source[i] | {'tenth': str(tenth[i])} for i in range(len(source)))
      array_record.write(str(path), rows)


def fixed(tenths: int) -> Arm:
  """CLIP on a fixed random subset."""
  parts = [part.format(f'tenth={tenth}') for part in SPLIT for tenth in range(tenths)]
  name = 'arrayrecord:{folder}/tenths/{split}.array_record'
  fields = {'data.name': name, 'data.split': '+'.join(parts)}
  return Arm('clip', fields, f'clip on a fixed {tenths}0% of the data')


def drawn(fraction: float) -> Arm:
  """CLIP on a new random subset per round."""
  return Arm('clip', {'data.subset': fraction})


CLAIM = Claim(
  method='RS2',
  paper=76,
  primary=Comparison(drawn(0.1), fixed(1), 'a tenth drawn per round, beside a fixed tenth'),
  secondary={
    'all_data': Comparison(drawn(0.1), says='a tenth drawn per round, beside all data'),
    'three_tenths': Comparison(drawn(0.3), fixed(3), 'three tenths, beside three fixed tenths'),
  },
  family='image-text',
  notes='A fixed random subset is the simplest of the pruning methods. All arms see 51,200 images: '
  'that training on a subset may be shorter is left aside.',
  prepare=prepare,
)
