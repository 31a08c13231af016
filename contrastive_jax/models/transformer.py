"""The pre-norm transformer that both towers share.

Every parameter names its logical axes ('embed', 'mlp', 'heads', 'vocab', 'layers') in its metadata
`axes`. `sharding.rules` maps them to a mesh.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models.activations import ACTIVATIONS
from contrastive_jax.models.attention import Attention
from contrastive_jax.models.linear import Linear
from contrastive_jax.sharding.mesh import constrain_batch

# Options of `jax.checkpoint` by name. 'none' saves all activations of a layer, 'dots' the results
# of matmuls outside of attention, 'full' only the layer's input.
REMATS: dict[str, dict | None] = {
  'none': None,
  'dots': {'policy': jax.checkpoint_policies.dots_with_no_batch_dims_saveable},
  'full': {},
}


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


def layer_norm(width: int, *, epsilon: float = 1e-5, dtype, rngs) -> LayerNorm:
  """Layer normalization over the last axis, with PyTorch's epsilon."""
  return LayerNorm(
    width,
    epsilon=epsilon,
    scale_init=nnx.with_metadata(nnx.initializers.ones, axes=('embed',)),
    bias_init=nnx.with_metadata(nnx.initializers.zeros, axes=('embed',)),
    dtype=dtype,
    rngs=rngs,
  )


class Mlp(nnx.Module):
  """Two linear maps with an activation between."""

  def __init__(self, width, hidden, *, activation='gelu', depth=1, dtype, rngs):
    make = partial(Linear, dtype=dtype, rngs=rngs)
    self.activation = choose('activation', activation, ACTIVATIONS)
    self.up = make(width, hidden, ('embed', 'mlp'), (2 * width) ** -0.5)
    self.down = make(hidden, width, ('mlp', 'embed'), (width * 2 * depth) ** -0.5)

  def __call__(self, x):
    """Maps x [..., D] to [..., D]."""
    return self.down(self.activation(self.up(x)))


class Block(nnx.Module):
  """x + attention(norm(x)), then x + mlp(norm(x)) of width `hidden`; None for no MLP.

  With a `context_width`, x attends to the normalized context.
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
    dtype,
    rngs,
  ):
    make = {'dtype': dtype, 'rngs': rngs}
    norm = partial(layer_norm, epsilon=epsilon, **make)
    self.attention_norm = norm(width)
    self.context_norm = norm(context_width) if context_width else None
    self.attention = Attention(
      width,
      heads,
      head_width=head_width,
      context_width=context_width,
      depth=depth,
      implementation=attention,
      **make,
    )
    self.mlp_norm = norm(width) if hidden else None
    self.mlp = Mlp(width, hidden, activation=activation, depth=depth, **make) if hidden else None

  def __call__(self, x, context=None, *, mask=None, causal=False):
    """Maps x [B, L, D], and the context [B, M, C] if any, to [B, L, D]."""
    context = None if self.context_norm is None else self.context_norm(context)
    return self._add(x, self.attention(self.attention_norm(x), context, mask=mask, causal=causal))

  def _add(self, x, attended):
    x = x + attended
    return x if self.mlp is None else x + self.mlp(self.mlp_norm(x))

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
    return self._add(x, self.attention.attend(self.attention_norm(x), context))

  def step(self, x, cache, context, parents, position):
    """Computes one position of causal self-attention; see `Attention.step`."""
    attended, cache = self.attention.step(self.attention_norm(x), cache, parents, position)
    return self._add(x, attended), cache


class Transformer(nnx.Module):
  """`layers` blocks, unrolled or, with `scan`, stacked for `lax.scan`.

  Scanned layers compile once, whatever their number; unrolled ones run faster on a CPU. Stacked
  parameters have a leading axis 'layers'. `remat`, a key of `REMATS`, selects the activations saved
  for the backward pass; the others are rematerialized.
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
    rngs,
    **fields,
  ):
    """Builds the layers, of class `block` with further arguments `fields`."""
    self.remat = choose('remat', remat, REMATS)
    if self.remat is not None:
      # Common subexpression elimination would undo the remat of an unrolled layer; a scan prevents
      # that by itself.
      self.remat = self.remat | {'prevent_cse': not scan}
    block = partial(block, width, heads, int(width * mlp_ratio), depth=layers, **fields)
    self.scan = scan
    if not scan:
      self.blocks = nnx.List([block(rngs=rngs) for _ in range(layers)])
      return
    self.blocks = nnx.split_rngs(splits=layers)(nnx.vmap(lambda rngs: block(rngs=rngs)))(rngs)
    for _, parameter in nnx.iter_graph(self.blocks):
      if isinstance(parameter, nnx.Param):
        parameter.set_metadata('axes', ('layers', *parameter.get_metadata('axes')))

  def __call__(self, x, context=None, *, mask=None, causal=False):
    """Maps x [B, L, D], and the context [B, M, C] if any, to [B, L, D]."""

    def layer(block, x):
      apply = partial(block, mask=mask, causal=causal)
      if self.remat is not None:
        apply = jax.checkpoint(apply, **self.remat)
      return apply(constrain_batch(x), context), None

    return constrain_batch(self._scan_layers(layer, x)[0])

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

  def _scan_layers(self, layer, x=None, *inputs):
    """Carries x through layer(block, x, *inputs) -> (x, output), with inputs, outputs by layer."""
    if not self.scan:
      outputs = []
      for block, *own in zip(self.blocks, *inputs, strict=True):
        x, output = layer(block, x, *own)
        outputs.append(output)
      return x, outputs
    definition, stacked = nnx.split(self.blocks)

    def scanned(x, own):
      return layer(nnx.merge(definition, own[0]), x, *own[1:])

    return jax.lax.scan(scanned, x, (stacked, *inputs))


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
  rows = jnp.broadcast_to(parameter.astype(jnp.float32), (B, *parameter.shape))
  return rows.astype(dtype)


def unit(x: jax.Array) -> jax.Array:
  """Scales rows to length 1 in float32; a zero row stays zero, with a finite gradient."""
  x = x.astype(jnp.float32)
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-24))
