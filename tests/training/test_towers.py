"""Laws of every image tower by name: recipes, rates, optimizers, costs and meshes hold for all."""

import functools

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from ml_collections import ConfigDict

from configs import clip, coca, siglip, simclr
from contrastive_jax.methods import Objective
from contrastive_jax.models.attention import Bias
from contrastive_jax.models.definition import define, set_training
from contrastive_jax.models.layer_scale import LayerScale
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.stem import BatchNorm, Convolution
from contrastive_jax.models.towers import IMAGE_TOWERS, image_class
from contrastive_jax.models.transformer import LayerNorm
from contrastive_jax.planning import costs, plan, topology
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import build, optimizer
from contrastive_jax.training.rates import frozen_statistics, parameter_rates
from contrastive_jax.training.state import plan_state
from contrastive_jax.training.step import jit_train_step, make_train_step
from tests.doubles import slow_but
from tests.models.towers import SECTIONS, TEXT, TOWERS, batch_of, drawn

FIELDS = {'b1': 0.9, 'b2': 0.98, 'epsilon': 1e-6, 'weight_decay': 0.2, 'clip_norm': 1.0}
RULES = {'embed': 'fsdp', 'mlp': 'tensor', 'heads': 'tensor'}
FROZEN = (('image/.*', 0.0),)


@functools.cache
def definition(name):
  return define('clip', embed=12, image=SECTIONS[name], text=TEXT)


@functools.cache
def shapes(name):
  return definition(name).shapes


def paths(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def modules(name):
  """Modules of the image tower by path."""
  model = definition(name).bind(shapes(name))
  graph = nnx.iter_graph(model.image)
  return {'/'.join(map(str, ('image', *path))): node for path, node in graph if is_module(node)}


def is_module(node):
  return isinstance(node, nnx.Module) and not isinstance(node, nnx.List)


def config(recipe, name, **overrides):
  made = recipe.get_config('smoke')
  with made.unlocked():
    made.model.image = ConfigDict(SECTIONS[name])
    # Augmentation multiplies matrices too.
    made.augmentation, made.data.size = ConfigDict(), SECTIONS[name]['size']
    made.update_from_flattened_dict(overrides)
  return made


def test_the_table_has_every_tower():
  assert TOWERS.keys() == IMAGE_TOWERS.keys()


@pytest.mark.parametrize('name', slow_but(TOWERS, 'resnet'))
@pytest.mark.parametrize(
  'recipe',
  # tests/training/test_flops.py builds those of configs/clip.py.
  [coca, *(pytest.param(recipe, marks=pytest.mark.slow) for recipe in (clip, siglip, simclr))],
)
def test_a_recipe_builds_with_every_tower(recipe, name):
  run = build.build(config(recipe, name))
  assert costs.residual_bytes(run) > 0
  tokens = image_class(SECTIONS[name]).lengths(SECTIONS[name], '')[0]
  if recipe is coca:
    # Only what the captioner reads has parameters.
    assert not {'pool', 'norm'} & run.abstract_state.parameters['image'].keys()
  encode = lambda p: run.definition.bind(p).image(np.zeros((2, 32, 32, 3), np.float32))  # noqa: E731
  pooled, found = jax.eval_shape(encode, run.abstract_state.evaluated)
  assert (pooled is None) == (recipe is coca) and found.shape[:2] == (2, tokens)


@pytest.mark.slow
@pytest.mark.parametrize('name', TOWERS)
@pytest.mark.parametrize('recipe', [clip, coca])
def test_a_recipe_is_planned_with_every_tower(recipe, name):
  found = plan.plan(config(recipe, name), topology.open_topology('cpu:2'), seconds=0)
  assert found['fits'] and found['flops']['traced_to_analytic'] == 1
  assert ('normalized_together' in found) == bool(definition(name).statistics)
  frozen = plan.plan(
    config(recipe, name, **{'optimizer.rates': FROZEN}), topology.open_topology('cpu:2'), seconds=0
  )
  assert 'normalized_together' not in frozen


@pytest.mark.parametrize('name', TOWERS)
@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'novelty': 1}, r'config\.model\.image\.novelty: \w+ takes none of these'),
    ({'width': None}, r'config\.model\.image\.width: missing'),
    ({'layers': (1,)}, r'layers = \(1,\)'),
    ({'pooling': 'novelty'}, r"image\.pooling = 'novelty' is unknown; use one of .*'none'"),
    ({'pooling': 'none'}, r"config\.model\.image\.pooling = 'none' leaves no vector to compare"),
    ({'remat': 'novelty'}, r"remat = 'novelty'"),
  ],
)
def test_a_field_that_does_not_suit_a_tower_is_named(name, change, message):
  section = {k: v for k, v in (SECTIONS[name] | change).items() if v is not None}
  with pytest.raises(ValueError, match=message):
    define('clip', embed=12, image=section, text=TEXT)


