"""Laws of Metrix: what a share and a weight do, at every level."""

import jax
import numpy as np
import pytest

from configs.methods import metrix
from contrastive_jax.losses.labels.mixing import mix
from contrastive_jax.models.definition import define_from
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.tasks.metrix import LEVELS, Embedder, metrix_loss

CONFIG = metrix.get_config('smoke')


def define(config):
  model = config.model.to_dict()
  return define_from(lambda key: Embedder(model, 0, rngs=ParameterKeys(key)))


@pytest.mark.slow
@pytest.mark.parametrize('level', LEVELS[1:])
def test_a_share_of_1_mixes_nothing_at_any_level(level):
  definition = define(CONFIG)
  module = definition.bind(definition.init(jax.random.key(0)))
  outputs = module(np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype('f'))
  partner = np.array([2, 3, 0, 1])
  mixed = mix(outputs[level], partner, np.ones(4, 'f'))
  np.testing.assert_allclose(module.embed(level, mixed), outputs['embedding'], atol=1e-6)


@pytest.mark.slow
def test_mixtures_of_weight_0_are_the_clean_loss():
  config = metrix.get_config('smoke')
  config.mixup.update({'weight': 0.0, 'anchor_weight': 0.0})
  definition = define(config)
  parameters = definition.init(jax.random.key(0))
  images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
  batch = {'image': images, 'label': np.arange(8, dtype=np.int32) // 2}

  def loss(level):
    config.mixup.level = level
    module = definition.bind(parameters)
    return float(metrix_loss(module, batch, jax.random.key(1), config)[0])

  assert loss('embedding') == pytest.approx(loss('none'), rel=1e-6)
