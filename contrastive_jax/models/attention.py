"""Multi-head attention, by XLA or by a fused kernel that never stores the scores [B, H, L, M].

Letters: B batch, L queries, M keys and values, H heads.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.experimental.pallas.ops.tpu.splash_attention import (
  splash_attention_kernel,
  splash_attention_mask,
)

from contrastive_jax.models.linear import Linear, matmul_precision
from contrastive_jax.models.rope import rotate
from contrastive_jax.sharding.mesh import BATCH_AXES, batch_shards

# Values of config.model.attention.
ATTENTIONS = ('auto', 'xla', 'cudnn', 'splash')
# Values of attention_bias: which projections have one.
BIASES = ('all', 'query_value', 'none')

# Splash attention takes lengths that are multiples of the lanes of a TPU's vector register. 'auto'
# selects it where padding multiplies the number of scores by at most _MAX_PADDING.
_LANES = 128
_MAX_PADDING = 1.5
_MAX_BLOCK = 1024  # queries, and keys, whose scores are held in VMEM


def select(name: str, platform: str, query, key, mask=None) -> str:
  """Selects the implementation of attention.

  Args:
    name: one of `ATTENTIONS`. 'auto' selects a kernel in bfloat16 only: 'cudnn' on NVIDIA GPUs,
      'splash' on TPUs unless padding the lengths wastes more than a third of its scores. On other
      platforms than TPUs 'splash' runs in Pallas' interpreter, slowly, for tests.
    platform: 'cuda', 'tpu' or another one.
    query: array or `ShapeDtypeStruct` [B, L, H, D].
    key: likewise, [B, M, H, D].
    mask: likewise, [B or 1, 1, L or 1, M]; None for no mask.

  Returns:
    'xla', 'cudnn' or 'splash'. It is 'xla' where the kernel does not take the shapes: for one query
    per example, and for 'splash' if the mask differs between queries.

  Raises:
    ValueError: if cuDNN is asked for without an NVIDIA GPU.
  """
  if name == 'cudnn' and platform != 'cuda':
    raise ValueError(
      f"config.model.attention = 'cudnn' needs an NVIDIA GPU, and the platform is {platform!r}; "
      "use 'auto'"
    )
  (_, L, _, D), M = query.shape, key.shape[1]
  takes = {
    'cudnn': query.dtype in (jnp.bfloat16, jnp.float16) and D <= 128 and D % 8 == 0,
    'splash': D <= _LANES and (mask is None or mask.shape[2] == 1),
  }
  if name == 'auto':
    name = {'cuda': 'cudnn', 'tpu': 'splash'}.get(platform, 'xla')
    padded = _padded(L) * _padded(M)
    takes['splash'] &= query.dtype == jnp.bfloat16 and padded <= _MAX_PADDING * L * M
  return name if L > 1 and takes.get(name) else 'xla'


def attend(query, key, value, *, mask=None, causal=False, implementation='auto') -> jax.Array:
  """Attends from queries to keys: softmax(query keyᵀ / √D) value.

  On a mesh the kernels run per device, on its examples and heads.

  Args:
    query: [B, L, H, D].
    key: [B, M, H, D].
    value: [B, M, H, D].
    mask: [B or 1, 1, L or 1, M], true where a query may attend; None for all.
    causal: whether query i attends to keys up to i only; needs L = M.
    implementation: one of `ATTENTIONS`, see `select`.

  Returns:
    [B, L, H, D] in the dtype of the query.

  Raises:
    ValueError: see `select`.
  """
  mesh = jax.sharding.get_abstract_mesh()
  name = select(implementation, _platform(mesh), query, key, mask)
  kernel = partial(_KERNELS[name], causal=causal)
  if name == 'xla' or mesh.empty:
    return kernel(query, key, value, mask)
  if query.shape[0] % batch_shards(mesh):
    return _xla(query, key, value, mask, causal=causal)
  heads = 'tensor' if query.shape[2] % mesh.shape['tensor'] == 0 else None
  sharded = jax.P(BATCH_AXES, None, heads)
  of_mask = jax.P(BATCH_AXES if mask is not None and len(mask) > 1 else None)
  # Kernels are opaque to the partitioner.
  return jax.shard_map(
    kernel, in_specs=(sharded, sharded, sharded, of_mask), out_specs=sharded, check_vma=False
  )(query, key, value, mask)


def _platform(mesh) -> str:
  """Returns the platform that the program is compiled for."""
  device = jax.devices()[0] if mesh.abstract_device is None else mesh.abstract_device
  return 'cuda' if 'nvidia' in device.device_kind.lower() else device.platform


def _xla(query, key, value, mask, *, causal):
  with jax.default_matmul_precision(matmul_precision(query.dtype)):
    return jax.nn.dot_product_attention(query, key, value, mask=mask, is_causal=causal)


_fused = partial(jax.nn.dot_product_attention, implementation='cudnn')


def _cudnn(query, key, value, mask, *, causal):
  if mask is None:
    return _fused(query, key, value, is_causal=causal)
  # With a mask cuDNN takes the gradient for even lengths only.
  (_, L, _, _), M = query.shape, key.shape[1]
  query, key, value = (_pad(a, a.shape[1] % 2) for a in (query, key, value))
  mask = jnp.broadcast_to(mask, (*mask.shape[:2], L, M))
  mask = jnp.pad(mask, ((0, 0), (0, 0), (0, L % 2), (0, M % 2)))
  return _fused(query, key, value, mask=mask, is_causal=causal)[:, :L]


def _splash(query, key, value, mask, *, causal):
  (_, L, H, D), M = query.shape, key.shape[1]
  queries, keys = _padded(L), _padded(M)
  to_kernel = lambda a, length: _pad(a, length - a.shape[1]).swapaxes(1, 2)  # noqa: E731
  heads_first = (
    to_kernel(query * jnp.asarray(D**-0.5, query.dtype), queries),
    to_kernel(key, keys),
    to_kernel(value, keys),
  )
  segments, batched = None, None
  if mask is not None or keys > M:
    # Queries and keys of one segment attend to each other: masked keys have another segment.
    visible = jnp.arange(keys) < M
    if mask is not None:
      visible &= jnp.pad(mask[:, 0, 0], ((0, 0), (0, keys - M)))
      visible = jnp.broadcast_to(visible, (len(query), keys))
    segments = splash_attention_kernel.SegmentIds(
      jnp.ones(queries, jnp.int32), visible.astype(jnp.int32)
    )
    batched = splash_attention_kernel.SegmentIds(None, None if mask is None else 0)
  attend = jax.vmap(_splash_kernel(H, queries, keys, causal), in_axes=(0, 0, 0, batched))
  return attend(*heads_first, segments).swapaxes(1, 2)[:, :L]


def _splash_kernel(H: int, queries: int, keys: int, causal: bool) -> Callable:
  """Returns splash attention of one example, [H, queries, D] to [H, keys, D]."""
  kind = splash_attention_mask.CausalMask if causal else splash_attention_mask.FullMask
  mask = splash_attention_mask.MultiHeadMask([kind((queries, keys))] * H)
  of_queries, of_keys = _block(queries), _block(keys)
  # Heads are narrower than a register: with the sequence along its lanes none are wasted.
  layout = splash_attention_kernel.QKVLayout.SEQ_MINOR
  blocks = splash_attention_kernel.BlockSizes(
    block_q=of_queries,
    block_kv=of_keys,
    block_q_dkv=of_queries,
    block_kv_dkv=of_keys,
    use_fused_bwd_kernel=True,
    k_layout=layout,
    v_layout=layout,
  )
  return splash_attention_kernel.make_splash_mha(
    mask,
    block_sizes=blocks,
    head_shards=1,
    q_seq_shards=1,
    interpret=_platform(jax.sharding.get_abstract_mesh()) != 'tpu',
  )


def _padded(length: int) -> int:
  """Returns a length that splash attention takes."""
  return -(-length // _LANES) * _LANES


def _block(length: int) -> int:
  """Returns the largest block that divides a padded length."""
  sizes = range(_LANES, min(length, _MAX_BLOCK) + 1, _LANES)
  return max(size for size in sizes if length % size == 0)


def _pad(array, missing: int):
  """Pads [B, L, H, D] with zeros along L."""
  return jnp.pad(array, ((0, 0), (0, missing), (0, 0), (0, 0))) if missing else array


_KERNELS: dict[str, Callable] = {'xla': _xla, 'cudnn': _cudnn, 'splash': _splash}


class Bias(nnx.Module):
  """A learned bias of trailing axes, added in float32."""

  def __init__(self, shape, axes):
    self.bias = nnx.Param(jnp.zeros(shape), axes=axes)

  def __call__(self, x):
    """Maps x [..., *shape] to the same shape and dtype."""
    return (x.astype(jnp.float32) + self.bias[...]).astype(x.dtype)


class Attention(nnx.Module):
  """Multi-head attention of x [B, L, D] over itself or over a context [B, M, C]."""

  def __init__(
    self,
    width,
    heads,
    *,
    head_width=None,
    context_width=None,
    depth=1,
    implementation='auto',
    bias='all',
    qk_norm=None,
    inner_norm=None,
    dtype,
    rngs,
  ):
    """Builds the projections.

    Args:
      width: D.
      heads: number of heads, H.
      head_width: E, width of a head; default D / H.
      context_width: C; default D.
      depth: number of residual layers, which scales the initialization of the output.
      implementation: see `select`.
      bias: projections with a bias, one of `BIASES`; the output always has one.
      qk_norm: makes the norms of queries and keys, each over a head, from E; None for none.
      inner_norm: makes the norm of the attended values, over all heads, from H E; None for none.
      dtype: dtype of the activations.
      rngs: initializes the parameters.
    """
    if head_width is None and width % heads:
      raise ValueError(f'width = {width} does not divide over heads = {heads}')
    if implementation not in ATTENTIONS:
      raise ValueError(
        f'config.model.attention = {implementation!r} is unknown; use one of {ATTENTIONS}'
      )
    if bias not in BIASES:
      raise ValueError(f'attention_bias = {bias!r} is unknown; use one of {BIASES}')
    self.implementation = implementation
    context_width = context_width or width
    shape = (heads, head_width or width // heads)
    axes = ('heads', None)
    make = partial(Linear, dtype=dtype, rngs=rngs)
    self.query = make(width, shape, ('embed', *axes), width**-0.5, bias=bias != 'none')
    self.key_value = make(
      context_width, (2, *shape), ('embed', None, *axes), context_width**-0.5, bias=bias == 'all'
    )
    self.out = make(shape, width, (*axes, 'embed'), (math.prod(shape) * 2 * depth) ** -0.5)
    self.value = Bias(shape, axes) if bias == 'query_value' else None
    self.query_norm = None if qk_norm is None else qk_norm(shape[1])
    self.key_norm = None if qk_norm is None else qk_norm(shape[1])
    self.inner_norm = None if inner_norm is None else inner_norm(math.prod(shape))

  def __call__(self, x, context=None, *, mask=None, causal=False, rotation=None):
    """Attends from x to itself or to the context.

    Args:
      x: [B, L, D].
      context: [B, M, C] or None.
      mask: [B, 1, L, M], true where a query may attend; None for all.
      causal: whether query i attends to keys up to i only.
      rotation: [2, L, E] or [2, B, L, E], rotates queries and keys of self-attention, see `rope`.

    Returns:
      [B, L, D].
    """
    key, value = self._key_value(x if context is None else context)
    if rotation is not None:
      key = rotate(key, rotation)
    return self._attend(x, key, value, rotation, mask=mask, causal=causal)

  def project(self, context):
    """Returns keys and values of a context [..., M, C], each [..., H, M, D / H].

    Heads come first, so that attending from one position needs no transpose.
    """
    return tuple(part.swapaxes(-3, -2) for part in self._key_value(context))

  def attend(self, x, projected, *, mask=None):
    """Returns [B, L, D], given the keys and values from `project`."""
    key, value = (part.swapaxes(1, 2) for part in projected)
    return self._attend(x, key, value, mask=mask)

  def empty_cache(self, B, K, L):
    """Returns an empty cache for `step`: keys and values, each [B, K, H, L, D / H]."""
    _, H, width = self.key_value.outputs
    return (jnp.zeros((B, K, H, L, width), self.key_value.dtype),) * 2

  def step(self, x, cache, parents, position):
    """Computes one position of causal self-attention.

    Args:
      x: [B, K, D], the position in K texts each.
      cache: from `empty_cache` or the previous step.
      parents: [B, K] integers, the cached text that each text continues.
      position: scalar integer.

    Returns:
      [B, K, D], and the cache including this position.
    """

    def write(old, new):
      if x.shape[1] > 1:
        old = jnp.take_along_axis(old, parents[..., None, None, None], axis=1)
      return jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=3)

    cache = jax.tree.map(write, cache, self.project(x[:, :, None]))
    texts = jax.tree.map(lambda part: part.reshape(-1, *part.shape[2:]), cache)
    written = (jnp.arange(texts[0].shape[2]) <= position)[None, None, None]
    attended = self.attend(x.reshape(-1, 1, x.shape[-1]), texts, mask=written)
    return attended.reshape(x.shape), cache

  def _key_value(self, context):
    key_value = self.key_value(context)
    key, value = key_value[..., 0, :, :], key_value[..., 1, :, :]
    key = key if self.key_norm is None else self.key_norm(key)
    return key, value if self.value is None else self.value(value)

  def _attend(self, x, key, value, rotation=None, **masks):
    query = self.query(x)
    query = query if self.query_norm is None else self.query_norm(query)
    query = query if rotation is None else rotate(query, rotation)
    attended = attend(query, key, value, implementation=self.implementation, **masks)
    if self.inner_norm is not None:
      joined = attended.reshape(*attended.shape[:-2], -1)
      attended = self.inner_norm(joined).reshape(attended.shape)
    return self.out(attended)
