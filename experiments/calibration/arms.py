"""The losses that are compared, and what is kept of their runs."""

import json
import pathlib

import numpy as np

from configs.methods import rankmixup
from contrastive_jax.evaluation import calibration
from contrastive_jax.tasks.classification import PREDICTIONS
from experiments import side_by_side

# Names by `config.loss.name`.
LOSSES = {
  'cross_entropy': 'cross-entropy',
  'mixup': 'mixup',
  'mrl': 'MRL',
  'm_ndcg': 'M-NDCG',
}
SPLITS = dict(
  zip(rankmixup.get_config().evaluation.splits, ('unseen style', 'unseen emoji'), strict=True)
)
BINS = 10  # of the diagram


def launch_of(name: str, folder: pathlib.Path) -> side_by_side.Launch:
  """The run of a loss."""
  config = 'configs/methods/rankmixup.py'
  return side_by_side.Launch(name, folder / name, config, {'loss.name': name})


def row_of(folder: pathlib.Path) -> dict[str, dict]:
  """Of a finished run, per split: its metrics, and the bins of its reliability diagram."""
  found = json.loads((folder / side_by_side.RESULTS).read_text())
  row = {}
  with np.load(folder / PREDICTIONS) as predictions:
    for split, name in SPLITS.items():
      own = (predictions[f'{split}/{part}'] for part in ('confidence', 'right'))
      bins = calibration.reliability(*own, BINS)._asdict()
      prefix = f'{split}/'
      metrics = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
      row[name] = metrics | {part: values.tolist() for part, values in bins.items()}
  return row
