import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax.methods import Objective
from tests.models.towers import TEXT, batch_of, drawn, tiny_coca

POOLERS = ['cascade', 'shared', pytest.param('parallel', marks=pytest.mark.slow)]
ONE = {'layers': 1}
VARIANTS = {
  'cascade': {'decoder': ONE},
  'parallel': {
    'pooler': 'parallel',
    'text': {'head_width': 4},
    'decoder': {**ONE, 'mlps': 2, 'head_width': 4},
    'bias': -10.0,
  },
  'shared': {'pooler': 'shared', 'decoder': {**ONE, 'mlps': 2}, 'image': {'class_token': True}},
  'unrolled': {},
  'scan': {'image': {'scan': True}, 'text': {'scan': True}, 'decoder': {'scan': True}},
  'shift_mask': {'text': {'shift_mask': True}, 'decoder': ONE},
}
SIZE = 8  # of the batches that a model encodes, so that it compiles once
WEIGHTS = ('info_nce', 'captioning', 'captioning_streamed')


@functools.cache
def model(name='cascade', dtype='float32'):
  """Parameters, and a jitted function of them, images and tokens to the outputs."""
  definition = tiny_coca(**VARIANTS[name], dtype=dtype)
  forward = jax.jit(lambda parameters, *batch: definition.bind(parameters)(*batch))
  return drawn(definition), lambda *operands: jax.device_get(forward(*operands))


@functools.cache
def gradients(name):
  """A jitted function of the weights of `WEIGHTS` to the gradient of the objective."""
  definition = tiny_coca(**VARIANTS[name])
  images, tokens = batch_of()

  def loss(parameters, weights):
    objective = Objective(dict(zip(WEIGHTS, weights, strict=True)))
    return objective(definition.bind(parameters)(images, tokens), {'tokens': tokens})[0]

  parameters = drawn(definition)
  gradient = jax.jit(jax.grad(loss))
  return lambda *weights: jax.device_get(gradient(parameters, np.float32(weights)))


@settings(max_examples=15, deadline=None)
@given(
  place=st.integers(0, TEXT['length'] - 1),
  token=st.integers(1, TEXT['vocabulary'] - 2),
  name=st.sampled_from(['cascade', 'shared']),
)
def test_a_later_token_never_changes_an_earlier_logit(place, token, name):
  parameters, forward = model(name)
  images, _ = batch_of(size=SIZE)
  tokens = np.tile(np.arange(1, 1 + TEXT['length'], dtype=np.int32), (SIZE, 1))
  changed = tokens.copy()
  changed[:, place] = 1 + (token + tokens[0, place] - 1) % (TEXT['vocabulary'] - 1)
  before, after = (forward(parameters, images, t) for t in (tokens, changed))
  assert before.caption_logits.shape == (SIZE, TEXT['length'] - 1, TEXT['vocabulary'])
  difference = np.abs(before.caption_logits - after.caption_logits)[0].max(axis=1)
  np.testing.assert_array_equal(difference[:place], 0)
  assert (difference[place:] > 0).all()
  # The class token sees every token.
  assert not np.array_equal(before.text, after.text)
  np.testing.assert_array_equal(before.image, after.image)


@pytest.mark.parametrize('name', POOLERS)
def test_the_image_changes_every_logit_and_no_text_embedding(name):
  parameters, forward = model(name)
  images, tokens = batch_of(size=SIZE)
  before, after = (forward(parameters, i, tokens) for i in (images, images[::-1]))
  np.testing.assert_array_equal(before.text, after.text)
  np.testing.assert_allclose(before.image, after.image[::-1], rtol=1e-4, atol=1e-5)
  assert np.abs(before.caption_logits - after.caption_logits).max(axis=2).min() > 1e-4


