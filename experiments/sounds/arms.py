"""The arms of the experiment on sounds, and their runs."""

import json
import pathlib

from experiments import side_by_side

SEEDS = 3
ORDER = {
  'order_pairs_text_accuracy': 'order, sound to text',
  'order_pairs_image_accuracy': 'order, text to sound',
  'order_pairs_group_accuracy': 'order, both',
}
SPEECH = {
  'audio_to_image_recall@1': 'speech to picture',
  'audio_to_text_recall@1': 'speech to text',
}
# Data and method of each arm, as tables name them; the first of each data set is its baseline.
ARMS = {
  'clip': ('composed sounds', 'CLIP'),
  'compa': ('composed sounds', 'CompA'),
  'clip_stamps': ('stamps', 'CLIP, picture and text'),
  'gram': ('stamps', 'GRAM, picture, text and speech'),
}


def launch_of(arm: str, seed: int, folder: pathlib.Path) -> side_by_side.Launch:
  """The run of an arm with a seed, below a folder."""
  path = f'experiments/sounds/config.py:{arm}'
  return side_by_side.Launch(f'{arm}/{seed}', folder / f'{arm}-{seed}', path, {'seed': seed})


def row_of(folder: pathlib.Path) -> dict[str, float]:
  """Recalls and accuracies of a finished run."""
  found = json.loads((folder / side_by_side.RESULTS).read_text())
  kept = ORDER | SPEECH | side_by_side.RECALL
  named = {name.rpartition('/')[2]: value for name, value in found.items()}
  return {name: named[name] for name in kept if name in named}
