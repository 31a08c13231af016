"""The arms and tables of experiments/sounds."""

import json
import pathlib

import pytest

from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import config_checks
from experiments import records
from experiments.sounds import arms, config, report


@pytest.mark.parametrize('arm', arms.ARMS)
def test_every_arm_has_a_config_that_fits(arm):
  recipe = config.get_config(arm)
  config_checks.check_config(recipe, make_mesh('data:-1'))
  assert ('audio' in recipe.model) == (recipe.model.name == 'audio_clip') == (arm == 'gram')
  assert bool(recipe.data.negatives) == (arm == 'compa')


def test_a_table_has_the_rows_of_its_data_alone(tmp_path):
  launch = arms.launch_of('compa', 1, tmp_path)
  launch.folder.mkdir()
  found = {'heldout/order_pairs_group_accuracy': 0.5, 'heldout/image_to_text_recall@1': 0.25}
  (launch.folder / 'results.json').write_text(json.dumps({**found, 'seconds': 9.0}))
  row = arms.row_of(launch.folder)
  assert row == {name.removeprefix('heldout/'): value for name, value in found.items()}
  path = tmp_path / 'results.json'
  assert records.measured_by(path) == 'Not measured yet.'
  records.write(path, {launch.name: row})
  shown = report.table(path, 'composed sounds', arms.ORDER)
  assert '| CompA | 1 |' in shown and '50.0%' in shown
  assert 'CompA' not in report.table(pathlib.Path(path), 'stamps', arms.SPEECH)
