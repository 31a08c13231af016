import functools

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from configs import clip, coca, siglip
from configs.methods import siglip2
from contrastive_jax.planning import traced_flops
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import build, flops
from contrastive_jax.training.batch import abstract_batch

MATRIX = jax.ShapeDtypeStruct((8, 8), jnp.float32)
PRODUCT = 2 * 8**3
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def multiply(x, y):
  return x @ y


def scanned(x, y):
  return lax.scan(lambda x, _: (x @ y, None), x, length=5)[0]


def nested(x, y):
  return lax.scan(lambda x, _: (scanned(x, y), None), x, length=3)[0]


def unneeded(x, y):
  return lax.cond(x[0, 0] > 0, lambda: x @ y @ y, lambda: x), x @ x @ x


def on_every_device(x, y):
  return jax.shard_map(multiply, mesh=make_mesh(), in_specs=(P(), P()), out_specs=P())(x, y)


@pytest.mark.parametrize(
  ('function', 'products'),
  [
    (multiply, 1),
    (scanned, 5),
    (nested, 15),
    (jax.jit(nested), 15),
    (jax.grad(lambda x, y: jnp.sin(scanned(x, y)).sum(), (0, 1)), 15),
    (jax.grad(lambda x, y: jnp.sin(jax.checkpoint(scanned)(x, y)).sum(), (0, 1)), 20),
    (lambda x, y: unneeded(x, y)[0], 2),
    (on_every_device, 8),
  ],
)
def test_products_count_once_per_execution(function, products):
  assert traced_flops.traced(function, MATRIX, MATRIX) == (products * PRODUCT, 0)


def test_products_at_the_highest_precision_are_counted_separately():
  exact = lambda x, y: jnp.dot(x, y, precision='highest') + x @ y  # noqa: E731
  assert traced_flops.traced(exact, MATRIX, MATRIX) == (2 * PRODUCT, PRODUCT)


def test_a_convolution_and_its_gradients():
  def convolve(image, kernel):
    return lax.conv_general_dilated(image, kernel, (2, 2), 'SAME').sum()

  image, kernel = jnp.zeros((2, 3, 8, 8)), jnp.zeros((5, 3, 3, 3))
  once = 2 * (2 * 5 * 4 * 4) * (3 * 3 * 3)
  assert traced_flops.traced(convolve, image, kernel).total == once
  squared = lambda image, kernel: convolve(image, kernel) ** 2  # noqa: E731
  assert traced_flops.traced(jax.grad(squared, (0, 1)), image, kernel).total == 3 * once


def described(recipe, **overrides):
  config = recipe.get_config('smoke')
  config.augmentation = ConfigDict()
  config.data.size = config.model.image.size
  with config.unlocked():
    config.update_from_flattened_dict(overrides)
  return build.build(config)


PATCHES = {'model.image.stem': 'patch', 'model.image.stem_blocks': None, 'model.image.layers': 2}
OPTIONS = {
  **{f'model.{tower}.mlp': 'swiglu' for tower in ('image', 'text')},
  'model.image.rope': 'yx',
  'model.image.qk_norm': True,
  'model.image.layer_scale': 0.1,
  'model.image.attention_bias': 'query_value',
  'model.image.drop_path': 0.1,
}
SCANNED = {'model.image.scan': True, 'model.text.scan': True}


RESNET = {'tower': 'resnet', 'size': 64, 'width': 4, 'layers': (1, 2, 1, 2), 'heads': 4}
CONVNEXT = {'tower': 'convnext', 'size': 64, 'width': 8, 'layers': (1, 1, 2, 1)}
VITAMIN = {'tower': 'vitamin', 'size': 64, 'width': 16, 'layers': 2, 'heads': 2}
VITAMIN |= {'stem_widths': (8, 16)}
FASTVIT = {'tower': 'fastvit', 'size': 64, 'width': 16, 'layers': (1, 1, 2, 1)}
FASTVIT_LARGE = FASTVIT | {'layers': (1, 1, 1, 1, 2), 'attention_stages': 2, 'stem_point': False}