@pytest.mark.parametrize('name', TOWERS)
def test_the_pooling_of_a_captioners_tower_is_its_own(name):
  fields = config(coca, name).model.to_dict()
  fields['image'] |= {'pooling': 'mean'}
  with pytest.raises(
    ValueError, match=r'config\.model\.image\.pooling: the model sets this itself'
  ):
    define(**fields)


@pytest.mark.parametrize('name', TOWERS)
def test_features_of_another_number_than_the_shared_space_need_a_projection(name):
  with pytest.raises(ValueError, match=r"image_projection = 'none' needs the tower's \d+ features"):
    define('clip', embed=13, image=SECTIONS[name], text=TEXT, image_projection='none')


@pytest.mark.parametrize('name', SECTIONS)
def test_layer_decay_grows_from_the_top_to_the_pixels(name):
  found = paths(parameter_rates(definition(name), layer_decay=0.5))
  rates = {path: np.min(rate) for path, rate in found.items() if path.startswith('image/')}
  pixels = tuple(f'image/{start}' for start in image_class(SECTIONS[name]).on_pixels)
  of_pixels = {rate for path, rate in rates.items() if path.startswith(pixels)}
  layers = SECTIONS[name]['layers']
  depth = layers if isinstance(layers, int) else sum(layers)
  assert of_pixels == {min(rates.values())} == {0.5 ** (depth + 1)}
  # Every layer has its own.
  assert {0.5**layer for layer in range(1, depth + 2)} <= {*rates.values()}
  assert found['image_projection/kernel'] == 1


@pytest.mark.parametrize('name', TOWERS)
def test_a_frozen_tower_has_neither_state_nor_moving_statistics(name):
  model = definition(name)
  rates = parameter_rates(model, FROZEN)
  assert not any(np.any(rate) for path, rate in paths(rates).items() if path.startswith('image/'))
  assert frozen_statistics(model, FROZEN) == model.statistics
  assert not frozen_statistics(model, (('text/.*', 0.0),))
  for given in ((), model.statistics):
    bound = model.bind(shapes(name))
    set_training(bound, given)
    norms = [node for _, node in nnx.iter_graph(bound) if isinstance(node, BatchNorm)]
    assert bool(norms) == bool(model.statistics)
    assert all(norm.use_running_average == bool(given) for norm in norms)


@pytest.mark.parametrize('name', SECTIONS)
def test_weight_decay_excludes_norms_scales_and_biases(name):
  decays = paths(optimizer.decays(definition(name).part(shapes(name))[0]))
  expected, owned = {}, set()
  for path, module in modules(name).items():
    if isinstance(module, (LayerNorm, BatchNorm, LayerScale, Bias)):
      of = dict.fromkeys(('scale', 'bias'), False)
    elif isinstance(module, (Linear, Convolution)):
      of = {'kernel': True, 'bias': False}
    else:
      continue
    owned.add(path)
    expected |= {f'{path}/{key}': value for key, value in of.items()}
  tables = ('positions', 'class_token', 'registers', 'query')
  for path, decay in decays.items():
    if path.startswith('image/'):
      # What belongs to none of these modules is a table.
      assert decay == expected.get(path, True), path
      assert path in expected or path.rpartition('/')[2] in tables


