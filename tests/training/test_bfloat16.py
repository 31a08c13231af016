"""Gradients of bfloat16 models, at sizes where bfloat16 sums stop growing."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core as jex

from contrastive_jax.methods import Objective
from contrastive_jax.models.definition import define
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.state import plan_state
from contrastive_jax.training.step import jit_train_step, make_train_step

LENGTH, VOCABULARY, SIZE = 16, 64, 16
SHARED = {'width': 64, 'layers': 2, 'heads': 2}
IMAGE = {'size': SIZE, 'patch': 8} | SHARED
TEXT = {'vocabulary': VOCABULARY, 'length': LENGTH} | SHARED
COCA = {'name': 'coca', 'queries': 4, 'pooler_heads': 2, 'decoder': {'layers': 2, 'heads': 2}}
SIGLIP_IMAGE = {'pooling': 'attention', 'pre_norm': False, 'stem_bias': True}
SIGLIP_TEXT = {'pooling': 'last', 'causal': False, 'mask_padding': False}
HYBRID_IMAGE = {'stem': 'convolution', 'stem_blocks': (0, 0, 1), 'pooling': 'mean'}
RESNET = {'tower': 'resnet', 'size': 32, 'width': 8, 'layers': (1, 1, 1, 1), 'heads': 4}
ROBERTA = {'tower': 'roberta', 'pad_id': 0, 'pooling': 'class'}
CONVNEXT = {'tower': 'convnext', 'size': 32, 'width': 8, 'layers': (1, 1, 1, 1), 'layer_scale': 1.0}
# (model, image tower, text tower, objective)
MODELS = {
  'clip': ({'name': 'clip'}, {}, {}, {'info_nce': 1.0}),
  'scanned': ({'name': 'clip'}, {'scan': True}, {'scan': True}, {'info_nce': 1.0}),
  'siglip': ({'name': 'clip', 'bias': -10.0}, SIGLIP_IMAGE, SIGLIP_TEXT, {'sigmoid': 1.0}),
  'hybrid': ({'name': 'clip'}, HYBRID_IMAGE, {'pooling': 'mean'}, {'info_nce': 1.0}),
  'roberta': ({'name': 'clip', 'text_projection': 'mlp_mean'}, {}, ROBERTA, {'info_nce': 1.0}),
  'resnet': ({'name': 'clip', 'image_projection': 'affine'}, RESNET, {}, {'info_nce': 1.0}),
  'convnext': ({'name': 'clip'}, CONVNEXT, {}, {'info_nce': 1.0}),
  'coca': (COCA, {}, {}, {'info_nce': 1.0, 'captioning': 2.0}),
  'streamed': (COCA, {}, {}, {'info_nce': 1.0, 'captioning_streamed': 2.0}),
}
TABLES = ('text/embed/embedding', 'decoder/output/kernel')


def batch(name, size, seed):
  """Texts of few words, half of which are one word, and images that show the first word."""
  side = fields_of(name)['image']['size']
  random = np.random.default_rng(seed)
  words = 4 + random.integers(0, 12, (size, LENGTH))
  looks = random.integers(0, 256, (16, side, side, 3))
  images = (looks[words[:, 1]] + random.integers(0, 256, (size, side, side, 3))) // 2
  words[:, 2:] = np.where(random.random((size, LENGTH - 2)) < 0.5, 3, words[:, 2:])
  position, end = np.arange(LENGTH), random.integers(LENGTH // 2, LENGTH, (size, 1))
  tokens = np.select([position == 0, position < end, position == end], [1, words, 2])
  return {'image': images.astype(np.uint8), 'tokens': tokens.astype(np.int32)}


@functools.cache
def draw(name, seed):
  """Initial parameters, drawn outside of a jit: a draw then compiles once per shape."""
  drawn = define(**fields_of(name)).init(jax.random.key(seed, impl='unsafe_rbg'))
  # Scales that start at 0 would hide the gradients below.
  wake = lambda path, a: a + (path[-1].key == 'scale' and not a.any())  # noqa: E731
  return jax.tree_util.tree_map_with_path(wake, drawn)


def fields_of(name, dtype='float32'):
  fields, image, text, _ = MODELS[name]
  image = image if 'tower' in image else IMAGE | image
  return fields | {'embed': 64, 'image': image, 'text': TEXT | text, 'dtype': dtype}


@functools.cache
def compiled(name, dtype, shape, micro_batches):
  """A train step whose update is the gradient, seeds -> initial states, and their shapes."""
  definition, optimizer = define(**fields_of(name, dtype)), optax.sgd(1.0)
  devices = math.prod(int(part.split(':')[1]) for part in shape.split(','))
  mesh = make_mesh(shape, jax.devices()[:devices])
  rules = {'embed': 'fsdp', 'mlp': 'tensor', 'heads': 'tensor', 'vocab': 'tensor'}
  _, abstract = plan_state(definition, optimizer, mesh, rules)
  objective = Objective(MODELS[name][-1], mesh if devices > 1 else None)
  step = make_train_step(definition, objective, optimizer, mesh, micro_batches=micro_batches)

  def create(seed, rounded=False):
    parameters, statistics = definition.part(jax.device_get(draw(name, seed)))
    if rounded:
      parameters = jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(a.dtype), parameters)
    state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), abstract)
    state = state.replace(parameters=parameters, optimizer_state=optimizer.init(parameters))
    state = state.replace(statistics=statistics or None)
    return jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), state, abstract)

  return jit_train_step(step, abstract, mesh), create, abstract


def gradients(name, dtype, size, seed, shape='data:1', micro_batches=1, rounded=False):
  """Gradients by path, also at parameters rounded to bfloat16."""
  step, create, _ = compiled(name, dtype, shape, micro_batches)
  before = create(seed, rounded)
  held = jax.device_get(before.parameters)
  after = jax.device_get(step(before, batch(name, size, seed))[0].parameters)
  difference = jax.tree.map(lambda a, b: np.float64(a) - np.float64(b), held, after)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(difference)
  }


def errors(name, size, seed, dtype='bfloat16', **options):
  """Relative error of each gradient; that of a tiny gradient is relative to a floor."""
  expected = gradients(name, 'float32', size, seed)
  actual = gradients(name, dtype, size, seed, **options)
  floor = 1e-4 * np.sqrt(sum(np.sum(leaf**2) for leaf in expected.values()))
  return {
    path: np.linalg.norm(leaf - actual[path]) / max(np.linalg.norm(leaf), floor)
    for path, leaf in expected.items()
  }


def check(name, seed, **options):
  few, many = (errors(name, size, seed, **options) for size in (256, 1024))
  # The gradients of scale and bias are sums over all pairs that nearly cancel, so their relative
  # errors depend on how the embeddings happen to be rounded.
  tensors = few.keys() - {'log_scale', 'bias'}
  # This ConvNeXt has twice the layers, and 8 channels in its first stage.
  bound, growth = (0.06, 0.015) if name == 'convnext' else (0.04, 0.008)
  for found in (few, many):
    assert all(found.get(table, 0) < 0.02 for table in TABLES)
    assert max(found[path] for path in tensors) < bound
  # The median error is due to the rounding of the embeddings, which more examples average out.
  assert np.median([*few.values()]) < 0.02 and np.median([*many.values()]) < 0.015
  assert all(many[path] < few[path] + growth for path in tensors)


def terms(equation):
  """Number of terms per entry of a sum, on average."""
  summed = {'reduce_sum': 0, 'scatter-add': 2}.get(equation.primitive.name)
  if summed is None:
    return 0
  return equation.invars[summed].aval.size / equation.outvars[0].aval.size


def equations(jaxpr):
  for equation in jaxpr.eqns:
    yield equation
    for inner in jex.jaxprs_in_params(equation.params):
      yield from equations(inner)


@pytest.mark.parametrize(
  ('name', 'micro_batches'),
  [
    pytest.param('clip', 1, marks=pytest.mark.slow),
    pytest.param('siglip', 1, marks=pytest.mark.slow),
    pytest.param('hybrid', 1, marks=pytest.mark.slow),
    pytest.param('roberta', 1, marks=pytest.mark.slow),
    pytest.param('resnet', 1, marks=pytest.mark.slow),
    pytest.param('convnext', 1, marks=pytest.mark.slow),
    ('streamed', 2),
  ],
)
def test_sums_over_the_batch_are_float32(name, micro_batches):
  step, _, abstract = compiled(name, 'bfloat16', 'data:1', micro_batches)
  size = 512
  found = list(equations(jax.make_jaxpr(step)(abstract, batch(name, size, 0)).jaxpr))
  sums = [e.outvars[0].aval.dtype for e in found if terms(e) >= size // micro_batches]
  assert jnp.float32 in sums and jnp.bfloat16 not in sums


@pytest.mark.slow
def test_gradients_match_float32_for_any_number_of_tokens():
  check('streamed', 0)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('name', [name for name in MODELS if name != 'resnet'])
def test_gradients_of_every_model(name, seed):
  check(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(3))
def test_gradients_below_batch_norms_are_as_exact_as_their_parameters(seed):
  # Batch norms and ReLUs amplify rounding: that of the parameters alone changes float32 gradients
  # by a tenth.
  found = errors('resnet', 256, seed)
  rounded = errors('resnet', 256, seed, 'float32', rounded=True)
  for summarize in (np.median, np.max):
    assert summarize([*found.values()]) < 2 * summarize([*rounded.values()])
  above = [path for path in found if not path.startswith(('image/st', 'log_scale'))]
  assert max(found[path] for path in above) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize('shape', ['data:1', 'fsdp:8', 'data:2,fsdp:2,tensor:2'])
@pytest.mark.parametrize('name', ['clip', 'coca', 'streamed'])
def test_gradients_on_a_mesh_and_in_micro_batches(name, shape):
  check(name, 0, shape=shape, micro_batches=4)
