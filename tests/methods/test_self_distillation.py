import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.methods import siglip2
from contrastive_jax.methods import METHODS, Objective, Sizes
from contrastive_jax.methods.method import Result
from contrastive_jax.methods.self_distillation import mask_patches
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.planning import traced_flops
from contrastive_jax.training import build
from tests.losses import reference
from tests.models.towers import drawn

B, V, P, W, K = 4, 4, 16, 5, 7
SIZES = Sizes(batch=B, embed=3, image_features=W, patches=P, image_tokens=W, views=V)
SMALL = {'hidden': 6, 'bottleneck': 4, 'prototypes': K}
IDENTITY = {'head': lambda x: x, 'target.head': lambda x: x}


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(scores):
  return np.exp(scores - reference.logsumexp(scores, -1)[..., None])


def cross_entropy(guesses, aims, center):
  """In float64, with DINO's temperatures."""
  log_guesses = guesses / 0.1 - reference.logsumexp(guesses / 0.1, -1)[..., None]
  return -np.sum(softmax((aims - center) / 0.04) * log_guesses, -1)


def evaluated(loss, x):
  """A result, and the gradient of its loss."""

  def parts(x):
    value, *others = loss(x)
    return value, tuple(map(dict, others))

  (value, others), gradient = jax.jit(jax.value_and_grad(parts, has_aux=True))(x)
  return Result(value, *others), gradient


@pytest.fixture(scope='module')
def distillation():
  """Features that are the outputs of identity heads already."""
  return {'view_features': draw(B, V, K), 'target.features_of_view.1': draw(B, K, seed=1)}


@pytest.fixture(scope='module')
def prediction():
  masked = np.stack([np.random.default_rng(n).permutation(P)[: P // 2] for n in range(B)])
  names = 'tokens_of_view.1', 'target.tokens_of_view.1'
  return {name: draw(B, P, K, seed=n) for n, name in enumerate(names)} | {'masked': masked}


def test_self_distillation_is_the_dense_cross_entropy(distillation):
  method, center = METHODS['self_distillation'](prototypes=K), draw(K, seed=2)
  aims = np.float64(distillation['target.features_of_view.1'])

  def loss(views):
    inputs = distillation | {'view_features': views}
    return method.loss(inputs, IDENTITY, {'center': center}, None)

  def dense(views):
    return np.mean([cross_entropy(views[:, v], aims, center) for v in (2, 3)])

  views = distillation['view_features']
  result, gradient = evaluated(loss, views)
  reference.assert_near(result.loss, dense(np.float64(views)))
  reference.assert_near(gradient, reference.differences(dense, views)[0])
  # The first two views, of the text and of the target, take no part.
  assert not np.any(gradient[:, :2])
  np.testing.assert_allclose(result.writes['center'], np.mean(aims, 0), rtol=1e-5)
  shares = softmax((aims - center) / 0.04)
  entropy = -np.sum(shares * np.log(shares + 1e-300), -1).mean()
  assert result.metrics['entropy'] == pytest.approx(entropy, rel=1e-4)


def test_masked_prediction_is_the_dense_cross_entropy_of_masked_patches(prediction):
  method, center = METHODS['masked_prediction'](prototypes=K), draw(K, seed=2)
  masked, aims = prediction['masked'], np.float64(prediction['target.tokens_of_view.1'])
  rows = np.arange(B)[:, None]

  def loss(tokens):
    inputs = prediction | {'tokens_of_view.1': tokens}
    return method.partial(inputs, B, IDENTITY, {'center': center})

  def dense(tokens):
    return np.mean(cross_entropy(tokens[rows, masked], aims[rows, masked], center))

  tokens = prediction['tokens_of_view.1']
  result, gradient = evaluated(loss, tokens)
  reference.assert_near(result.loss, dense(np.float64(tokens)))
  gradient = np.array(gradient)
  reference.assert_near(gradient, reference.differences(dense, tokens)[0])
  gradient[rows, masked] = 0
  assert not np.any(gradient)
  np.testing.assert_allclose(result.writes['center'], aims[rows, masked].mean((0, 1)), rtol=1e-4)


def test_parts_of_a_batch_add_up(prediction):
  method, memory = METHODS['masked_prediction'](prototypes=K), {'center': draw(K, seed=2)}
  whole = method.partial(prediction, B, IDENTITY, memory)
  parts = [
    method.partial({k: v[rows] for k, v in prediction.items()}, B, IDENTITY, memory)
    for rows in (slice(0, 1), slice(1, B))
  ]
  added = jax.tree.map(jnp.add, *[(part.loss, dict(part.writes)) for part in parts])
  expected = whole.loss, dict(whole.writes)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), added, expected)


def test_the_center_is_a_moving_average():
  method = METHODS['self_distillation'](prototypes=K, center_momentum=0.75)
  memory, writes = {'center': draw(K)}, {'center': draw(K, seed=1)}
  moved = method.update(memory, writes, {}, 0)['center']
  np.testing.assert_allclose(moved, 0.75 * memory['center'] + 0.25 * writes['center'], rtol=1e-6)
  assert not method.memory(SIZES)['center'].init


def test_a_student_that_agrees_with_its_teacher_has_no_gradient(distillation):
  method = METHODS['self_distillation'](prototypes=K, temperature=0.04)
  aims = distillation['target.features_of_view.1']

  def loss(views):
    inputs = distillation | {'view_features': views}
    result = method.loss(inputs, IDENTITY, {'center': jnp.zeros(K)}, None)
    return result.loss, result.metrics['entropy']

  views = np.repeat(aims[:, None], V, 1)
  (value, entropy), gradient = jax.value_and_grad(loss, has_aux=True)(views)
  assert value == pytest.approx(float(entropy), rel=1e-5)
  np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize('name', ['self_distillation', 'masked_prediction'])
def test_no_gradient_reaches_the_teacher_and_the_operations_are_those_of_the_sizes(
  name, distillation, prediction
):
  method = METHODS[name](**SMALL)
  head = method.heads(SIZES)['head']
  inputs = distillation if name == 'self_distillation' else prediction
  inputs = {k: v if k == 'masked' else v[..., :W] for k, v in inputs.items()}
  aimed = {k: v for k, v in inputs.items() if k.startswith('target.')}
  own = {k: v for k, v in inputs.items() if k not in aimed and k != 'masked'}

  def loss(own, parameters, aimed, target):
    heads = {'head': head.bind(parameters), 'target.head': head.bind(target)}
    given, memory = inputs | own | aimed, {'center': jnp.ones(K)}
    if name == 'self_distillation':
      return method.loss(given, heads, memory, None).loss
    return method.partial(given, B, heads, memory).loss

  parameters, target = drawn(head), drawn(head, seed=1)
  gradient = jax.jit(jax.grad(loss, (0, 1, 2, 3)))
  of_own, of_head, of_aimed, of_target = gradient(own, parameters, aimed, target)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves((of_aimed, of_target)))
  assert all(np.any(leaf) for leaf in jax.tree.leaves((of_own, of_head)))
  traced = traced_flops.traced(jax.grad(loss, (0, 1)), own, parameters, aimed, target)
  assert traced.total == pytest.approx(method.flops(SIZES))