@pytest.mark.parametrize(
  ('tower', 'projection'),
  [
    (RESNET, 'affine'),
    (CONVNEXT, 'linear'),
    slow(CONVNEXT, 'mlp'),
    (VITAMIN, 'linear'),
    slow(FASTVIT, 'affine'),
    slow(FASTVIT_LARGE, 'affine'),
  ],
)
def test_traced_flops_of_convolutional_towers_equal_analytic_flops(tower, projection):
  config = clip.get_config('smoke')
  config.augmentation = ConfigDict()
  config.data.size = tower['size']
  config.model.image, config.model.image_projection = ConfigDict(tower), projection
  run = build.build(config)
  batch = abstract_batch(run.config, run.definition)
  traced = traced_flops.traced(run.train_step, run.abstract_state, batch)
  analytic = flops.analytic(run.config, run.abstract_state.parameters, run.objective, run.sizes)
  assert traced.total == sum(analytic.values())


@pytest.mark.parametrize(
  ('text', 'projection'),
  [({'tower': 'roberta', 'pooling': 'pooler'}, 'mlp_mean'), ({'tower': 'nllb'}, 'linear')],
)
def test_traced_flops_of_hugging_faces_text_towers_equal_analytic_flops(text, projection):
  config = clip.get_config('smoke')
  config.augmentation, config.data.size = ConfigDict(), config.model.image.size
  sizes = {'vocabulary': 4096, 'length': 16, 'width': 32, 'layers': 2, 'heads': 2, 'pad_id': 0}
  config.model.text, config.model.text_projection = ConfigDict(sizes | text), projection
  run = build.build(config)
  batch = abstract_batch(run.config, run.definition)
  traced = traced_flops.traced(run.train_step, run.abstract_state, batch)
  analytic = flops.analytic(run.config, run.abstract_state.parameters, run.objective, run.sizes)
  assert traced.total == sum(analytic.values())


def test_a_tokenizer_must_pad_as_the_tower_reads():
  config = clip.get_config('smoke')
  sizes = {'vocabulary': 4096, 'length': 16, 'width': 32, 'layers': 1, 'heads': 2}
  config.model.text = ConfigDict(sizes | {'tower': 'roberta'})
  with pytest.raises(ValueError, match=r"data\.tokenizer = 'emoji' pads with 0, .* padded with 1"):
    build.build(config)


@pytest.mark.parametrize(
  ('recipe', 'overrides'),
  [
    (clip, {}),
    slow(clip, PATCHES),
    slow(clip, PATCHES | SCANNED),
    (clip, PATCHES | {'model.image.patch_dropout': 0.5}),
    slow(clip, {'mesh': 'data:2,fsdp:4'}),
    (siglip, PATCHES | {'model.image.pooling': 'attention'}),
    (clip, PATCHES | OPTIONS),
    (clip, PATCHES | {'model.image.stem': 'nested'}),
    slow(coca, PATCHES | {'model.pooler': 'none'}),
    (coca, {}),
    slow(coca, PATCHES | SCANNED | {'model.decoder.scan': True}),
    (coca, {'objective': ConfigDict({'info_nce': 1.0, 'captioning_streamed': 2.0})}),
    (coca, {'model.pooler': 'cascade'}),
  ],
)
def test_traced_flops_equal_analytic_flops(recipe, overrides):
  run = described(recipe, **overrides)
  state = run.abstract_state
  batch = abstract_batch(run.config, run.definition)
  traced = traced_flops.traced(run.train_step, state, batch)
  analytic = flops.analytic(run.config, state.parameters, run.objective, run.sizes)
  assert traced.total == sum(analytic.values())


@pytest.mark.slow
def test_only_views_that_are_read_count():
  run = described(siglip2, view_augmentation=ConfigDict())
  batch = abstract_batch(run.config, run.definition)
  parameters = run.abstract_state.parameters
  traced = traced_flops.traced(run.train_step, run.abstract_state, batch).total
  parts = flops.analytic(run.config, parameters, run.objective, run.sizes)
  # Features and tokens do without the projection, which counts for all views.
  assert traced == pytest.approx(sum(parts.values()), rel=1e-3)
  # The target sees one view, in a forward pass alone.
  assert parts['targets'] < 0.4 * parts['image'] / run.config.views
