"""Options of the layers and the image tower: what each one is, and that its default is nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrastive_jax.models.attention import Attention
from contrastive_jax.models.dropout import Drop
from contrastive_jax.models.image import ImageTower
from contrastive_jax.models.rope import rotate, rotation
from contrastive_jax.models.stem import NestedStem
from contrastive_jax.models.transformer import Block, Mlp, Transformer, layer_norm
from tests.models.towers import IMAGE, batch_of, drawn, made, run, tiny

D, H, B, L = 8, 2, 3, 5
X = np.random.default_rng(0).normal(size=(B, L, D)).astype(np.float32)


def block(**fields):
  return made(Block, D, H, 16, **fields)


def keys(number, seed=0):
  return jax.random.split(jax.random.key(seed, impl='unsafe_rbg'), number)


def close(ours, theirs, atol=1e-5):
  np.testing.assert_allclose(ours, theirs, atol=atol)


rotated = jax.jit(rotate)


@pytest.mark.parametrize('order', ['yx', 'xy'])
@pytest.mark.parametrize(('reference', 'offset'), [(None, 0.0), (3, 1.0)])
def test_rotary_scores_depend_on_the_difference_of_positions(order, reference, offset):
  grid, width = 4, 8
  random = np.random.default_rng(1)
  query, key = (np.tile(random.normal(size=width), (1, grid**2, 1, 1)) for _ in range(2))
  angles = rotation(grid, width, order, reference, offset)
  query, key = (np.asarray(rotated(np.float32(a), angles))[0, :, 0] for a in (query, key))
  scores = (query @ key.T).reshape(grid, grid, grid, grid)
  close(scores[1:, 1:, 1:, 1:], scores[:-1, :-1, :-1, :-1], 1e-4)
  assert abs(scores[0, 0, 0, 1] - scores[0, 0, 1, 0]) > 1e-2
  # The offset moves all positions alike.
  moved = rotation(grid, width, order, reference, offset + 2.0)
  key = np.asarray(rotated(np.float32(np.tile(key[0], (1, 1, 1, 1))), moved[:, :1]))
  assert key.shape == (1, 1, 1, width)


def test_rotary_positions_scale_to_the_reference_and_leave_the_prefix():
  small, large = rotation(4, 8, 'yx', 4), rotation(8, 8, 'yx', 4)
  close(large.reshape(2, 8, 8, 8)[:, ::2, ::2], small.reshape(2, 4, 4, 8))
  with_prefix = rotation(4, 8, 'yx', 4, 0.0, 2)
  close(with_prefix[:, 2:], small)
  x = X[:, :2].reshape(B, 2, 1, 8)
  np.testing.assert_array_equal(rotated(x, with_prefix[:, :2]), x)
  swapped = rotation(4, 8, 'xy').reshape(2, 4, 4, 8).swapaxes(1, 2)
  close(swapped, rotation(4, 8, 'yx').reshape(2, 4, 4, 8))
  with pytest.raises(ValueError, match='multiple of 4, and it is 6'):
    rotation(4, 6)


def test_a_layer_scale_of_one_is_identity_and_of_zero_no_layer():
  np.testing.assert_array_equal(run(block(layer_scale=1.0), X), run(block(), X))
  np.testing.assert_array_equal(run(block(layer_scale=0.0), X), X)


def test_normalized_queries_and_keys_have_no_size():
  norm = lambda width: made(layer_norm, width, epsilon=1e-9)  # noqa: E731
  attention = made(Attention, D, H, qk_norm=norm)
  before = run(attention, X)
  for part in (attention.query, attention.key_value):
    scale = np.ones_like(part.kernel[...])
    scale[..., 0, :, :] = 7 if part is attention.key_value else 1
    part.kernel[...] = np.asarray(part.kernel[...]) * (scale if part is attention.key_value else 7)
  close(run(attention, X), before, 1e-4)
  plain = made(Attention, D, H)
  before = run(plain, X)
  plain.query.kernel[...] = np.asarray(plain.query.kernel[...]) * 7
  assert np.abs(run(plain, X) - before).max() > 1e-3


def test_attention_without_biases_is_attention_with_zeros():
  full = made(Attention, D, H)
  random = np.random.default_rng(2)
  full.query.bias[...], values = np.float32(random.normal(size=(2, H, D // H)))
  full.key_value.bias[...] = np.stack([np.zeros_like(values), values])
  part = made(Attention, D, H, bias='query_value')
  part.query.bias[...], part.value.bias[...] = full.query.bias[...], values
  close(run(part, X), run(full, X))
  graphs = [nnx.split(a) for a in (part, full)]
  stepped = jax.jit(
    lambda states: [
      a.step(X[:, :1], a.empty_cache(B, 1, L), None, 0)[0]
      for a in (nnx.merge(graph, state) for (graph, _), state in zip(graphs, states, strict=True))
    ]
  )
  close(*stepped([state for _, state in graphs]))
  none, zeros = made(Attention, D, H, bias='none'), made(Attention, D, H)
  assert none.query.bias is None and none.key_value.bias is None
  close(run(none, X), run(zeros, X))
  with pytest.raises(ValueError, match=r"attention_bias = 'key'"):
    made(Attention, D, H, bias='key')


def test_swiglu_multiplies_by_a_gate():
  mlp = made(Mlp, D, 16, kind='swiglu', inner_norm=lambda width: made(layer_norm, width))
  gate, up, down = (np.asarray(part.kernel[...]) for part in (mlp.gate, mlp.up, mlp.down))
  gate, up = X @ gate, X @ up
  hidden = gate / (1 + np.exp(-gate)) * up
  hidden = (hidden - hidden.mean(-1, keepdims=True)) / np.sqrt(hidden.var(-1, keepdims=True) + 1e-5)
  close(run(mlp, X), hidden @ down)
  with pytest.raises(ValueError, match="mlp = 'novelty'"):
    made(Mlp, D, 16, kind='novelty')


def test_inner_norms_undo_a_change_of_size():
  for options in ({'attention_inner_norm': True}, {'mlp_inner_norm': True, 'activation': 'gelu'}):
    layer = block(**options, epsilon=1e-9)
    if 'mlp_inner_norm' in options:
      assert layer.mlp.inner_norm.scale[...].shape == (16,)
      continue
    before = run(layer, X)
    kernel = np.array(layer.attention.key_value.kernel[...])
    kernel[:, 1] *= 7
    layer.attention.key_value.kernel[...] = kernel
    close(run(layer, X), before, 1e-4)


def test_post_norm_normalizes_what_a_branch_adds():
  layer = block(post_norm=True)
  x = X + run(layer.attention_norm, run(layer.attention, X))
  close(run(layer, X), x + run(layer.mlp_norm, run(layer.mlp, x)))


def test_stochastic_depth_keeps_the_expectation_and_drops_whole_branches():
  x = np.ones((2000, 2, 3), np.float32)
  drop = jax.jit(lambda keys, x, *rates: Drop(keys, *rates)(x, 0), static_argnums=(2, 3))
  dropped = np.asarray(drop(keys(2000), x, 0.0, 0.25))
  rows = dropped.reshape(2000, -1)
  assert np.unique(rows).round(4).tolist() == pytest.approx([0.0, 1.3333])
  assert (rows == rows[:, :1]).all() and abs(rows[:, 0].mean() - 1) < 0.05
  units = np.asarray(drop(keys(2000), x, 0.5, 0.0))
  assert set(np.unique(units)) == {0.0, 2.0} and abs(units.mean() - 1) < 0.05
  assert (units.reshape(2000, -1).std(axis=1) > 0).any()
  np.testing.assert_array_equal(drop(keys(2000), x, 0.0, 0.0), x)


def stack(layers=3, **fields):
  return made(Transformer, D, layers, H, **fields)


def test_without_keys_or_rates_nothing_is_dropped():
  plain = run(stack(2), X)
  for layers in (stack(2, drop_path=0.9), stack(2, dropout=0.5)):
    np.testing.assert_array_equal(run(layers, X), plain)
    assert np.abs(run(layers, X, keys=keys(B)) - plain).max() > 1e-3
  np.testing.assert_array_equal(run(stack(2), X, keys=keys(B)), plain)
  with pytest.raises(ValueError, match=r'drop_path = 1\.0'):
    stack(drop_path=1.0)


def test_scanned_and_rematerialized_layers_drop_the_same():
  options = {'drop_path': 0.5, 'dropout': 0.25, 'layer_scale': 0.5, 'qk_norm': True}
  options |= {'mlp': 'swiglu', 'attention_bias': 'query_value', 'post_norm': True}
  plain, scanned = stack(**options), stack(**options, scan=True, remat='full')
  stacked = jax.tree.map(
    lambda *leaves: np.stack(leaves), *[nnx.state(layer, nnx.Param) for layer in plain.blocks]
  )
  nnx.update(scanned.blocks, stacked)
  graph, state = nnx.split(scanned)
  found = jax.jit(lambda state, keys: nnx.merge(graph, state)(X, keys=keys))(state, keys(B))
  close(found, run(plain, X, keys=keys(B)))


def test_the_first_layer_is_never_dropped():
  layers = stack(2, drop_path=0.99)
  first = run(layers.blocks[0], X)
  outputs = [run(layers, X, keys=keys(B, seed)) for seed in range(3)]
  assert any(np.allclose(output, first, atol=1e-5) for output in outputs)


def tower(**fields):
  return made(ImageTower, **{**IMAGE, 'layers': 1, **fields})


IMAGES = batch_of()[0]


def test_the_mean_of_patches_leaves_out_the_class_token():
  mean, pooled = run(tower(pooling='patch_mean', class_token=True), IMAGES)
  assert pooled.shape == (4, 4, 16)
  close(mean, pooled.mean(axis=1))
  layers = tower(pooling='patch_mean', class_token=True, final_norm='pooled')
  vector, tokens = run(layers, IMAGES)
  close(vector.mean(axis=1), np.zeros(4))
  assert np.abs(np.asarray(tokens).mean(axis=-1)).max() > 1e-3
  plain = run(tower(pooling='mean'), IMAGES)[0]
  np.testing.assert_array_equal(run(tower(pooling='patch_mean'), IMAGES)[0], plain)


def test_a_class_token_without_position_leaves_those_of_patches():
  layers = tower(class_position=False)
  assert layers.positions[...].shape == (4, 16)
  other = tower()
  assert other.positions[...].shape == (5, 16)
  other.positions[...] = np.pad(layers.positions[...], ((1, 0), (0, 0)))
  other.class_token[...] = layers.class_token[...]
  close(run(other, IMAGES)[0], run(layers, IMAGES)[0])


@pytest.mark.parametrize('pooling', ['class', 'mean', 'patch_mean', 'attention', 'none'])
def test_layers_alone_read_registers(pooling):
  layers = tower(pooling=pooling, registers=3, rope='yx', heads=2, layers=0)
  without = tower(pooling=pooling, rope='yx', heads=2, layers=0)
  assert layers.registers[...].shape == (3, 16)
  before, expected = run(layers, IMAGES), run(without, IMAGES)
  for found, other in zip(before, expected, strict=True):
    assert (found is None) == (other is None)
    assert found is None or found.shape == other.shape
  layers.registers[...] *= -1
  jax.tree.map(np.testing.assert_array_equal, run(layers, IMAGES), before)
  layers = tower(pooling=pooling, registers=3, rope='yx', heads=2)
  before = run(layers, IMAGES)[1]
  layers.registers[...] *= -1
  assert np.abs(run(layers, IMAGES)[1] - before).max() > 1e-3


def test_pixels_beyond_the_last_patch_are_ignored():
  images = np.random.default_rng(3).normal(size=(2, 10, 10, 3)).astype(np.float32)
  layers = tower(size=10, drop_remainder=True)
  vector = run(layers, images)[0]
  images[:, 8:], images[:, :, 8:] = 9.0, 9.0
  np.testing.assert_array_equal(run(layers, images)[0], vector)
  with pytest.raises(ValueError, match='not a multiple'):
    tower(size=10)


def test_rotary_patches_that_are_dropped_keep_their_positions():
  fields = {'class_token': True, 'registers': 2, 'pooling': 'attention'}
  layers = tower(rope='yx', patch_dropout=0.5, heads=2, **fields)
  layers.positions[...] = jnp.zeros_like(layers.positions[...])
  seen = run(layers, IMAGES, keys=keys(4))[1]
  assert seen.shape == (4, 3, 16)
  same = np.tile(IMAGES[:1], (4, 1, 1, 1))
  tokens = run(layers, same, keys=keys(4))[1][:, 0]
  assert np.abs(tokens - tokens[0]).max() > 1e-4


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'rope': 'zx'}, r"image\.rope = 'zx'"),
    ({'rope_grid': 4}, r'image\.rope_grid = 4'),
    ({'registers': -1}, r'image\.registers = -1'),
    ({'pool_heads': 4}, r'image\.pool_heads = 4'),
    ({'final_norm': 'none'}, r"image\.final_norm = 'none'"),
    ({'stem': 'nested', 'patch': 4}, r'image\.patch = 4'),
    ({'mlp': 'novelty'}, "mlp = 'novelty'"),
    ({'tower': 'novelty'}, r"image\.tower = 'novelty'"),
    ({'novelty': 1}, r'config\.model\.image\.novelty: ImageTower takes none'),
  ],
)
def test_options_that_do_not_fit_are_named(fields, message):
  with pytest.raises(ValueError, match=message):
    tiny(image=fields)


def test_nested_patches_are_patches():
  stem = made(NestedStem, 8, 16)
  images = np.random.default_rng(4).normal(size=(2, 16, 16, 3)).astype(np.float32)
  tokens = run(stem, images)
  assert tokens.shape == (2, 4, 16)
  # Each token sees its patch alone.
  images[:, 8:] = 0.0
  changed = run(stem, images)
  np.testing.assert_array_equal(changed[:, :2], tokens[:, :2])
  assert np.abs(changed[:, 2:] - tokens[:, 2:]).max() > 1e-3


def test_towers_drop_in_training_only():
  definition = tiny(image={'dropout': 0.5, 'layers': 1}, text={'drop_path': 0.9})
  bound = definition.bind(drawn(definition))
  images, tokens = batch_of()
  evaluated, trained = run(bound, images, tokens), run(bound, images, tokens, keys=keys(4))
  assert np.abs(evaluated.image - trained.image).max() > 1e-3
  assert np.abs(evaluated.text - trained.text).max() > 1e-3
  close(run(bound, images, tokens).image, evaluated.image, 0)
