"""The pre-norm transformer that both towers share.

Every parameter names its logical axes ('embed', 'mlp', 'heads', 'channels', 'vocab', 'layers') in
its metadata `axes`. `sharding.rules` maps them to a mesh.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from contrastive_jax.models.activations import ACTIVATIONS
from contrastive_jax.models.attention import Attention
from contrastive_jax.models.dropout import Drop, fold
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.models.layer_scale import LayerScale
from contrastive_jax.models.linear import Linear
from contrastive_jax.sharding.mesh import constrain_batch

# Options of `jax.checkpoint` by name. 'none' saves all activations of a layer, 'dots' the results
# of matmuls outside of attention, 'full' the layer's input, and 'pairs' that of every second layer
# in a transformer of an even number of layers; of others it is 'full'.
REMATS: dict[str, dict | None] = {
  'none': None,
  'dots': {'policy': jax.checkpoint_policies.dots_with_no_batch_dims_saveable},
  'full': {},
  'pairs': {},
}

MLPS = ('plain', 'swiglu')
# Options of the layers with their defaults: each is a field of config.model.image and
# config.model.text. See `Block` and `Transformer`.
OPTIONS: dict[str, Any] = {
  'layer_scale': None,
  'post_norm': False,
  'qk_norm': False,
  'attention_bias': 'all',
  'attention_inner_norm': False,
  'mlp': 'plain',
  'mlp_inner_norm': False,
  'dropout': 0.0,
  'drop_path': 0.0,
}


def check_options(tower: str, fields: Mapping[str, Any]) -> None:
  """Raises ValueError for a field of a tower, 'image' or 'text', that is none of `OPTIONS`."""
  for name in fields.keys() - OPTIONS.keys():
    raise ValueError(f'config.model.{tower}.{name} is unknown; the options are {[*OPTIONS]}')


def choose(field: str, name: str, choices):
  """Returns `choices[name]`; raises ValueError with the field and the choices."""
  if name not in choices:
    raise ValueError(f'{field} = {name!r} is unknown; use one of {sorted(choices)}')
  return choices[name]


def normal(std: float, *axes: str | None):
  """Returns a Gaussian initializer of a parameter with logical `axes`."""
  return nnx.with_metadata(nnx.initializers.normal(std), axes=axes)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
  """Layer normalization of x [..., D] in its dtype; statistics and gradients are float32.

  The variance takes a second pass over x, as in PyTorch: E x² − (E x)² cancels where the mean is
  large. With autodiff the second pass made the step of a small CLIP 15% slower on a CPU.
  """
  return _normalize(x, scale, bias, epsilon)[0]


def _normalize(x, scale, bias, epsilon):
  wide = x.astype(jnp.float32)
  mean = jnp.mean(wide, axis=-1, keepdims=True)
  inverse = jax.lax.rsqrt(jnp.mean(jnp.square(wide - mean), axis=-1, keepdims=True) + epsilon)
  y = (wide - mean) * inverse * scale + bias
  return y.astype(x.dtype), (x, scale, mean, inverse)


def _normalize_backward(epsilon, saved, gradient):
  x, scale, mean, inverse = saved
  gradient = gradient.astype(jnp.float32)
  normalized = (x.astype(jnp.float32) - mean) * inverse
  slope = gradient * scale
  over = lambda y: jnp.mean(y, axis=-1, keepdims=True)  # noqa: E731
  of_x = inverse * (slope - over(slope) - normalized * over(slope * normalized))
  batch = tuple(range(x.ndim - 1))
  return of_x.astype(x.dtype), jnp.sum(gradient * normalized, batch), jnp.sum(gradient, batch)


normalize.defvjp(_normalize, _normalize_backward)


class LayerNorm(nnx.LayerNorm):
  """Layer normalization over the last axis, see `normalize`."""

  def __call__(self, x):
    """Maps x [..., D] to [..., D] in `dtype`."""
    return normalize(x.astype(self.dtype), self.scale[...], self.bias[...], self.epsilon)


def layer_norm(width: int, *, epsilon: float = 1e-5, axis='embed', dtype, rngs) -> LayerNorm:
  """Layer normalization over the last axis, with PyTorch's epsilon."""
  return LayerNorm(
    width,
    epsilon=epsilon,
    scale_init=nnx.with_metadata(nnx.initializers.ones, axes=(axis,)),
    bias_init=nnx.with_metadata(nnx.initializers.zeros, axes=(axis,)),
    dtype=dtype,
    rngs=rngs,
  )