@pytest.mark.parametrize('name', SECTIONS)
def test_muon_takes_the_matrices_and_dense_convolutions_of_a_tower(name):
  found = {
    jax.tree_util.keystr(path, simple=True, separator='/'): sides
    for path, sides in optimizer.hidden_matrices(definition(name).axes).items()
  }
  pixels = tuple(f'image/{start}' for start in image_class(SECTIONS[name]).on_pixels)
  expected = {
    f'{path}/kernel'
    for path, module in modules(name).items()
    if isinstance(module, Linear)
    or (isinstance(module, Convolution) and module.feature_group_count == 1)
    if not f'{path}/'.startswith(pixels)
  }
  assert {path for path in found if path.startswith('image')} == expected and expected
  leaves = paths(shapes(name))
  for path, (inputs, outputs) in found.items():
    apart = {*range(leaves[path].ndim)} - {*inputs, *outputs}
    # Keys and values are matrices of their own; all other axes are of one matrix.
    assert len(apart) == ('key_value' in path) and not {*inputs} & {*outputs}, path
  assert not any('projection' in path for path in found)


# Muon reads the axes of a tower, and a ResNet has all that the other rules tell apart.
RULES_AND_TOWERS = [(rule, name) for rule in optimizer.RULES for name in TOWERS]
FEW = [each for each in RULES_AND_TOWERS if each[0] == 'muon' or each[1] == 'resnet']


@pytest.mark.parametrize(('rule', 'name'), slow_but(RULES_AND_TOWERS, *FEW))
def test_every_optimizer_updates_every_tower(rule, name):
  model = definition(name)
  trained, axes = (model.part(tree)[0] for tree in (shapes(name), model.axes))
  transform = optimizer.make_optimizer(lambda step: 0.1, **FIELDS, name=rule, axes=axes)
  create, abstract = plan_state(model, transform, make_mesh('data:2,fsdp:2,tensor:2'), RULES)
  del create
  update = lambda p, s: transform.update(p, s, p)  # noqa: E731
  updates, state = jax.eval_shape(update, trained, abstract.optimizer_state)
  assert jax.tree.map(lambda a: a.shape, updates) == jax.tree.map(lambda a: a.shape, trained)
  assert jax.tree.structure(state) == jax.tree.structure(abstract.optimizer_state)


def stepped(name, shape):
  """The loss, the gradient and the statistics of a train step on a mesh."""
  model, transform = definition(name), optax.sgd(1.0)
  devices = int(np.prod([int(part.split(':')[1]) for part in shape.split(',')]))
  mesh = make_mesh(shape, jax.devices()[:devices])
  _, abstract = plan_state(model, transform, mesh, RULES)
  objective = Objective({'info_nce': 1.0}, mesh if devices > 1 else None)
  step = jit_train_step(make_train_step(model, objective, transform, mesh), abstract, mesh)
  trained, statistics = model.part(jax.device_get(drawn(model, deviation=0.2)))
  statistics = jax.tree.map(np.abs, statistics)
  state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), abstract)
  state = state.replace(parameters=trained, statistics=statistics or None)
  state = jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), state, abstract)
  images, tokens = batch_of(SECTIONS[name], size=8)
  after, metrics = step(state, {'image': images, 'tokens': tokens})
  after = jax.device_get(after)
  gradient = jax.tree.map(lambda a, b: np.float64(a) - np.float64(b), trained, after.parameters)
  return float(metrics['loss']), gradient, after.statistics


@pytest.mark.slow
@pytest.mark.parametrize('name', TOWERS)
def test_a_step_is_the_same_on_any_mesh(name):
  loss, gradient, statistics = stepped(name, 'data:1')
  floor = 1e-4 * optax.tree.norm(gradient)
  for shape in ('data:1,fsdp:2', 'data:2,tensor:2'):
    other, again, moved = stepped(name, shape)
    assert other == pytest.approx(loss, rel=1e-5)
    for path, leaf in paths(gradient).items():
      error = np.linalg.norm(leaf - paths(again)[path])
      assert error <= 1e-3 * max(np.linalg.norm(leaf), floor), path
    for path, leaf in paths(statistics).items():
      np.testing.assert_allclose(paths(moved)[path], leaf, rtol=1e-4, atol=1e-5, err_msg=path)
