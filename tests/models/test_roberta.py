"""The text towers of RoBERTa and NLLB."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.models.definition import define
from contrastive_jax.models.nllb import sinusoids
from contrastive_jax.models.roberta import positions_of
from tests.doubles import slow_but
from tests.models.towers import IMAGE, drawn, run

TEXT = {'vocabulary': 32, 'length': 6, 'width': 16, 'layers': 1, 'heads': 2}
IMAGE = {**IMAGE, 'layers': 0}
TOWERS = ('roberta', 'nllb')
# A start token, words, an end token, and padding.
TOKENS = np.array([[0, 9, 7, 2, 1, 1], [0, 5, 6, 8, 9, 2], [0, 4, 2, 1, 1, 1]], np.int32)


def clip_of(tower, dtype='float32', **text):
  projection = text.pop('text_projection', 'linear')
  fields = {'image': IMAGE, 'text': {**TEXT, 'tower': tower, **text}}
  return define('clip', embed=12, text_projection=projection, dtype=dtype, **fields)


@functools.cache
def parameters(tower, **text):
  return drawn(clip_of(tower, **text))


def encode(model, parameters, tokens, **keys):
  return run(model.bind(parameters).text, tokens, **keys)


def test_positions_count_what_is_no_padding():
  tokens = np.array([[0, 5, 1, 7, 2, 1], [1, 1, 0, 2, 1, 1]])
  count = jax.jit(positions_of, static_argnums=1)
  written, positions = count(tokens, 1)
  np.testing.assert_array_equal(written, tokens != 1)
  np.testing.assert_array_equal(positions, [[2, 3, 1, 4, 5, 1], [1, 1, 2, 3, 1, 1]])
  np.testing.assert_array_equal(count(np.array([[3, 4, 0]]), 0)[1], [[1, 2, 0]])


@pytest.mark.parametrize('tower', TOWERS)
def test_padding_changes_nothing(tower):
  before, states = encode(clip_of(tower), parameters(tower), TOKENS)
  text = dict(parameters(tower)['text'])
  text['embed'] = {'embedding': np.array(text['embed']['embedding'])}
  text['embed']['embedding'][1] = 7.0
  if 'positions' in text:
    text['positions'] = np.pad(text['positions'], ((0, 3), (0, 0)))
    text['positions'][1] = 5.0
  padded = np.pad(TOKENS, ((0, 0), (0, 3)), constant_values=1)
  changed = {**parameters(tower), 'text': text}
  after, longer = encode(clip_of(tower, length=9), changed, padded)
  np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
  written = TOKENS != 1
  np.testing.assert_allclose(longer[:, :6][written], states[written], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('tower', TOWERS)
def test_every_token_sees_later_ones(tower):
  changed = TOKENS.copy()
  changed[1, 4] = 11
  before, after = (
    np.asarray(encode(clip_of(tower), parameters(tower), each)[1]) for each in (TOKENS, changed)
  )
  assert np.abs(before - after)[1].max(axis=-1).min() > 1e-4
  np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])


@pytest.mark.parametrize(
  ('tower', 'pooling'),
  [('roberta', 'mean'), ('roberta', 'class'), ('nllb', 'mean'), ('nllb', 'class')],
)
def test_pooling_takes_the_states_that_it_names(tower, pooling):
  pooled, states = encode(clip_of(tower, pooling=pooling), parameters(tower), TOKENS)
  mean = np.stack([x[row != 1].mean(0) for x, row in zip(states, TOKENS, strict=True)])
  expected = {'mean': mean, 'class': states[:, 0]}[pooling]
  np.testing.assert_allclose(pooled, expected, rtol=1e-4, atol=1e-5)


def test_berts_pooler_is_a_tanh_layer_over_the_first_token():
  model = clip_of('roberta', pooling='pooler')
  pooled, states = encode(model, values := drawn(model), TOKENS)
  layer = values['text']['pooler']
  expected = np.tanh(np.float64(states[:, 0]) @ layer['kernel'] + layer['bias'])
  np.testing.assert_allclose(pooled, expected, rtol=1e-4, atol=1e-5)


def normalized(x, norm, epsilon=1e-5):
  centered = x - x.mean(-1, keepdims=True)
  scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + epsilon)
  return scaled * norm['scale'] + norm['bias']


def test_norms_follow_the_sums():
  values = jax.device_get(parameters('roberta')['text'])
  block = clip_of('roberta').bind(parameters('roberta')).text.transformer.blocks[0]
  x = np.random.default_rng(0).normal(size=(2, 6, 16)).astype(np.float32)
  weights = values['transformer']['blocks'][0]
  attended = normalized(np.float64(x + run(block.attention, x)), weights['attention_norm'])
  hidden = np.float64(run(block.mlp, np.float32(attended)))
  expected = normalized(attended + hidden, weights['mlp_norm'])
  np.testing.assert_allclose(run(block, x), expected, rtol=1e-4, atol=1e-4)


def test_embeddings_are_summed_and_normalized():
  model = clip_of('roberta', layers=0)
  _, states = encode(model, drawn(model), TOKENS)
  values = jax.device_get(drawn(model)['text'])
  x = np.float64(values['embed']['embedding'])[TOKENS] + values['token_type']
  x += values['positions'][np.where(TOKENS == 1, 1, 2 + np.arange(6))]
  expected = normalized(x, values['embed_norm'])
  np.testing.assert_allclose(states, expected, rtol=1e-4, atol=1e-4)


def test_nllbs_positions_are_sines_and_cosines():
  found = jax.jit(sinusoids, static_argnums=1)(np.array([[2, 3]]), 8)
  rates = [10_000 ** (-i / 3) for i in range(4)]
  for position, row in zip((2, 3), found[0], strict=True):
    angles = [position * rate for rate in rates]
    expected = [*map(math.sin, angles), *map(math.cos, angles)]
    np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('tower', slow_but(TOWERS, 'roberta'))
def test_scanned_and_rematerialized_layers_compute_the_same(tower):
  def value_and_gradient(model, parameters):
    loss = lambda p: jnp.sum(model.bind(p).text(TOKENS)[0] ** 3)  # noqa: E731
    return jax.device_get(jax.jit(jax.value_and_grad(loss))(parameters))

  values = jax.device_get(parameters(tower, layers=2))
  layers = [values['text']['transformer']['blocks'][i] for i in range(2)]
  stacked = jax.tree.map(lambda *each: np.stack(each), *layers)
  scanned = {**values['text'], 'transformer': {'blocks': stacked}}
  loss, gradient = value_and_gradient(clip_of(tower, layers=2), values)
  again, others = value_and_gradient(
    clip_of(tower, layers=2, scan=True, remat='full'), {**values, 'text': scanned}
  )
  np.testing.assert_allclose(loss, again, rtol=1e-4)
  blocks = gradient['text']['transformer']['blocks']
  expected = jax.tree.map(lambda *each: np.stack(each), *(blocks[i] for i in range(2)))
  found = others['text']['transformer']['blocks']
  chex.assert_trees_all_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('tower', TOWERS)
def test_shapes_and_dtype_in_bfloat16(tower):
  model = clip_of(tower, dtype='bfloat16')
  call = lambda p: model.bind(p).text(TOKENS)  # noqa: E731
  pooled, states = jax.eval_shape(call, parameters(tower))
  assert pooled.shape == (3, 16) and states.shape == (3, 6, 16)
  assert pooled.dtype == states.dtype == jnp.bfloat16


def test_dropout_needs_keys():
  model = clip_of('roberta', dropout=0.5)
  plain = encode(model, parameters('roberta'), TOKENS)[0]
  keys = jax.random.split(jax.random.key(0, impl='unsafe_rbg'), 3)
  dropped = encode(model, parameters('roberta'), TOKENS, keys=keys)[0]
  np.testing.assert_array_equal(plain, encode(clip_of('roberta'), parameters('roberta'), TOKENS)[0])
  assert np.abs(plain - dropped).max() > 1e-2


def test_an_mlp_without_biases_may_project():
  model = clip_of('roberta', text_projection='mlp_mean')
  shapes = model.shapes['text_projection']
  assert shapes['up']['kernel'].shape == (16, 14) and shapes['down']['kernel'].shape == (14, 12)
  assert 'bias' not in shapes['up'] and 'bias' not in shapes['down']


@pytest.mark.parametrize(
  ('tower', 'text', 'message'),
  [
    ('roberta', {'positions': 7}, r'text\.positions = 7 .* use 8 or more, or a length up to 5'),
    ('roberta', {'pooling': 'end'}, r"text\.pooling = 'end' is unknown; use one of \['class'"),
    ('roberta', {'causal': False}, r'config\.model\.text\.causal: RobertaTower takes none'),
    ('nllb', {'pooling': 'pooler'}, r"text\.pooling = 'pooler' is unknown"),
    ('nllb', {'width': 15, 'heads': 3}, r'text\.width = 15; sinusoidal positions need an even'),
  ],
)
def test_fields_that_do_not_fit_are_refused(tower, text, message):
  with pytest.raises(ValueError, match=message):
    clip_of(tower, **text)


@pytest.mark.parametrize('tower', TOWERS)
def test_tokens_of_another_length_are_refused(tower):
  with pytest.raises(ValueError, match=r'tokens have shape \(3, 5\); the model takes \[B, 6\]'):
    clip_of(tower).bind(parameters(tower)).text(TOKENS[:, :5])


@pytest.mark.parametrize('tower', TOWERS)
def test_a_captioner_needs_a_causal_tower(tower):
  fields = {'image': IMAGE, 'text': {**TEXT, 'tower': tower}, 'decoder': {'layers': 1, 'heads': 2}}
  with pytest.raises(ValueError, match=rf"text\.tower = '{tower}' sees the tokens"):
    define('coca', embed=12, queries=4, pooler_heads=2, **fields)