class Mlp(nnx.Module):
  """Two linear maps with an activation between, or with a gate, SwiGLU [1].

  References:
    [1] Shazeer, GLU Variants Improve Transformer, 2020.
  """

  def __init__(
    self, width, hidden, *, kind='plain', activation='gelu', inner_norm=None, depth=1, dtype, rngs
  ):
    """`kind` is one of `MLPS`; `inner_norm` makes the norm of the hidden units, None for none."""
    make = partial(Linear, dtype=dtype, rngs=rngs)
    choose('mlp', kind, dict.fromkeys(MLPS))
    self.activation = choose('activation', activation, ACTIVATIONS)
    self.up = make(width, hidden, ('embed', 'mlp'), (2 * width) ** -0.5)
    self.down = make(hidden, width, ('mlp', 'embed'), (width * 2 * depth) ** -0.5)
    gated = kind == 'swiglu'
    self.gate = make(width, hidden, ('embed', 'mlp'), (2 * width) ** -0.5) if gated else None
    self.inner_norm = None if inner_norm is None else inner_norm(hidden)

  def __call__(self, x):
    """Maps x [..., D] to [..., D]."""
    if self.gate is None:
      hidden = self.activation(self.up(x))
    else:
      hidden = jax.nn.silu(self.gate(x)) * self.up(x)
    return self.down(hidden if self.inner_norm is None else self.inner_norm(hidden))


