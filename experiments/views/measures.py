"""What a row keeps of a finished run."""

import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np

from contrastive_jax import data
from contrastive_jax.data.images import normalizer
from contrastive_jax.evaluation.encoder import Encoder
from contrastive_jax.evaluation.splits import read_split
from contrastive_jax.training import build, checkpoint, restore, workdir
from experiments import side_by_side

SPLIT = 'heldout_style'
HARDEST = 0.01  # share of the negatives
# Recall that is followed while CLIP trains.
TIMED = tuple(metric.replace('@1', '@5') for metric in side_by_side.RECALL)


@functools.cache  # a results file is written after each run
def row_of(folder: pathlib.Path) -> dict[str, Any]:
  """Returns the metrics on the held-out style, and what the sweep of the run adds to them.

  That is `hardest_share`, of InfoNCE and the hard loss; `temperatures`, [size, mean temperature] of
  each class, of iSogCLR; and `curve`, [step, mean recall@5 of both directions], of timed runs.
  """
  found = json.loads((folder / side_by_side.RESULTS).read_text())
  named = (name.rpartition('/') for name in found)
  row = {name: found[f'{SPLIT}/{name}'] for split, _, name in named if split == SPLIT}
  row['step_seconds'] = found['step_seconds']
  config = workdir.read_config(folder)
  for loss in {'nt_xent', 'hard_contrastive'} & {*config.objective}:
    options = config.objective[loss]
    fraction = options.get('hard_fraction', 1.0)
    row['hardest_share'] = hardest_share(*_views(folder), options.scale, fraction)
  if 'isogclr' in config.objective:
    row['temperatures'] = _temperatures(folder)
  if config.evaluate_every < config.total_steps:
    lines = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
    metrics = [f'{SPLIT}/{metric}' for metric in TIMED]
    row['curve'] = [
      (line['step'], sum(line[metric] for metric in metrics) / len(metrics))
      for line in lines
      if metrics[0] in line
    ]
  return row


def hardest_share(
  first: np.ndarray, second: np.ndarray, scale: float, hard_fraction: float = 1.0
) -> float:
  """The hardest negatives' share of the gradient on all negatives, mean over anchors.

  The gradient on a negative is in proportion to exp(scale · s), or 0 for those that the hard loss
  leaves out.

  Args:
    first: [N, D] unit vectors, the anchors.
    second: [N, D] unit vectors, row i the positive of anchor i.
    scale: the inverse temperature.
    hard_fraction: share of the negatives that have a gradient.
  """
  count = len(first) - 1
  similarities = (first @ second.T)[~np.eye(count + 1, dtype=bool)].reshape(-1, count)
  ordered = -np.sort(-similarities, axis=1)
  weights = np.exp(scale * (ordered - ordered[:, :1]))[:, : max(1, round(hard_fraction * count))]
  return float(np.mean(weights[:, : max(1, round(HARDEST * count))].sum(1) / weights.sum(1)))


def open_encoder(folder: pathlib.Path) -> tuple[Encoder, Any]:
  """The encoder of a finished run, and its parameters."""
  config = workdir.read_config(folder)
  model = restore.open_run(config, folder, jax.local_devices()[:1])
  parameters = restore.restore_parameters(model, folder).parameters
  normalize = normalizer(config.data.mean, config.data.std)
  options = config.evaluation.batch_size, normalize, config.augmentation.to_dict()
  return Encoder(model.definition, None, model.mesh, *options), parameters


def features(folder: pathlib.Path, source: data.Source) -> np.ndarray:
  """The unit features [N, W] of the images of a source, by the encoder of a finished run."""
  encoder, parameters = open_encoder(folder)
  size = workdir.read_config(folder).model.image.size
  return encoder.first(parameters, read_split(source, size, setting='splits'))


def _views(folder: pathlib.Path) -> list[np.ndarray]:
  """The embeddings [N, D] of two views of the images of the held-out style."""
  encoder, parameters = open_encoder(folder)
  config = workdir.read_config(folder)
  source = data.open_source(config.data.name, SPLIT)
  split = read_split(source, config.model.image.size, setting='splits')
  return [encoder.view(parameters, split, number) for number in range(2)]


def _temperatures(folder: pathlib.Path) -> list[tuple[int, float]]:
  """Examples and mean temperature of each subgroup, from the tables of the last checkpoint."""
  config = workdir.read_config(folder)
  source = data.open_source(config.data.name, config.data.split)
  run = build.build(config, jax.local_devices()[:1], examples=source.rows)
  step = max(workdir.finished_steps(folder))
  memory = {'memory': run.abstract_state.memory}
  tables = checkpoint.read_part(folder.absolute() / 'checkpoints' / str(step), memory)['memory']
  ids = [source.fields(number)['id'] for number in range(len(source))]
  return by_class(np.asarray(tables['isogclr']['both.temperature'])[ids], source.values('subgroup'))


def by_class(values: np.ndarray, labels: list[str]) -> list[tuple[int, float]]:
  """Examples and mean value of each class, in the order of the labels."""
  _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
  means = np.bincount(codes, values) / counts
  return [(int(count), float(mean)) for count, mean in zip(counts, means, strict=True)]
