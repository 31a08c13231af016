"""A run of an earlier version loads and resumes."""

import json
import pathlib
import tarfile

import numpy as np
import pytest

import contrastive_jax
from contrastive_jax import data
from contrastive_jax.evaluation.open import open_evaluator
from contrastive_jax.training import build, loop, restore, workdir
from contrastive_jax.training.logger import read_metrics

# Two steps of a tiny CLIP with a moving average, on two devices, written at commit bea0a7d.
ARCHIVE = pathlib.Path(__file__).parent / 'earlier_run.tar.xz'
# Losses of steps 3 and 4, as that version resumed it.
LOSSES = {3: 3.8019988536834717, 4: 4.174862861633301}
# And metrics of its average after the fourth.
METRICS = {
  'heldout_style[:32]/alignment': 1.7481350898742676,
  'heldout_style[:32]/uniformity_image': -0.44588279724121094,
  'heldout_style[:32]/image_to_text_recall@10': 0.34375,
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  with tarfile.open(ARCHIVE) as archive:
    archive.extractall(folder, filter='data')
  config = json.loads((folder / 'config.json').read_text())
  config['data']['tokenizer'] = str(folder / 'tokenizer.json')
  (folder / 'config.json').write_text(json.dumps(config))
  return folder


def test_it_loads(folder):
  model = contrastive_jax.load(folder)
  vectors = model.encode_text(['a red fish', 'a blue bird'])
  np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_it_resumes_and_is_evaluated(folder):
  config = workdir.read_config(folder)
  config.evaluate_every = 1_000_000
  run = build.build(config)
  source = data.open_source(config.data.name, config.data.split, None)
  evaluator = open_evaluator(config, run.definition, run.tokenizer, run.mesh, source)
  state = loop.train(run, source, folder, evaluator)
  assert int(state.step) == 4
  lines = {line['step']: line for line in read_metrics(folder)}
  for step, loss in LOSSES.items():
    assert lines[step]['train/loss'] == pytest.approx(loss, rel=1e-5)
  opened = restore.open_run(config, folder)
  metrics = evaluator(restore.restore_parameters(opened, folder).parameters)
  for name, value in METRICS.items():
    assert metrics[name] == pytest.approx(value, rel=1e-4)
