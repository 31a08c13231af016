"""Fused attention is XLA's; it is selected by platform, dtype and shape."""

import functools

import jax
import numpy as np
import pytest
from flax import nnx

from contrastive_jax.models import attention
from contrastive_jax.models.clip import Clip
from contrastive_jax.models.definition import define
from contrastive_jax.sharding.mesh import batch_sharding, make_mesh, on_mesh
from tests.doubles import slow_but

B, H, D = 8, 2, 8


def shape(L, *, heads=H, width=D, dtype='bfloat16'):
  return jax.ShapeDtypeStruct((B, L, heads, width), dtype)


BY_KEYS, BY_PAIRS = (jax.ShapeDtypeStruct((B, 1, L, 577), bool) for L in (1, 577))


@pytest.mark.parametrize(
  ('chosen', 'name', 'platform', 'query', 'keys', 'mask'),
  [
    ('xla', 'auto', 'cpu', shape(577), 577, None),
    ('cudnn', 'auto', 'cuda', shape(577), 577, None),
    ('cudnn', 'auto', 'cuda', shape(577), 577, BY_PAIRS),
    ('xla', 'auto', 'cuda', shape(577, dtype='float32'), 577, None),
    ('xla', 'auto', 'cuda', shape(577, width=132), 577, None),
    ('xla', 'auto', 'cuda', shape(1), 577, None),
    ('xla', 'auto', 'rocm', shape(577), 577, None),
    ('splash', 'auto', 'tpu', shape(577), 577, None),  # 1.2 times the scores
    ('splash', 'auto', 'tpu', shape(577), 577, BY_KEYS),
    ('xla', 'auto', 'tpu', shape(577), 577, BY_PAIRS),
    ('xla', 'auto', 'tpu', shape(577, dtype='float32'), 577, None),
    ('xla', 'auto', 'tpu', shape(257), 257, None),  # 2.2 times the scores
    ('splash', 'auto', 'tpu', shape(256), 256, None),
    ('splash', 'auto', 'tpu', shape(128), 100, None),  # cross-attention
    ('xla', 'auto', 'tpu', shape(1), 256, None),  # a pooling query
    ('splash', 'splash', 'tpu', shape(257), 257, None),
    ('splash', 'splash', 'cpu', shape(257, dtype='float32'), 257, None),
    ('xla', 'splash', 'tpu', shape(577), 577, BY_PAIRS),
    ('xla', 'splash', 'tpu', shape(577, width=192), 577, None),
    ('xla', 'xla', 'tpu', shape(256), 256, None),
  ],
)
def test_selection(chosen, name, platform, query, keys, mask):
  assert attention.select(name, platform, query, shape(keys), mask) == chosen


def test_mistakes_name_the_field():
  with pytest.raises(ValueError, match=r"config.model.attention = 'flash' is unknown; use one of"):
    define('clip', **TINY, attention='flash')
  with pytest.raises(ValueError, match=r"'cudnn' needs an NVIDIA GPU, and the platform is 'cpu'"):
    attention.select('cudnn', 'cpu', shape(577), shape(577))


def arrays(L, M, dtype='bfloat16'):
  random = np.random.default_rng(0)
  query, key, value, slope = (
    random.normal(size=(B, length, H, D)).astype(dtype) for length in (L, M, M, L)
  )
  masked = random.random((B, 1, 1, M)) < 0.5
  masked[..., 0] = True
  return query, key, value, slope, masked


def value_and_gradients(implementation, query, key, value, slope, mask=None, causal=False):
  def attend(*operands):
    return attention.attend(*operands, mask=mask, causal=causal, implementation=implementation)

  out, pull = jax.vjp(attend, query, key, value)
  assert out.dtype == query.dtype
  return out, *pull(slope)


def assert_close(actual, expected, tolerance=2**-6):
  for a, b in zip(actual, expected, strict=True):
    a, b = (np.asarray(x, np.float32) for x in (a, b))
    assert np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b)


MESHES = 'data:1', 'data:2,fsdp:2,tensor:2'
CALLS = [
  (130, 130, False, False),  # two blocks, padded
  (128, 128, True, False),
  (20, 20, True, True),
  (3, 150, False, False),  # pooling
  (20, 40, False, True),  # cross-attention
]


