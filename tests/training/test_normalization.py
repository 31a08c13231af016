"""The normalization of images in training."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import clip
from contrastive_jax import losses
from contrastive_jax.training import build
from contrastive_jax.training.batch import abstract_batch


@pytest.mark.slow
def test_a_step_normalizes_by_the_configs_mean_and_standard_deviation():
  config = clip.get_config('smoke')
  config.batch_size, config.augmentation = 4, ConfigDict()
  config.data.size = config.model.image.size
  config.data.mean, config.data.std = (0.5, 0.4, 0.3), (0.2, 0.5, 0.8)
  run = build.build(config, jax.devices()[:1])
  random = np.random.default_rng(0)
  # Texts of their own: none is excluded as a negative.
  texts = 5 + np.arange(4)[:, None] * np.ones(config.model.text.length, int)
  arrays = {'image': random.integers(0, 256, (4, 32, 32, 3)), 'tokens': texts}
  arrays |= {'id': np.arange(4), 'same': np.arange(4)}
  shapes = abstract_batch(config, run.definition)
  batch = {name: np.asarray(arrays[name], leaf.dtype) for name, leaf in shapes.items()}
  state = run.create_state(0)
  images = (batch['image'] / 255 - config.data.mean) / config.data.std
  model = run.definition.bind(state.parameters)
  outputs = jax.jit(lambda images: model(images, batch['tokens']))(images.astype(np.float32))
  expected = losses.info_nce(outputs.image, outputs.text, scale=outputs.scale)
  _, metrics = run.train_step(state, batch)
  assert float(metrics['loss']) == pytest.approx(float(expected), rel=1e-4)