def test_masked_pixels_do_not_reach_the_student():
  """And the mask is a function of the key, of the same number of patches for each image."""
  method = METHODS['masked_prediction'](ratio=0.25)
  keys = jax.random.split(jax.random.key(0), B)
  target = Outputs(image_tokens=jnp.zeros((B, P, 1)))
  images, others = draw(B, 16, 16, 3), draw(B, 16, 16, 3, seed=1)

  @functools.partial(jax.jit, static_argnums=0)
  def see(view, images, keys=keys):
    return method.transform(view, {'image': images}, target, {}, keys)

  seen = see(1, images)
  masked = np.asarray(seen['masked'])
  assert masked.shape == (B, P // 4) and all(len(set(row)) == P // 4 for row in masked)
  np.testing.assert_array_equal(masked, see(1, others)['masked'])
  assert np.any(masked != see(1, images, jax.random.split(jax.random.key(1), B))['masked'])
  hidden = np.asarray(mask_patches(jnp.ones_like(images), masked, P)) == 0
  assert hidden.mean() == 0.25
  again = see(1, np.where(hidden, others, images))
  np.testing.assert_array_equal(seen['image'], again['image'])
  np.testing.assert_array_equal(seen['image'], np.where(hidden, 0, images))
  for view in (0, 2):
    assert see(view, images).keys() == {'image'}


@pytest.mark.parametrize('size', [16, 19])
def test_patches_are_masked_in_reading_order(size):
  masked = np.array([[1, 14]])
  pixels = np.asarray(mask_patches(jnp.ones((1, size, size, 3)), masked, P))[0, ..., 0]
  expected = np.ones((size, size))
  expected[:4, 4:8] = expected[12:16, 8:12] = 0
  np.testing.assert_array_equal(pixels, expected)


def test_of_weight_0_it_is_siglip(distillation):
  config = siglip2.get_config('smoke').objective.to_dict()
  for name in ('self_distillation', 'masked_prediction'):
    config[name] |= {'weight': 0.0}
  objectives = Objective(config), Objective({'sigmoid': config['sigmoid']})
  heads = objectives[0].heads(SIZES)
  modules = {name: {'head': own['head'].bind(drawn(own['head']))} for name, own in heads.items()}
  memory = {name: {'center': jnp.zeros(1024)} for name in heads}
  outputs = Outputs(
    image=reference.unit(np.random.default_rng(0), B, 3),
    text=reference.unit(np.random.default_rng(1), B, 3),
    scale=jnp.float32(5),
    bias=jnp.float32(-3),
    image_tokens=draw(B, P, W),
    view_features=draw(B, V, W),
    view_tokens=draw(B, V, P, W),
  )
  batch = {'id': jnp.arange(B), 'masked': jnp.zeros((B, 2), int)}

  def loss(outputs, objective):
    (key,) = objectives[0].targets
    state = {'targets': {key: outputs}, 'target_heads': {key: modules}}
    state |= {'heads': modules, 'memory': memory}
    return objective(outputs, batch, **state)[0]

  both = jax.jit(lambda outputs: [jax.value_and_grad(loss)(outputs, each) for each in objectives])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *both(outputs))


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'views': 2}, r"view_augmentation has strengths from view '2' on, and config\.views = 2"),
    ({'model.image.patch_dropout': 0.5}, r'patch_dropout = 0\.5 drops patches that .*masked_pred'),
    ({'model.image.class_token': True}, r'tower has 17 tokens; use a tower without .*class_token'),
    ({'objective.masked_prediction.ratio': 0.0}, r'masked_prediction\.ratio = 0\.0; use a number'),
  ],
)
def test_what_cannot_work_is_told_by_its_field(fields, message):
  config = siglip2.get_config('smoke')
  with config.unlocked():
    config.update_from_flattened_dict(fields)
  with pytest.raises(ValueError, match=message):
    build.build(config)


def test_it_compares_three_views():
  with pytest.raises(ValueError, match=r'self_distillation compares 3 views .*config\.views = 2'):
    Objective({'self_distillation': SMALL | {'weight': 1.0}}).check(Outputs(), {}, views=2)