def test_padding_changes_nothing():
  parameters, forward = model()
  images, tokens = batch_of(size=SIZE)
  length, more = TEXT['length'], 3
  before = forward(parameters, images, tokens)
  # Whatever stands in the padding, its positions and its token, must not be seen.
  text = parameters['text']
  positions = np.insert(text['positions'], [length] * more, 5.0, axis=0)
  embedding = np.array(text['embed']['embedding'])
  embedding[0] = 7.0
  text = {**text, 'positions': positions, 'embed': {'embedding': embedding}}
  longer = tiny_coca(text={'length': length + more}, decoder=ONE)
  padded = np.pad(tokens, ((0, 0), (0, more)))
  after = jax.device_get(
    jax.jit(lambda p: longer.bind(p)(images, padded))({**parameters, 'text': text})
  )
  np.testing.assert_allclose(after.text, before.text, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(after.image, before.image)
  written = tokens[:, 1:] != 0
  np.testing.assert_allclose(
    after.caption_logits[:, : length - 1][written],
    before.caption_logits[written],
    rtol=1e-3,
    atol=1e-4,
  )
  captioning = jax.jit(lambda *batch: Objective({'captioning': 1.0})(*batch)[0])
  np.testing.assert_allclose(
    captioning(after, {'tokens': padded}), captioning(before, {'tokens': tokens}), rtol=1e-4
  )


def test_a_shifted_mask_differs_only_where_there_is_padding():
  parameters, forward = model()
  images, tokens = batch_of(size=SIZE)
  right = forward(parameters, images, tokens).text
  definition = tiny_coca(**VARIANTS['shift_mask'])
  shifted = np.asarray(jax.jit(lambda p: definition.bind(p).encode_text(tokens))(parameters))
  full = (tokens != 0).all(axis=1)
  assert 0 < full.sum() < len(full)
  np.testing.assert_allclose(right[full], shifted[full], rtol=1e-5, atol=1e-6)
  assert np.abs(right - shifted)[~full].max(axis=1).min() > 1e-4


def test_without_its_weight_captioning_gives_the_gradients_of_info_nce():
  parameters, forward = model()
  images, tokens = batch_of(size=SIZE)

  @functools.partial(jax.jit, static_argnums=0)
  def gradient(objective, outputs):
    return jax.grad(lambda outputs: objective(outputs, {'tokens': tokens})[0])(outputs)

  expected, actual = (
    gradient(objective, forward(parameters, images, tokens))
    for objective in (Objective({'info_nce': 1.0}), Objective({'info_nce': 1.0, 'captioning': 0.0}))
  )
  chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=1e-6)
  of_parameters = gradients('cascade')(1, 0, 0)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_parameters['decoder']))
  assert np.any(of_parameters['text']['positions'])


def test_labels_that_are_padding_give_no_gradient():
  parameters, forward = model()
  images, tokens = batch_of(size=SIZE)
  outputs = forward(parameters, images, tokens)
  for name, field in (('captioning', 'caption_logits'), ('captioning_streamed', 'hidden')):
    objective = Objective({name: 2.0})
    given = getattr(outputs, field)
    gradient = jax.jit(
      jax.grad(lambda x: objective(outputs.replace(**{field: x}), {'tokens': tokens})[0])  # noqa: B023
    )(given)
    size = np.abs(gradient).max(axis=2)
    np.testing.assert_array_equal(size > 0, tokens[:, 1:] != 0)