class Block(nnx.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)) of width `hidden`; None for no MLP.

  With a `context_width`, x attends to the normalized context.

  Args:
    layer_scale: initial value of a learned factor of either branch; None for no factor.
    post_norm: x + norm(attention(x)), then x + norm(mlp(x)).
    qk_norm: whether to normalize queries and keys per head.
    attention_bias: projections of attention with a bias, one of `attention.BIASES`.
    attention_inner_norm: whether to normalize the attended values before the output projection.
    mlp: 'plain', or 'swiglu', whose gate has another matrix of the size of the first one.
    mlp_inner_norm: whether to normalize the hidden units of the MLP.
  """

  def __init__(
    self,
    width,
    heads,
    hidden,
    *,
    head_width=None,
    context_width=None,
    activation='gelu',
    depth=1,
    epsilon=1e-5,
    attention='auto',
    layer_scale=None,
    post_norm=False,
    qk_norm=False,
    attention_bias='all',
    attention_inner_norm=False,
    mlp='plain',
    mlp_inner_norm=False,
    dtype,
    rngs,
  ):
    make = {'dtype': dtype, 'rngs': rngs}
    norm = partial(layer_norm, epsilon=epsilon, **make)
    inner = partial(norm, axis=None)
    self.post_norm = post_norm
    self.attention_norm = norm(width)
    self.context_norm = norm(context_width) if context_width else None
    self.attention = Attention(
      width,
      heads,
      head_width=head_width,
      context_width=context_width,
      depth=depth,
      implementation=attention,
      bias=attention_bias,
      qk_norm=inner if qk_norm else None,
      inner_norm=inner if attention_inner_norm else None,
      **make,
    )
    scale = partial(LayerScale, width, layer_scale)
    self.attention_scale = None if layer_scale is None else scale()
    self.mlp_norm = norm(width) if hidden else None
    options = {'kind': mlp, 'activation': activation, 'depth': depth}
    options |= {'inner_norm': inner if mlp_inner_norm else None}
    self.mlp = Mlp(width, hidden, **options, **make) if hidden else None
    self.mlp_scale = scale() if hidden and layer_scale is not None else None

  def __call__(self, x, context=None, *, mask=None, causal=False, rotation=None, drop=None):
    """Maps x [B, L, D], and the context [B, M, C] if any, to [B, L, D].

    See `Attention` for the mask and the rotation; `drop` is a `Drop`, or None in evaluation.
    """
    context = None if self.context_norm is None else self.context_norm(context)
    before = self._before(self.attention_norm, x)
    attended = self.attention(before, context, mask=mask, causal=causal, rotation=rotation)
    return self._add(x, attended, drop)

  def _before(self, norm, x):
    return x if self.post_norm else norm(x)

  def _add(self, x, attended, drop=None):
    x = self._join(x, attended, self.attention_norm, self.attention_scale, drop, 0)
    if self.mlp is None:
      return x
    hidden = self.mlp(self._before(self.mlp_norm, x))
    return self._join(x, hidden, self.mlp_norm, self.mlp_scale, drop, 1)

  def _join(self, x, branch, norm, scale, drop, number):
    branch = norm(branch) if self.post_norm else branch
    branch = branch if scale is None else scale(branch)
    return x + (branch if drop is None else drop(branch, number))

  def empty_cache(self, B, K, L):
    """Returns an empty cache for `step`, for K texts of up to L tokens in each of B rows."""
    return self.attention.empty_cache(B, K, L)

  def project(self, context):
    """Returns the keys and values of a context [B, M, C]; None for a block without context."""
    if self.context_norm is None:
      return None
    return self.attention.project(self.context_norm(context))

  def attend(self, x, context):
    """Maps x [B, K, D] to [B, K, D], given the keys and values from `project`."""
    return self._add(x, self.attention.attend(self._before(self.attention_norm, x), context))

  def step(self, x, cache, context, parents, position):
    """Computes one position of causal self-attention; see `Attention.step`."""
    before = self._before(self.attention_norm, x)
    attended, cache = self.attention.step(before, cache, parents, position)
    return self._add(x, attended), cache


class Transformer(nnx.Module):
  """`layers` blocks, unrolled or, with `scan`, stacked for `lax.scan`.

  Scanned layers compile once, whatever their number; unrolled ones run faster on a CPU. Stacked
  parameters have a leading axis 'layers'. `remat` is a key of `REMATS`.

  In training, `dropout` is the probability of dropping a unit of a branch's output, and `drop_path`
  that of dropping a branch of the last layer for an example; it grows linearly from 0 in the first.
  """

  def __init__(
    self,
    width,
    layers,
    heads,
    *,
    mlp_ratio=4,
    block=Block,
    scan=False,
    remat='none',
    dropout=0.0,
    drop_path=0.0,
    rngs,
    **fields,
  ):
    """Builds the layers, of class `block` with further arguments `fields`."""
    if not isinstance(layers, int):
      raise ValueError(f'layers = {layers}; a transformer has one number of layers, such as 12')
    for name, share in (('dropout', dropout), ('drop_path', drop_path)):
      if not 0 <= share < 1:
        raise ValueError(f'{name} = {share} is not in [0, 1)')
    self.layers, self.dropout, self.drop_path = layers, dropout, drop_path
    self.remat = choose('remat', remat, REMATS)
    self.group = 2 if remat == 'pairs' and layers % 2 == 0 else 1
    if self.remat is not None:
      # Common subexpression elimination would undo the remat of an unrolled layer; a scan prevents
      # that by itself.
      self.remat = self.remat | {'prevent_cse': not scan}
    block = partial(block, width, heads, int(width * mlp_ratio), depth=layers, **fields)
    self.scan = scan
    if not scan:
      self.blocks = nnx.List([block(rngs=rngs) for _ in range(layers)])
      return
    keys = jax.random.split(rngs.params(), layers)
    self.blocks = nnx.vmap(lambda key: block(rngs=ParameterKeys(key)))(keys)
    for _, parameter in nnx.iter_graph(self.blocks):
      if isinstance(parameter, nnx.Param):
        parameter.set_metadata('axes', ('layers', *parameter.get_metadata('axes')))

  def __call__(self, x, context=None, *, mask=None, causal=False, rotation=None, keys=None):
    """Maps x [B, L, D], and the context [B, M, C] if any, to [B, L, D].

    See `Attention` for the mask and the rotation; `keys` [B] choose what is dropped, in training.
    """
    drops = keys is not None and (self.dropout or self.drop_path)
    rates = np.linspace(0, self.drop_path, self.layers, dtype=np.float32)
    inputs = (np.arange(self.layers), rates) if drops else ()

    def layer(block, x, *own):
      drop = Drop(fold(keys, own[0]), self.dropout, own[1]) if own else None
      x = block(x, context, mask=mask, causal=causal, rotation=rotation, drop=drop)
      return constrain_batch(x), None

    remat = {'group': self.group, 'remat': self.remat}
    return self._scan_layers(layer, constrain_batch(x), *inputs, **remat)[0]

  def empty_cache(self, B, K, L):
    """Returns an empty cache for `step`, by layer; see `Block.empty_cache`."""
    return self._scan_layers(lambda block, _: (None, block.empty_cache(B, K, L)))[1]

  def project(self, context=None):
    """Returns the keys and values of a context [B, M, C], by layer, for `step`."""
    return self._scan_layers(lambda block, _: (None, block.project(context)))[1]

  def step(self, x, cache, context, parents, position):
    """Computes one position of K texts each, given the cached positions before it.

    Args:
      x: [B, K, D]
      cache: from `empty_cache` or the previous step.
      context: from `project`.
      parents: [B, K] integers, the cached text that each text continues.
      position: scalar integer.

    Returns:
      [B, K, D], equal to a causal `__call__` at that position, and the new cache.
    """
    layer = lambda block, x, cache, context: block.step(x, cache, context, parents, position)  # noqa: E731
    return self._scan_layers(layer, x, cache, context)

  def _scan_layers(self, layer, x=None, *inputs, group=1, remat=None):
    """Carries x through layer(block, x, *inputs) -> (x, output), with inputs, outputs by layer.

    `remat` has the options of `jax.checkpoint`, of `group` layers at once.
    """
    saved = partial(jax.checkpoint, **remat) if remat is not None else lambda run: run
    if not self.scan:

      def unrolled(x, layers):
        outputs = []
        for block, *own in layers:
          x, output = layer(block, x, *own)
          outputs.append(output)
        return x, outputs

      layers, outputs = [*zip(self.blocks, *inputs, strict=True)], []
      for first in range(0, self.layers, group):
        x, found = saved(partial(unrolled, layers=layers[first : first + group]))(x)
        outputs += found
      return x, outputs
    definition, stacked = nnx.split(self.blocks)

    def scanned(x, own):
      return layer(nnx.merge(definition, own[0]), x, *own[1:])

    layers, run = (stacked, *inputs), scanned
    if group > 1:
      layers = jax.tree.map(lambda a: a.reshape(-1, group, *a.shape[1:]), layers)
      run = lambda x, own: jax.lax.scan(scanned, x, own, unroll=True)  # noqa: E731
    return jax.lax.scan(saved(run), x, layers)


def position_table(length: int, width: int, std: float, *, rngs) -> nnx.Param:
  """Returns learned embeddings [length, width]."""
  value = std * jax.random.normal(rngs.params(), (length, width))
  return nnx.Param(value, axes=(None, 'embed'))


def add_parameter(x: jax.Array, parameter: jax.Array) -> jax.Array:
  """Adds a float32 parameter that broadcasts over the batch to x, in the dtype of x.

  The gradient of the parameter, a sum over the batch, is float32.
  """
  return (x.astype(parameter.dtype) + parameter).astype(x.dtype)


def repeat(parameter: jax.Array, B: int, dtype) -> jax.Array:
  """Repeats a parameter [K, D] over the batch, [B, K, D] in `dtype`, with a float32 gradient."""
  return jnp.broadcast_to(parameter.astype(jnp.float32), (B, *parameter.shape)).astype(dtype)


def unit(x: jax.Array) -> jax.Array:
  """Scales rows to length 1 in float32; a zero row stays zero, with a finite gradient."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))
