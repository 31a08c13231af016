"""Runs on images as patches: each batch has a shape of its own."""

import functools

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import contrastive_jax
from configs import clip, naflex
from contrastive_jax import data
from contrastive_jax.data.augmentation import augment, augment_patches
from contrastive_jax.evaluation.open import open_evaluator
from contrastive_jax.interop import export_run
from contrastive_jax.planning import traced_flops
from contrastive_jax.training import build, flops, loop, workdir
from contrastive_jax.training.batch import abstract_batch, batch_shapes
from contrastive_jax.training.logger import read_metrics
from tests.doubles import slow_but
from tests.models.towers import drawn

SPLIT = 'heldout_composition[:64]'


@functools.cache
def source():
  return data.open_source('emoji', SPLIT)


def config(**overrides):
  made = naflex.get_config('smoke')
  made.data.split, made.data.batch_multiple = SPLIT, 4
  made.update(total_steps=4, checkpoint_every=2, batch_size=8, evaluate_every=1000)
  made.evaluation.splits, made.evaluation.zero_shot = (SPLIT,), ()
  made.update_from_flattened_dict(overrides)
  return made


@functools.cache
def run(devices=2, **overrides):
  return build.build(config(**overrides), jax.devices()[:devices])


def train(folder, interrupt=None, **overrides):
  own, steps = run(**overrides), []
  step = own.train_step

  def counted(state, batch):
    steps.append(batch['image'].pixels.shape)
    if len(steps) == interrupt:
      raise KeyboardInterrupt
    return step(state, batch)

  folder.mkdir(exist_ok=True)
  state = loop.train(own._replace(train_step=counted), source(), folder, lambda _: {})
  return state, steps


@pytest.mark.slow
def test_killed_and_resumed_equals_never_killed(tmp_path):
  straight, steps = train(tmp_path / 'straight')
  shapes = batch_shapes(config())
  expected = [shapes.at(step) for step in range(4)]
  assert steps == [(s.batch_size, s.length, 8, 8, 3) for s in expected]
  assert {*steps} == {(12, 16, 8, 8, 3), (8, 25, 8, 8, 3)}
  with pytest.raises(KeyboardInterrupt):
    train(tmp_path / 'killed', interrupt=4)
  resumed, rest = train(tmp_path / 'killed')
  assert rest == steps[2:]
  chex.assert_trees_all_equal(straight, resumed)
  rows = read_metrics(tmp_path / 'straight')
  assert [row['train/sequence_length'] for row in rows] == [s.length for s in expected]
  for row, shape in zip(rows, expected, strict=True):
    images = row['train/images_per_second'] * row['train/step_seconds']
    assert images == pytest.approx(shape.batch_size) == row['train/batch_size']


@pytest.mark.slow
def test_a_step_is_the_same_on_any_mesh_and_in_micro_batches():
  batches, _ = loop._training_batches(run(), source())
  batch = run().augment(1, next(batches))
  one, other = (
    own.train_step(own.create_state(0), batch)[1] for own in (run(), run(1, micro_batches=4))
  )
  for name in ('loss', 'gradient_norm'):
    np.testing.assert_allclose(other[name], one[name], rtol=2e-5)


def test_abstract_batches_match_real_ones():
  batches, _ = loop._training_batches(run(), source())
  shapes = batch_shapes(config())
  for step in range(2):
    batch = run().augment(step + 1, next(batches))
    expected = abstract_batch(config(), run().definition, shapes.at(step))
    chex.assert_trees_all_equal_shapes_and_dtypes(batch, expected)
  longest = abstract_batch(config(), run().definition)['image'].pixels
  assert longest.shape == (8, 25, 8, 8, 3)


@pytest.mark.parametrize('pooling', slow_but(['attention', 'mean'], 'attention'))
def test_traced_flops_equal_analytic_flops(pooling):
  made = config(**{'model.image.pooling': pooling})
  made.model.image.registers = 3
  made.augmentation = ConfigDict()
  own, totals = build.build(made, jax.devices()[:1]), []
  given = own.config, own.abstract_state.parameters, own.objective, own.sizes
  for shape in batch_shapes(made).shapes:
    batch = abstract_batch(made, own.definition, shape)
    traced = traced_flops.traced(own.train_step, own.abstract_state, batch)
    totals.append(traced.total)
    assert traced.total == sum(flops.analytic(*given, shape).values())
  assert sum(flops.analytic(*given).values()) == pytest.approx(np.mean(totals))


