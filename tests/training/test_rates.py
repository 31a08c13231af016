import functools

import chex
import jax
import numpy as np
import optax
import pytest

from configs import clip
from contrastive_jax import data
from contrastive_jax.models.definition import define
from contrastive_jax.training import build, optimizer
from contrastive_jax.training.rates import freeze, frozen, parameter_rates
from tests.training.test_loop import config, kill_after, train

FIELDS = {'b1': 0.9, 'b2': 0.98, 'epsilon': 1e-6, 'weight_decay': 0.2, 'clip_norm': 1.0}


@functools.cache
def definition(scan=False):
  model = clip.get_config('smoke').model.to_dict()
  model['image'] |= {'layers': 3, 'scan': scan}
  return define(**model)


def fill(definition):
  """Arbitrary parameters, without compiling the initializers."""
  return jax.tree.map(
    lambda s: np.cos(np.arange(s.size, dtype=np.float32)).reshape(s.shape), definition.shapes
  )


@pytest.fixture(scope='module')
def source():
  return data.open_source('emoji', 'heldout_composition')


def paths(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


@pytest.mark.slow
def test_frozen_and_slowed_layers_train_on_a_mesh_and_resume(tmp_path, source):
  overrides = {
    'optimizer.rates': (('image/transformer/blocks/0/.*', 0.0), ('text/.*', 0.0)),
    'optimizer.layer_decay': 0.5,
    'model.image.scan': True,
    'model.image.layers': 2,
    'mesh': 'data:2,fsdp:2,tensor:2',
  }
  before = paths(build.build(config(**overrides)).create_state(0).parameters)
  straight = train(tmp_path / 'straight', source, **overrides)

  after = paths(straight.parameters)
  for name, value in after.items():
    if name.startswith('image/transformer/blocks/'):
      assert same_bits(value[0], before[name][0]) and not same_bits(value[1], before[name][1]), name
    else:
      assert same_bits(value, before[name]) == name.startswith('text/'), name
  # Frozen parameters have no optimizer state.
  kept = paths(straight.optimizer_state)
  assert not [name for name in kept if '/text/' in name]
  assert [name for name in kept if '/image/' in name]

  with pytest.raises(KeyboardInterrupt):
    train(tmp_path / 'killed', source, kill_after(2), **overrides)
  resumed = train(tmp_path / 'killed', source, **overrides)
  chex.assert_trees_all_equal(straight, resumed)


def same_bits(a, b):
  a, b = (np.asarray(value, np.float32).view(np.uint32) for value in (a, b))
  return np.array_equal(a, b)


def test_multipliers_apply_to_updates_and_weight_decay():
  model = definition(scan=True)
  parameters = fill(model)
  gradients = jax.tree.map(lambda p: p + 0.5, parameters)
  rates = parameter_rates(model, (('text/positions', 1.0), ('text/.*', 0.1)))
  transforms = [
    optimizer.make_optimizer(lambda step: 1e-3, **FIELDS, rates=given) for given in (None, rates)
  ]

  @jax.jit
  def first(gradients, parameters):
    return [
      transform.update(gradients, transform.init(parameters), parameters)[0]
      for transform in transforms
    ]

  updates = [*map(paths, first(gradients, parameters))]
  for name, whole in updates[0].items():
    factor = 0.1 if name.startswith('text/') and name != 'text/positions' else 1.0
    np.testing.assert_allclose(updates[1][name], factor * whole, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize('scan', [False, True])
def test_layer_decay_counts_from_the_top_of_each_tower(scan):
  found = paths(parameter_rates(definition(scan), layer_decay=0.5))
  for name, power in {
    'image/stem/convolutions/0/kernel': 4,
    'image/positions': 4,
    'image/norm/scale': 0,
    'image_projection/kernel': 0,
    'text/embed/embedding': 2,
    'text/transformer/blocks/0/mlp/up/bias': 1,
    'text/norm/bias': 0,
    'log_scale': 0,
  }.items():
    assert found[name] == 0.5**power, name
  for name, ndim in {'mlp/up/kernel': 2, 'attention/key_value/kernel': 4}.items():
    if scan:
      stacked = found[f'image/transformer/blocks/{name}']
      assert stacked.shape == (3, *[1] * ndim)
    else:
      stacked = np.array([found[f'image/transformer/blocks/{i}/{name}'] for i in range(3)])
    np.testing.assert_allclose(stacked.ravel(), [0.5**3, 0.5**2, 0.5])


def test_layer_decay_of_a_roberta_counts_its_embeddings_below_the_layers():
  image = {'size': 8, 'patch': 4, 'width': 16, 'layers': 1, 'heads': 2}
  text = {'vocabulary': 32, 'length': 6, 'width': 16, 'layers': 2, 'heads': 2, 'tower': 'roberta'}
  model = define('clip', embed=12, image=image, text={**text, 'pooling': 'pooler'})
  found = paths(parameter_rates(model, layer_decay=0.5))
  for name in ('embed/embedding', 'positions', 'token_type', 'embed_norm/scale'):
    assert found[f'text/{name}'] == 0.5**3, name
  assert found['text/transformer/blocks/1/mlp_norm/scale'] == 0.5
  assert found['text/pooler/kernel'] == 1


def test_layer_decay_counts_the_blocks_of_a_convolutional_tower():
  image = {'size': 32, 'width': 4, 'layers': (1, 1, 2, 1)}
  text = {'vocabulary': 32, 'length': 6, 'width': 16, 'layers': 2, 'heads': 2}

  def rates(tower, **more):
    fields = {'image': {'tower': tower, **image, **more}, 'text': text}
    projection = {'image_projection': 'affine'}
    model = define('clip', embed=12, **fields, **projection)
    return paths(parameter_rates(model, layer_decay=0.5))

  found = rates('convnext') | {f'resnet/{k}': v for k, v in rates('resnet', heads=4).items()}
  for name, power in {
    'image/stem/embed/kernel': 6,
    'image/stem_norm/scale': 6,
    'image/stages/0/0/mlp/up/kernel': 5,
    # What halves the image belongs to the block after it.
    'image/halvings/1/embed/kernel': 3,
    'image/halving_norms/1/scale': 3,
    'image/stages/2/0/layer_scale/scale': 3,
    'image/stages/2/1/layer_scale/scale': 2,
    'image/stages/3/0/norm/bias': 1,
    'image/norm/scale': 0,
    'resnet/image/stem/0/convolution/kernel': 6,
    'resnet/image/stages/2/1/expand/norm/scale': 2,
    'resnet/image/pool/positions': 0,
    'text/transformer/blocks/0/mlp/up/bias': 2,
  }.items():
    assert found[name] == 0.5**power, name


def test_the_first_match_counts_and_scanned_layers_match_by_number():
  rates = (('image/transformer/blocks/[01]/.*', 0.0), ('image/.*', 0.5))
  scanned, unrolled = (paths(parameter_rates(definition(scan), rates)) for scan in (True, False))
  assert scanned['image/transformer/blocks/mlp/up/bias'].ravel().tolist() == [0, 0, 0.5]
  assert [unrolled[f'image/transformer/blocks/{i}/mlp/up/bias'] for i in range(3)] == [0, 0, 0.5]
  assert scanned['image/positions'] == 0.5 and scanned['text/positions'] == 1


def loss(parameters, model, images):
  outputs = model.bind(parameters)(images, np.ones((2, 16), int))
  return (outputs.image * outputs.text).sum() * outputs.scale


def test_only_frozen_parameters_have_zero_gradients():
  model, images = definition(scan=True), np.cos(np.arange(2 * 32 * 32 * 3)).reshape(2, 32, 32, 3)
  rates = parameter_rates(model, (('image/transformer/blocks/1/.*', 0.0), ('text/.*', 0.0)))

  @jax.jit
  def gradients(parameters):
    return [jax.grad(loss)(parameters, given, images) for given in (model, frozen(model, rates))]

  without, found = map(paths, gradients(fill(model)))
  for name, rate in paths(rates).items():
    np.testing.assert_allclose(found[name], np.where(rate == 0, 0, without[name]), atol=1e-6)


def test_a_frozen_tower_has_no_backward_pass():
  model, images = definition(), np.zeros((2, 32, 32, 3), np.float32)

  def products(*rates):
    partly = frozen(model, parameter_rates(model, rates))
    gradient = jax.make_jaxpr(jax.grad(functools.partial(loss, model=partly, images=images)))
    return str(gradient(fill(model))).count('dot_general')

  whole, neither = products(), products(('image/.*|text/.*', 0.0))
  image, text = (whole - products((f'{tower}/.*', 0.0)) for tower in ('image', 'text'))
  # Freezing a tower removes both backward products of each of its products.
  assert image > 2 * text > 0 and neither == whole - image - text


def test_multipliers_of_one_give_none():
  assert parameter_rates(definition()) is None
  assert frozen(definition(), None) is definition()
  assert freeze(shapes := definition().shapes, None) is shapes
  transform = optimizer.make_optimizer(optax.constant_schedule(1.0), **FIELDS)
  assert paths(transform.init({'kernel': np.ones(2)}))


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('rates', (('picture/.*', 0.0),), r"'picture/\.\*' matches no parameter.*image/norm/bias"),
    ('rates', (('image', 0.0),), r"'image' matches no parameter; it must match the full path"),
    ('rates', (('image/.*', -1.0),), r"rates multiplies 'image/\.\*' by -1\.0; use 0 or more"),
    ('rates', (('image/(', 0.0),), r"rates contains \('image/\(', 0\.0\), which is not a pair"),
    ('rates', ('image/.*', 0.0), r"rates contains 'image/\.\*', which is not a pair"),
    ('rates', (('.*', 0.0),), r'rates freezes every parameter'),
    ('layer_decay', 0.0, r'config\.optimizer\.layer_decay = 0\.0; use a number in \(0, 1\]'),
    ('layer_decay', 1.5, r'config\.optimizer\.layer_decay = 1\.5'),
  ],
)
def test_invalid_rates_are_errors_before_compilation(field, value, message, monkeypatch):
  monkeypatch.setattr(jax.stages.Lowered, 'compile', None)
  with pytest.raises(ValueError, match=message):
    build.build(config(**{f'optimizer.{field}': value}))
