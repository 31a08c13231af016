"""The training styles, the subsets of them that are trained on, and the runs."""

import itertools
import pathlib
import random

from contrastive_jax import data
from contrastive_jax.data.sources import array_record
from experiments.side_by_side import Launch

STYLES = ('noto', 'twemoji', 'blobs', 'emojione', 'firefox', 'openmoji')
HELDOUT = 'heldout_style'
STEPS = 1_500
MOST = 6  # subsets per size


def draw() -> list[tuple[str, ...]]:
  """Returns subsets of each size, at most `MOST`, the same in each call; one per size in turn."""
  rng, drawn = random.Random(0), []
  for size in range(1, len(STYLES) + 1):
    subsets = [*itertools.combinations(STYLES, size)]
    drawn.append(rng.sample(subsets, min(len(subsets), MOST)))
  return [styles for turn in itertools.zip_longest(*drawn) for styles in turn if styles]


SUBSETS = draw()


def prepare(folder: pathlib.Path) -> None:
  """Writes a file per style, and one of the held-out style, of the concepts that all draw."""
  paths = {name: folder / f'{name}.array_record' for name in (*STYLES, HELDOUT)}
  if paths[HELDOUT].exists():  # the last to be written
    return
  folder.mkdir(parents=True, exist_ok=True)
  splits = {style: f'train[vendor={style},skin_tone=]' for style in STYLES}
  splits |= {'openmoji': 'openmoji[skin_tone=]', HELDOUT: HELDOUT}
  sources = {name: data.open_source('emoji', splits[name]) for name in paths}
  common = set.intersection(*({*source.values('hexcode')} for source in sources.values()))
  for name, path in paths.items():
    array_record.write(str(path), (row for row in sources[name] if row['hexcode'] in common))


def launch_of(styles: tuple[str, ...], folder: pathlib.Path) -> Launch:
  """The run on a subset of the styles, by the recipe of the claims, below a folder."""
  fields = {
    'data.name': f'arrayrecord:{folder.absolute()}/data/{{split}}.array_record',
    'data.split': '+'.join(styles),
    'total_steps': STEPS,
    'evaluate_every': STEPS,
    'checkpoint_every': 500,
  }
  name = '+'.join(styles)
  return Launch(name, folder / name, 'configs/claims.py', fields)