@pytest.mark.parametrize('name', POOLERS)
def test_streamed_captioning_gives_the_same_gradients(name):
  plain, streamed = (gradients(name)(0, *weights) for weights in ((1, 0), (0, 1)))
  chex.assert_trees_all_close(streamed, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('name', VARIANTS)
def test_every_parameter_names_the_axes_of_its_dimensions(name):
  definition = tiny_coca(**VARIANTS[name])

  def check(parameter, axes):
    assert len(axes) == parameter.ndim
    assert set(axes) <= {'embed', 'mlp', 'heads', 'vocab', 'layers', None}

  parameters = definition.shapes
  jax.tree.map(check, parameters, definition.axes)


@pytest.mark.parametrize('name', POOLERS)
def test_every_parameter_learns(name):
  gradient = gradients(name)(1, 2, 0)
  # InfoNCE has no use for it.
  gradient.pop('bias', None)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all(), path
    assert np.abs(leaf).max() > 1e-7, path


@pytest.mark.parametrize(('name', 'image_moves'), [('cascade', True), ('parallel', False)])
def test_the_captioners_queries_reach_the_image_vector_in_cascade_alone(name, image_moves):
  parameters, forward = model(name)
  images, tokens = batch_of(size=SIZE)
  changed = {**parameters, 'pooler': {**parameters['pooler']}}
  changed['pooler']['queries'] = parameters['pooler']['queries'][::-1] ** 2
  before, after = (forward(p, images, tokens) for p in (parameters, changed))
  assert np.abs(before.caption_logits - after.caption_logits).max() > 1e-4
  assert (np.abs(before.image - after.image).max() > 1e-4) == image_moves


def test_a_shared_poolers_first_query_is_the_image_vector_alone():
  parameters, forward = model('shared')
  images, tokens = batch_of(size=SIZE)
  queries = np.array(parameters['pooler']['queries'])
  assert len(queries) == 1 + 5 and 'contrastive_pooler' not in parameters
  queries[0] = queries[0, ::-1] ** 2
  changed = {**parameters, 'pooler': {**parameters['pooler'], 'queries': queries}}
  before, after = (forward(p, images, tokens) for p in (parameters, changed))
  np.testing.assert_allclose(before.caption_logits, after.caption_logits, rtol=1e-5, atol=1e-5)
  assert np.abs(before.image - after.image).max() > 1e-4


@pytest.mark.parametrize('pooler', POOLERS)
def test_the_memory_has_as_many_rows_as_queries(pooler):
  definition = tiny_coca(pooler=pooler)
  images, _ = batch_of(size=3)
  image, memory = jax.eval_shape(
    lambda parameters: definition.bind(parameters).pool_image(images),
    definition.shapes,
  )
  assert image.shape == (3, 12)
  assert memory.shape == (3, 5, 12)


@pytest.mark.slow
def test_scanned_layers_equal_unrolled_ones():
  parameters, forward = model('unrolled')
  images, tokens = batch_of()

  def stack(part):
    blocks = part['transformer']['blocks']
    layers = [blocks[index] for index in sorted(blocks)]
    return part | {'transformer': {'blocks': jax.tree.map(lambda *a: jnp.stack(a), *layers)}}

  stacked = parameters | {name: stack(parameters[name]) for name in ('image', 'text', 'decoder')}
  expected = forward(parameters, images, tokens)
  actual = model('scan')[1](stacked, images, tokens)
  chex.assert_trees_all_close(actual, expected, rtol=1e-3, atol=1e-4)


def test_bfloat16_stays_close_to_float32():
  images, tokens = batch_of(size=SIZE)
  parameters = drawn(tiny_coca(decoder=ONE), deviation=0.1)
  exact, rough = (
    model(dtype=dtype)[1](parameters, images, tokens) for dtype in ('float32', 'bfloat16')
  )
  for field in ('image', 'text'):
    a, b = getattr(exact, field), getattr(rough, field)
    assert b.dtype == np.float32 and np.sum(a * b, axis=1).min() > 0.999
  np.testing.assert_allclose(rough.caption_logits, exact.caption_logits, atol=0.1)


def test_caption_logits_are_float32_sums_in_bfloat16_models():
  parameters, forward = model(dtype='bfloat16')
  outputs = forward(parameters, *batch_of(size=SIZE))
  assert outputs.caption_logits.dtype == jnp.float32
  kernel = np.asarray(parameters['decoder']['output']['kernel']).astype(jnp.bfloat16)
  expected = np.float32(outputs.hidden) @ np.float32(kernel)
  np.testing.assert_allclose(outputs.caption_logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'pooler': 'both'}, r"pooler = 'both'.*cascade"),
    ({'queries': 0}, r'queries = 0'),
    ({'pooler_heads': 5}, r'width = 12 .* heads = 5'),
    ({'decoder': {'mlps': 3}}, r'decoder\.mlps = 3'),
    ({'decoder': {'depths': 3}}, r'Coca.*depths'),
    ({'image': {'pooling': 'class'}}, r'pooling: the model sets this itself'),
    ({'text': {'pooling': 'end'}}, r'pooling: the model sets this itself'),
  ],
)
def test_a_model_that_cannot_be_is_refused_by_its_field(fields, message):
  with pytest.raises(ValueError, match=message):
    tiny_coca(**fields)