@pytest.mark.parametrize(
  ('mesh', 'L', 'M', 'causal', 'masked'),
  slow_but(
    [(mesh, *call) for mesh in MESHES for call in CALLS],
    *((MESHES[0], *CALLS[number]) for number in (0, 1, 3)),
    *((MESHES[1], *CALLS[number]) for number in (2, 4)),
  ),
)
def test_splash_is_xla(mesh, L, M, causal, masked):
  query, key, value, slope, mask = arrays(L, M)
  mask = mask if masked else None

  def of(implementation):
    function = functools.partial(value_and_gradients, implementation, causal=causal)
    over = make_mesh(mesh, jax.devices()[: 8 if ',' in mesh else 1])
    return jax.jit(on_mesh(function, over))(
      *jax.device_put((query, key, value, slope, mask), batch_sharding(over))
    )

  assert_close(of('splash'), of('xla'))


@pytest.mark.parametrize(('L', 'M'), slow_but([(20, 20), (21, 21), (20, 21), (21, 20)], (21, 21)))
@pytest.mark.parametrize('masked', [False, True])
def test_cudnn_gets_masks_of_even_lengths(L, M, masked, monkeypatch):
  """cuDNN needs a GPU, so XLA takes the place of the kernel."""
  query, key, value, slope, mask = arrays(L, M, 'float32')

  def fused(query, key, value, mask=None, is_causal=False):
    assert mask is None or {size % 2 for size in mask.shape[2:]} == {0}
    return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=is_causal)

  monkeypatch.setattr(attention, '_fused', fused)
  monkeypatch.setattr(attention, '_platform', lambda mesh: 'cuda')
  monkeypatch.setattr(attention, 'select', lambda name, *shapes: name)
  mask, causal = mask if masked else None, L == M
  actual, expected = (
    jax.jit(functools.partial(value_and_gradients, name, causal=causal))(
      query, key, value, slope, mask
    )
    for name in ('cudnn', 'xla')
  )
  assert_close(actual, expected, 1e-5)


TINY = {
  'embed': 8,
  'image': {'size': 16, 'patch': 4, 'width': 16, 'layers': 1, 'heads': 2, 'pooling': 'attention'},
  'text': {'vocabulary': 32, 'length': 6, 'width': 16, 'layers': 1, 'heads': 2},
}
COCA = {
  **TINY,
  'image': {k: v for k, v in TINY['image'].items() if k != 'pooling'},
  'decoder': {'layers': 1, 'heads': 2},
  'queries': 4,
  'pooler_heads': 2,
}


@pytest.mark.parametrize(('name', 'fields', 'kernels'), [('clip', TINY, 2), ('coca', COCA, 5)])
def test_a_model_passes_its_attention_to_every_block_and_pooler(name, fields, kernels, monkeypatch):
  calls = []

  def splash(query, key, value, mask, *, causal):
    calls.append((query.shape[1], key.shape[1], causal))
    return attention._xla(query, key, value, mask, causal=causal)

  monkeypatch.setitem(attention._KERNELS, 'splash', splash)
  definition = define(name, **fields, attention='splash', dtype='bfloat16')
  batch = {
    'image': jax.ShapeDtypeStruct((2, 16, 16, 3), 'float32'),
    'tokens': jax.ShapeDtypeStruct((2, 6), 'int32'),
  }
  parameters = definition.shapes
  jax.eval_shape(lambda p, batch: definition.bind(p).encode(batch), parameters, batch)
  # Single queries, those of the contrastive pooling, are left to XLA.
  assert len(calls) == kernels, calls


def test_a_tower_may_have_its_own_attention_and_rematerialization():
  fields = {**TINY, 'text': {**TINY['text'], 'attention': 'xla', 'remat': 'full'}}
  module = nnx.eval_shape(
    lambda: Clip(**fields, attention='splash', dtype='bfloat16', rngs=nnx.Rngs(0))
  )
  of = lambda tower: tower.transformer.blocks[0].attention.implementation  # noqa: E731
  assert (of(module.image), of(module.text)) == ('splash', 'xla')
  assert module.image.transformer.remat is None and module.text.transformer.remat is not None
