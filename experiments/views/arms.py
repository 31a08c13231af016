"""The sweeps: the arms of each by curve and position on it, one seed each."""

import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import side_by_side
from experiments.claims.claim import Arm

# Arms by the name of their curve, and their position on it.
Sweep = Mapping[tuple[str, Any], Arm]

BATCHES = (32, 64, 128, 256, 512, 1024)
VIEWS = (2, 4, 8)
TEMPERATURES = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
SHARES = (0.05, 0.1, 0.3)
EVALUATE_EVERY = 40  # steps, of the runs that are timed

_IMAGES = 51_200  # that a run of the recipe sees
_DATA = 'arrayrecord:{folder}/data/{split}.array_record'  # see subsets.py
# Of an image encoder: k-NN for both classes, at the end alone.
_EVALUATION = {
  'evaluation.probes': ('neighbours',),
  'evaluation.zero_shot': ('group', 'subgroup'),
  'evaluate_every': 1_000_000,
}


def encoder(method: str, fields: Mapping[str, Any] | None = None, data: str = '') -> Arm:
  """An image encoder by the recipe of the claims, on all data or on the set 'tail' or 'balanced'.

  Arms of equal settings have equal names, and are one run.
  """
  fields = dict(fields or {})
  named = (f'{path.rpartition(".")[2]}={value:.4g}' for path, value in fields.items())
  label = ' '.join([method, *named, *([data] if data else [])])
  if data:
    parts = (f'{split}[{data}=yes]' for split in ('train', 'openmoji'))
    fields |= {'data.name': _DATA, 'data.split': '+'.join(parts)}
  return Arm(method, _EVALUATION | fields, label)


def of_batch(size: int) -> dict[str, int]:
  """The fields of a batch size, at equal images seen; {} for that of the recipe."""
  return {} if size == 128 else {'batch_size': size, 'total_steps': _IMAGES // size}


def of_temperature(loss: str, temperature: float) -> dict[str, float]:
  """The fields of a temperature; {} for the one in the config of NT-Xent."""
  default = loss == 'nt_xent' and temperature == 0.1
  return {} if default else {f'objective.{loss}.scale': 1 / temperature}


def of_modalities(loss: str) -> Arm:
  """A loss of three modalities: image, name and tags."""
  own = {'weight': 1.0, 'views': ('image', 'text', 'text.1')}
  fields = {'objective': {loss: own}, 'evaluate_every': 1_000_000}
  return Arm('mv_info_nce_modalities', fields, f'{loss} of three modalities')


def of_subset(name: str, share: float, fields: Mapping[str, Any]) -> Arm:
  """CLIP on a share of the data, timed."""
  timed = {'evaluate_every': EVALUATE_EVERY, 'evaluation.zero_shot': ()}
  return Arm('clip', timed | dict(fields), f'clip, {name} {share:.0%}, timed')


def fixed(rank: str, share: float) -> dict[str, str]:
  """The split of the recipe, of the examples that a field ranks first; see subsets.py."""
  own = f'train[vendor=noto|twemoji,{rank}<{share}'
  return {'data.name': _DATA, 'data.split': f'{own},skin_tone=]+{own},skin_tone=]+{own}]'}


_DECOUPLED = {
  'InfoNCE': ('simclr', {}),
  'DCL': ('decoupled_images', {}),
  'DCLW': ('decoupled_images', {'objective.decoupled.sigma': 0.5}),
}
_MULTI_VIEW = {
  'MV-InfoNCE': 'mv_info_nce',
  'MV-DHEL': 'mv_dhel',
  'NT-Xent of pairs': 'pairwise_nt_xent',
  'NT-Xent of averages': 'averaged_nt_xent',
  'poly-view': 'poly_view',
}
_GLOBAL = {
  'InfoNCE': ('simclr', {}),
  'SogCLR': ('isogclr_images', {'objective.isogclr.learning_rate': 0.0}),
  'iSogCLR': ('isogclr_images', {}),
}
_REPULSION = {
  'InfoNCE, two views': 'simclr',
  'NT-Xent of pairs, four views': 'pairwise_nt_xent',
  'CACR, four views': 'cacr',
}
_HARD = {'InfoNCE': ('simclr', 'nt_xent'), 'hard loss': ('hard_contrastive', 'hard_contrastive')}
_SUBSETS = {
  'RS2': lambda share: {'data.subset': share},
  'random': lambda share: fixed('draw', share),
  'k-center': lambda share: fixed('center', share),
}

SWEEPS: dict[str, Sweep] = {
  'batches': {
    (name, size): encoder(method, fields | of_batch(size))
    for size in BATCHES
    for name, (method, fields) in _DECOUPLED.items()
  },
  'views': {
    (name, views): encoder(method, {'batch_size': 64, 'views': views})
    for views in VIEWS
    for name, method in _MULTI_VIEW.items()
  },
  'modalities': {
    ('InfoNCE of image and name', 2): Arm('clip', {'evaluate_every': 1_000_000}, 'clip, at the end')
  }
  | {(name, 3): of_modalities(_MULTI_VIEW[name]) for name in [*_MULTI_VIEW][:3]},
  'tail': {
    (name, size): encoder(method, fields | of_batch(size), 'tail')
    for size in (32, 128)
    for name, (method, fields) in _GLOBAL.items()
  },
  'balance': {
    (name, data): encoder(method, {}, data)
    for data in ('balanced', 'tail')
    for name, method in _REPULSION.items()
  },
  'temperatures': {
    (name, temperature): encoder(method, of_temperature(loss, temperature))
    for temperature in TEMPERATURES
    for name, (method, loss) in _HARD.items()
  },
  'subsets': {('all data', 1.0): of_subset('all data', 1.0, {})}
  | {
    (name, share): of_subset(name, share, fields(share))
    for share in SHARES
    for name, fields in _SUBSETS.items()
  },
}
# A briefly trained encoder, whose features the coreset covers.
EMBEDDER = Arm('simclr', _EVALUATION | {'total_steps': 100}, 'the encoder of the coreset')


def launch_of(arm: Arm, folder: pathlib.Path) -> side_by_side.Launch:
  """The run of an arm, below a folder."""
  shared = str(folder.absolute())
  fields = {path: str(value).replace('{folder}', shared) for path, value in arm.fields.items()}
  own = folder / side_by_side.folder_name(str(arm))
  return side_by_side.Launch(str(arm), own, f'configs/claims.py:{arm.method}', fields)


def launches(names: list[str], folder: pathlib.Path) -> list[side_by_side.Launch]:
  """The runs of some sweeps; an arm of several is one run."""
  arms = {str(arm): arm for name in names for arm in SWEEPS[name].values()}
  return [launch_of(arm, folder) for arm in arms.values()]
