"""Super-resolution: the contrastive loss reaches the generator, and nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs.methods import pcl_sr
from contrastive_jax import tasks
from contrastive_jax.models.definition import define_from
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.models.super_resolution import Discriminator, Generator
from contrastive_jax.tasks import super_resolution

pytest.importorskip('skimage')
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)


@functools.cache
def stepped(contrast):
  """The states before and after a step, and its metrics."""
  config = pcl_sr.get_config('smoke')
  config.contrast, config.model.width = contrast, 4
  generator = define_from(lambda key: Generator(**config.model, rngs=ParameterKeys(key)))
  judge = define_from(lambda key: Discriminator(**config.discriminator, rngs=ParameterKeys(key)))
  init, step = super_resolution.adversaries(config, generator, judge)
  before = jax.jit(init)(jax.random.key(0))
  after, metrics = jax.jit(step)(before, {'images': IMAGES}, jax.random.key(1))
  return before, after, metrics


def test_the_contrast_moves_the_generator_alone():
  with_it, without = stepped(1.0), stepped(0.0)
  apart = [
    max(jax.tree.leaves(jax.tree.map(lambda a, b: float(np.abs(a - b).max()), *networks)))
    for networks in (
      [run[1][name].optimizer[0].mu for run in (with_it, without)]
      for name in ('generator', 'discriminator')
    )
  ]
  assert apart[0] > 0 and apart[1] < 1e-6
  assert 'contrast' in with_it[2] and 'contrast' not in without[2]
  assert with_it[2]['l1'] == pytest.approx(float(without[2]['l1']), rel=1e-6)


def test_each_network_is_trained_by_its_own_optimizer():
  before, after, _ = stepped(1.0)
  for name in ('generator', 'discriminator'):
    moved = jax.tree.map(
      lambda a, b: bool(np.any(a != b)), before[name].parameters, after[name].parameters
    )
    assert all(jax.tree.leaves(moved)), name


def test_copies_are_sharper_and_blurrier():
  x = np.tile(np.linspace(0.3, 0.7, 16)[:, None, None] > 0.5, (1, 16, 3))[None] * 0.4 + 0.3
  copy = jax.jit(super_resolution.copies, static_argnums=2)
  near, far = jax.device_get(copy(jax.random.key(0), x.astype(np.float32), 3))
  steepest = lambda images: np.abs(np.diff(images, axis=-3)).max((-3, -2, -1))  # noqa: E731
  assert near.shape == far.shape == (3, *x.shape)
  assert (steepest(near) > 0.4 + 1e-3).all() and (steepest(far) < 0.4 - 1e-3).all()


def test_batches_are_crops_and_a_function_of_the_step():
  first, again, other = (super_resolution.draw(IMAGES, 4, 4, 0, step) for step in (0, 0, 1))
  np.testing.assert_array_equal(first['images'], again['images'])
  assert first['images'].shape == (4, 4, 4, 3) and np.any(first['images'] != other['images'])


def test_the_measures_of_the_image_itself_are_the_best():
  metrics = super_resolution._measures()
  image = IMAGES[0].repeat(4, 0).repeat(4, 1)
  restored = super_resolution.restore_image(lambda x: jnp.asarray(image[None]) / 255, image, 2, 32)
  found = super_resolution.measure(restored, metrics)
  assert found['psnr'] > 100 and found['ssim'] == 1
  assert found['bicubic_psnr'] < 40 and found['bicubic_ssim'] < 1


def test_a_run_measures_beside_bicubic_enlargement(tmp_path):
  results = tasks.open_task(pcl_sr.get_config('smoke'))(tmp_path)
  assert {*results} == {'psnr', 'ssim', 'bicubic_psnr', 'bicubic_ssim'}
  with Image.open(tmp_path / super_resolution.PICTURE) as picture:
    assert picture.size[0] == picture.size[1] * 3 // 4 - 1, 'three columns of four rows'
  assert results['psnr'] == pytest.approx(results['bicubic_psnr'], abs=3), 'where it starts'


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('data.crop', 18, r'config\.data\.crop = 18 is no multiple'),
    ('model.upscale', 1, r'config\.model\.upscale = 1; use an integer in \[2, inf\)'),
    ('batch_size', 1, r'config\.batch_size = 1; use an integer in \[2, inf\)'),
    ('data.crop', 4096, r'has an image of .* pixels; use a config\.data\.crop of up to'),
  ],
)
def test_what_cannot_work_is_named_before_anything_is_compiled(path, value, message):
  config = pcl_sr.get_config('smoke')
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=message):
    tasks.open_task(config)
