"""The rows, the table and the diagrams of experiments/calibration."""

import json

import numpy as np
import pytest
from PIL import Image

from contrastive_jax.evaluation import calibration
from contrastive_jax.tasks.classification import PREDICTIONS
from experiments import records
from experiments.calibration import arms, report


@pytest.fixture
def results(tmp_path):
  """A results file of two runs."""
  probabilities = np.random.default_rng(0).dirichlet([1, 1, 1], 40)
  labels = np.arange(40) % 3
  metrics, predictions = {}, {}
  for split in arms.SPLITS:
    found = calibration.metrics(probabilities, labels)
    metrics |= {f'{split}/{name}': value for name, value in found.items()}
    confidence, right = calibration.predictions(probabilities, labels)
    predictions |= {f'{split}/confidence': confidence, f'{split}/right': right}
  (tmp_path / 'results.json').write_text(json.dumps(metrics))
  np.savez(tmp_path / PREDICTIONS, **predictions)
  path = tmp_path / 'rows.json'
  records.write(path, dict.fromkeys(('mixup', 'm_ndcg'), arms.row_of(tmp_path)))
  return path


def test_the_table_has_a_row_per_split_and_finished_loss(results):
  row = records.rows(results)['mixup']['unseen style']
  assert sum(row['counts']) == 40 and len(row['accuracies']) == arms.BINS
  lines = report.errors(results).splitlines()[2:]
  assert [line.split(' | ')[:2] for line in lines] == [
    [f'| {split}', loss] for split in arms.SPLITS.values() for loss in ('mixup', 'M-NDCG')
  ]
  assert f'{row["accuracy"]:.1%}' in lines[0]


def test_a_missing_file_has_an_empty_table(tmp_path):
  assert len(report.errors(tmp_path / 'none.json').splitlines()) == 2


@pytest.mark.slow
def test_the_diagrams_are_a_small_image(results, tmp_path):
  report.plot(results, tmp_path / 'plot.png')
  assert (tmp_path / 'plot.png').stat().st_size < 100_000
  with Image.open(tmp_path / 'plot.png') as image:
    assert image.width > 300
