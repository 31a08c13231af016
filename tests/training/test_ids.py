"""Ids of examples, from the source to a method's table."""

import numpy as np
import pytest

from configs import clip
from contrastive_jax import data
from contrastive_jax.data.augmentation import augment_on_host
from contrastive_jax.methods import METHODS
from contrastive_jax.methods.method import Method, Result, Slot
from contrastive_jax.planning import plan
from contrastive_jax.training import build


class Table(Method):
  reads = ('first', 'id')

  def __init__(self, *, mesh=None):
    del mesh

  def loss(self, inputs, heads, memory, key):
    return Result(inputs['first'].sum())

  def memory(self, sizes):
    return {'seen': Slot((sizes.examples,), ('examples',))}


@pytest.fixture
def table(monkeypatch):
  """A config whose method keeps a table with a row per example."""
  monkeypatch.setitem(METHODS, 'table', Table)
  config = clip.get_config('smoke')
  config.objective = {'table': 1.0}
  return config


def test_augmentation_on_the_host_is_seeded_by_position():
  """As when ids were positions, so earlier runs resume with the same augmented images."""
  config = clip.get_config('smoke')
  config.augment_on = 'host'
  size, strengths = config.model.image.size, config.augmentation.to_dict()
  run = build.build(config)
  images = np.random.default_rng(0).integers(0, 255, [3, 40, 40, 3], np.uint8)
  batch = {'image': images, 'id': np.array([0, 1, 0]), 'position': np.array([5, 6, 7])}
  changed = run.augment(2, batch)
  seeds = [np.random.SeedSequence([config.seed, 2, number]) for number in (5, 6, 7)]
  seeds = np.array([seed.generate_state(1)[0] for seed in seeds])
  np.testing.assert_array_equal(changed['image'], augment_on_host(size, strengths)(seeds, images))
  assert changed.keys() == {'image', 'id'}


def test_a_table_has_a_row_per_example(table):
  source = data.open_source(table.data.name, table.data.split)
  run = build.build(table, examples=source.rows)
  assert source.rows == 10914 and len(source) > source.rows
  assert run.abstract_state.memory['table']['seen'].shape == (11 * 1024,)
  table.data.examples = 9000
  assert build.build(table, examples=source.rows).sizes.examples == 9 * 1024


def test_a_table_without_a_number_of_rows_is_an_error(table):
  with pytest.raises(ValueError, match=r'objective\.table keeps .* config\.data\.examples = 0'):
    build.build(table)


def test_a_plan_opens_the_data_only_for_a_table(table):
  assert plan.with_examples(table).data.examples == 10914
  assert table.data.examples == 0
  table.data.name, table.data.examples = 'nowhere', 5
  assert plan.with_examples(table) is table
  table.data.examples, table.objective = 0, {'info_nce': 1.0}
  assert plan.with_examples(table) is table
