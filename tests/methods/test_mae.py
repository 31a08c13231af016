import jax
import numpy as np
import pytest

from configs import mae
from contrastive_jax.methods import METHODS, Objective
from contrastive_jax.models.definition import define
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.planning import traced_flops
from contrastive_jax.training import build, flops


def test_it_is_the_mean_error_of_the_masked_patches():
  errors = np.random.default_rng(0).random((4, 12)).astype(np.float32)
  method = METHODS['mae']()
  assert method.loss({'patch_errors': errors}, {}, {}, None).loss == pytest.approx(errors.mean())


def test_a_model_without_masks_is_told():
  message = "mae needs 'patch_errors', .* config.model.name = 'masked_autoencoder' does"
  with pytest.raises(ValueError, match=message):
    Objective({'mae': 1.0}).check(Outputs(image=np.zeros((2, 3))), {})


def test_the_recipe_is_the_papers():
  config = mae.get_config('vit_b16')
  # 1.5e-4 per 256 images
  assert config.optimizer.learning_rate == pytest.approx(2.4e-3)
  assert config.total_steps * config.batch_size / 1_281_167 == pytest.approx(800, rel=1e-4)
  shapes = jax.tree.leaves_with_path(define(**config.model.to_dict()).shapes)
  sizes = {'image': 0, 'pixel_decoder': 0, 'log_scale': 0}
  for path, leaf in shapes:
    sizes[path[0].key] += leaf.size
  # The authors' encoder and decoder, less the class token and its positions
  assert sizes['image'] == 85_798_656 - 2 * 768
  assert sizes['pixel_decoder'] == 26_109_184 - 512


@pytest.mark.slow
def test_it_is_built_without_texts():
  config = mae.get_config('smoke')
  run = build.build(config)
  assert run.tokenizer is None and set(run.abstract_batch) == {'image', 'id'}
  traced = traced_flops.traced(run.train_step, run.abstract_state, run.abstract_batch)
  parts = flops.analytic(config, run.abstract_state.parameters, run.objective, run.sizes)
  # Those of the augmentation are not of the model.
  assert traced.total >= parts['image'] > 0 == parts['text']