def test_colors_of_patches_change_as_those_of_the_image():
  strengths = {'brightness': 0.4, 'saturation': 0.5, 'hue': 0.1, 'contrast': 0.3, 'grey': 0.5}
  keys = jax.random.split(jax.random.key(0), 3)
  images = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 3)).astype(np.float32)
  squares = images.reshape(3, 2, 4, 2, 4, 3).swapaxes(2, 3).reshape(3, 4, 4, 4, 3)

  @jax.jit
  def augmented(keys, squares, images):
    patches = data.Patches(squares, np.full([3, 2], 2))
    return augment_patches(keys, patches, strengths).pixels, augment(keys, images, 8, strengths)

  found, expected = jax.device_get(augmented(keys, squares, images))
  expected = expected.reshape(3, 2, 4, 2, 4, 3).swapaxes(2, 3).reshape(3, 4, 4, 4, 3)
  np.testing.assert_allclose(found, expected, atol=1e-3)
  assert np.abs(found - squares).max() > 1


def test_evaluation_exports_and_loading_agree_at_any_length(tmp_path):
  made = config(**{'model.image.pooling': 'mean', 'model.image.interpolation': 'bicubic'})
  own = build.open_model(made, jax.devices()[:1])
  parameters = drawn(own.definition)
  # An open_clip export, which keeps the length beside the model's config.
  message = export_run(made.to_dict(), parameters, tmp_path, own.tokenizer, 25)
  assert (
    'open_clip' in message and 'at most 25 patches' in (tmp_path / 'export/README.md').read_text()
  )
  images = [image_of(number) for number in range(5)]
  for length in (16, 0):
    made.evaluation.sequence_length = length
    evaluator = open_evaluator(made, own.definition, own.tokenizer, own.mesh)
    (split,) = evaluator._splits.values()
    expected = evaluator._encoder.first(parameters, split)[:5]
    given = {} if length == 0 else {'sequence_length': length}
    model = contrastive_jax.load(tmp_path / 'export', **given)
    assert model.patches == (length or 25, 8)
    np.testing.assert_allclose(model.encode_image(images), expected, atol=1e-5)
  square = contrastive_jax.load(tmp_path / 'export', sequence_length=0)
  assert square.patches is None
  assert np.abs(square.encode_image(images) - expected).max() > 1e-3


def image_of(number):
  return data.images.decode(source()[number]['image'])


def test_earlier_runs_have_square_images():
  fields = clip.get_config('smoke').to_dict()
  for name in ('sequence_lengths', 'patch_sizes', 'batch_multiple'):
    del fields['data'][name]
  del fields['evaluation']['sequence_length']
  upgraded = workdir.upgrade(ConfigDict(fields))
  assert upgraded.to_dict() == clip.get_config('smoke').to_dict()
  assert batch_shapes(upgraded).at(7) == (16, 0, 0) and batch_shapes(upgraded).images(7) == 112


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    ({'data.sequence_lengths': (16, 0)}, r'config\.data\.sequence_lengths = \(16, 0\); use'),
    ({'data.sequence_lengths': (), 'data.patch_sizes': (8,)}, r'patch_sizes = \(8,\) needs'),
    ({'augmentation.brightness': 2.0}, r'config\.augmentation\.brightness = 2\.0'),
    ({'augment_on': 'host'}, r"config\.augment_on = 'host' takes square images"),
    ({'model.image.stem': 'nested'}, r"config\.model\.image\.stem = 'nested'"),
    ({'model.image.interpolation': 'cubic'}, r"image\.interpolation = 'cubic' is unknown"),
    ({'batch_size': 7}, r'batch_size = 7 is not divisible'),
    (
      {'batch_size': 10, 'data.batch_multiple': 1},
      r'batch_size = 10 gives batches of 15 .* of 16, .* set config\.data\.batch_multiple = 2',
    ),
    ({'micro_batches': 3}, r'config\.micro_batches = 3 does not divide'),
    ({'evaluation.sequence_length': -1}, r'config\.evaluation\.sequence_length = -1; use'),
  ],
)
def test_mistakes_are_named_before_anything_compiles(overrides, message):
  made = config()
  with made.unlocked(), made.ignore_type():
    made.update_from_flattened_dict(overrides)
  with pytest.raises(ValueError, match=message):
    build.build(made, jax.devices()[:2])


def test_geometric_augmentation_is_refused():
  made = config()
  made.augmentation = ConfigDict({'flip': 0.5})
  with pytest.raises(ValueError, match=r'config\.augmentation\.flip = 0\.5 would move pixels'):
    build.build(made, jax.devices()[:1])


def test_a_queue_needs_batches_of_one_size():
  made = config()
  made.objective = ConfigDict({'moco': {'weight': 1.0, 'length': 16}})
  with pytest.raises(ValueError, match=r'config\.objective\.moco keeps a queue of whole batches'):
    build.build(made, jax.devices()[:1])
  made.data.sequence_lengths = (16,)
  build.build(made, jax.devices()[:1])
