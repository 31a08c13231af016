import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import clip
from contrastive_jax.models.definition import define
from contrastive_jax.planning.traced_flops import traced
from tests.models.towers import batch_of, drawn, tiny

VARIANTS = {
  'class': {},
  'mean': {'image': {'pooling': 'mean', 'pre_norm': False}, 'text': {'pooling': 'mean'}},
  'attention': {'image': {'pooling': 'attention'}, 'text': {'pooling': 'last'}, 'bias': -10.0},
  'convolution': {'image': {'stem': 'convolution'}, 'text': {'causal': False}},
  'scan': {'image': {'scan': True}, 'text': {'scan': True}},
}


@pytest.mark.parametrize(
  ('variant', 'count'),
  [('vit_b32', 151_277_313), ('vit_b16', 149_620_737), ('vit_l14', 427_616_513)],
)
def test_published_models_have_the_published_number_of_parameters(variant, count):
  definition = define(**clip.get_config(variant).model.to_dict())
  parameters = definition.shapes
  assert sum(parameter.size for parameter in jax.tree.leaves(parameters)) == count


@pytest.mark.parametrize('name', VARIANTS)
def test_every_parameter_names_the_axes_of_its_dimensions(name):
  definition = tiny(**VARIANTS[name])
  parameters = definition.shapes

  def check(parameter, axes):
    assert len(axes) == parameter.ndim
    assert set(axes) <= {'embed', 'mlp', 'heads', 'channels', 'vocab', 'layers', None}

  jax.tree.map(check, parameters, definition.axes)


@pytest.mark.parametrize(
  'name',
  # The step's and the laws' tests train the others.
  [
    name if name in ('class', 'attention') else pytest.param(name, marks=pytest.mark.slow)
    for name in VARIANTS
  ],
)
def test_rows_are_unit_and_every_parameter_learns(name):
  fields = VARIANTS[name]
  image, text = ({'layers': 1, **fields.get(part, {})} for part in ('image', 'text'))
  definition = tiny(**{**fields, 'image': image, 'text': text})
  images, tokens = batch_of()

  @jax.jit
  def gradients(parameters):
    def loss(parameters):
      outputs = definition.bind(parameters)(images, tokens)
      scores = outputs.scale * outputs.image @ outputs.text.T
      scores += 0.0 if outputs.bias is None else outputs.bias
      return jnp.mean((scores - jnp.eye(len(images))) ** 2), outputs

    return jax.grad(loss, has_aux=True)(parameters)

  gradient, outputs = jax.device_get(gradients(drawn(definition)))
  for rows in (outputs.image, outputs.text):
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-5)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all(), path
    assert np.abs(leaf).max() > 1e-7, path


def test_scanned_layers_equal_unrolled_ones_with_their_gradients():
  unrolled, scanned = tiny(), tiny({'scan': True}, {'scan': True})
  images, tokens = batch_of()
  parameters = jax.device_get(drawn(unrolled))

  def stack(parameters):
    def stacked(tower):
      blocks = tower['transformer']['blocks']
      layers = [blocks[index] for index in sorted(blocks)]
      return tower | {'transformer': {'blocks': jax.tree.map(lambda *a: np.stack(a), *layers)}}

    return parameters | {name: stacked(parameters[name]) for name in ('image', 'text')}

  def value(definition):
    def total(parameters):
      outputs = definition.bind(parameters)(images, tokens)
      return jnp.sum(jnp.sin(3 * outputs.image) + jnp.cos(3 * outputs.text))

    compiled = jax.jit(jax.value_and_grad(total))
    return lambda parameters: jax.device_get(compiled(parameters))

  expected, gradient = value(unrolled)(parameters)
  actual, scanned_gradient = value(scanned)(stack(parameters))
  np.testing.assert_allclose(actual, expected, rtol=1e-5)
  chex.assert_trees_all_close(scanned_gradient, stack(gradient), rtol=1e-3, atol=1e-4)


def test_bfloat16_stays_close_to_float32():
  images, tokens = batch_of(size=16)
  rows = {}
  for dtype in ('float32', 'bfloat16'):
    definition = tiny({'layers': 1}, {'layers': 1}, dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves(definition.shapes)} == {jnp.dtype('float32')}
    parameters = drawn(definition, deviation=0.1)
    outputs = jax.jit(lambda p, bind=definition.bind: bind(p)(images, tokens))(parameters)
    rows[dtype] = np.concatenate([outputs.image, outputs.text])
    assert rows[dtype].dtype == np.float32
  assert np.sum(rows['float32'] * rows['bfloat16'], axis=1).min() > 0.999
  assert not np.array_equal(rows['float32'], rows['bfloat16'])


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('image', [{'pooling': 'attention'}, {'stem': 'convolution'}])
def test_float32_models_multiply_float32(image, dtype):
  """Forward and backward: accelerators multiply in less unless they are told."""
  definition = tiny({'layers': 1, **image}, {'layers': 1}, dtype=dtype)
  images, tokens = batch_of()

  def loss(parameters):
    outputs = definition.bind(parameters)(images, tokens)
    return jnp.sum(outputs.image * outputs.text)

  counted = traced(jax.grad(loss), definition.shapes)
  if dtype == 'float32':
    assert counted.exact == counted.total
  else:
    assert counted.exact == 0


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'image': {'size': 10}}, r'image\.size = 10'),
    ({'image': {'heads': 3}}, r'width = 16 .* heads = 3'),
    ({'text': {'heads': 5}}, r'width = 16 .* heads = 5'),
    ({'image': {'stem': 'conv'}}, r"image\.stem = 'conv'.*convolution"),
    ({'image': {'stem': 'convolution', 'size': 9, 'patch': 3}}, r'image\.patch = 3'),
    ({'image': {'pooling': 'max'}}, r"image\.pooling = 'max'.*mean"),
    ({'text': {'pooling': 'first'}}, r"text\.pooling = 'first'.*end"),
    ({'text': {'activation': 'swish'}}, r"activation = 'swish'.*gelu"),
    ({'image': {'patch_dropout': 1.0}}, r'image\.patch_dropout = 1\.0'),
    ({'depth': 3}, r'depth'),
    ({'image': {'depth': 3}}, r'depth'),
  ],
)
def test_a_model_that_cannot_be_is_refused_by_its_field(fields, message):
  with pytest.raises(ValueError, match=message):
    tiny(**fields)


def test_an_unknown_model_is_refused_with_those_that_exist():
  with pytest.raises(ValueError, match=r"model\.name = 'clap'.*clip"):
    define('clap')


@pytest.mark.parametrize('wrong', ['images', 'tokens'])
def test_another_shape_than_the_models_is_refused(wrong):
  definition = tiny()
  images, tokens = batch_of()
  given = {'images': images, 'tokens': tokens}
  given[wrong] = given[wrong][:, :-1]
  with pytest.raises(ValueError, match=f'{wrong} have shape .* the model takes'):
    jax.eval_shape(
      lambda parameters: definition.bind(parameters)(**given),
      definition.shapes,
    )
