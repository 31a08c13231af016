"""Heads that methods train with the model: projectors, predictors and scales."""

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models.activations import gelu
from contrastive_jax.models.definition import Definition, define_from
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.transformer import unit

NORMS = ('batch', 'none')


class BatchNorm(nnx.Module):
  """Normalizes each feature by its mean and variance over the whole batch.

  Heads run on the whole batch, so the statistics are the same on any mesh and in any number of
  micro-batches. Heads are not evaluated, so there are no running statistics.
  """

  def __init__(self, width: int, *, affine: bool = True, epsilon: float = 1e-5):
    self.epsilon = epsilon
    self.scale = nnx.Param(jnp.ones(width), axes=(None,)) if affine else None
    self.bias = nnx.Param(jnp.zeros(width), axes=(None,)) if affine else None

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, C] to [B, C], in float32 inside."""
    wide = x.astype(jnp.float32)
    centered = wide - jnp.mean(wide, 0)
    y = centered * jax.lax.rsqrt(jnp.mean(jnp.square(centered), 0) + self.epsilon)
    if self.scale is not None:
      y = y * self.scale[...] + self.bias[...]
    return y.astype(x.dtype)


class Head(nnx.Module):
  """A multilayer perceptron: linear, norm, ReLU, ..., linear.

  Args:
    width: of the inputs.
    hidden: widths of the hidden layers.
    outputs: width of the outputs.
    norm: after each hidden layer, 'batch' or 'none'.
    last_norm: batch norm without scale and bias after the last layer.
    rngs: draws the kernels.
  """

  def __init__(
    self,
    width: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    norm: str = 'batch',
    last_norm: bool = False,
    rngs: nnx.Rngs,
  ):
    if norm not in NORMS:
      raise ValueError(f'norm = {norm!r} is unknown; use one of {NORMS}')
    widths = [width, *hidden]
    # Float32 throughout: heads are small, and batch statistics need it.
    make = {'dtype': jnp.float32, 'bias': norm == 'none', 'rngs': rngs}
    self.layers = nnx.List(
      [
        Linear(before, after, ('embed', 'mlp'), (2 / before) ** 0.5, **make)
        for before, after in itertools.pairwise(widths)
      ]
    )
    self.norms = nnx.List([BatchNorm(after) for after in hidden] if norm == 'batch' else [])
    # A bias before batch norm would have no effect.
    make['bias'] = not last_norm
    self.output = Linear(widths[-1], outputs, ('mlp', None), widths[-1] ** -0.5, **make)
    self.last_norm = BatchNorm(outputs, affine=False) if last_norm else None

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [B, width] to [B, outputs], float32."""
    for index, layer in enumerate(self.layers):
      x = layer(x)
      x = jax.nn.relu(self.norms[index](x) if len(self.norms) else x)
    x = self.output(x)
    return x if self.last_norm is None else self.last_norm(x)


class PrototypeHead(nnx.Module):
  """DINO's head [1]: a multilayer perceptron with GELU to unit vectors, compared with prototypes.

  Args:
    width: of the inputs.
    hidden: width of its two hidden layers.
    bottleneck: width of the unit vectors.
    prototypes: K, unit vectors too: [1] fixes the norms of its last layer.
    rngs: draws the kernels.

  References:
    [1] Caron et al., https://arxiv.org/abs/2104.14294
  """

  def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int, *, rngs: nnx.Rngs):
    make = {'dtype': jnp.float32, 'rngs': rngs}
    widths = (width, hidden, hidden, bottleneck)
    self.layers = nnx.List(
      [
        Linear(before, after, ('embed', 'mlp'), (2 / before) ** 0.5, **make)
        for before, after in itertools.pairwise(widths)
      ]
    )
    std = bottleneck**-0.5
    self.prototypes = Linear(bottleneck, prototypes, ('embed', 'mlp'), std, bias=False, **make)

  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., width] to cosines [..., K], float32."""
    for index, layer in enumerate(self.layers):
      x = layer(gelu(x) if index else x)
    # A division of the products spares a copy of the prototypes.
    norms = jnp.linalg.norm(self.prototypes.kernel[...], axis=0)
    return self.prototypes(unit(x)) / norms


class Prototypes(nnx.Module):
  """K unit vectors, the directions of the columns of a kernel."""

  def __init__(self, width: int, prototypes: int, *, rngs: nnx.Rngs):
    std, make = width**-0.5, {'dtype': jnp.float32, 'rngs': rngs}
    self.vectors = Linear(width, prototypes, ('embed', 'mlp'), std, bias=False, **make)

  def __call__(self) -> jax.Array:
    """The prototypes [K, width], float32."""
    return unit(self.vectors.kernel[...].T)


class Scale(nnx.Module):
  """A learned inverse temperature, which the optimizer bounds like the model's."""

  def __init__(self, start: float):
    self.log_scale = nnx.Param(jnp.float32(math.log(start)), axes=())

  def __call__(self) -> jax.Array:
    """The scale, a scalar."""
    return jnp.exp(self.log_scale[...])


def define_scale(start: float) -> Definition:
  """Defines a `Scale`."""
  return define_from(lambda key: Scale(start))


def define_head(width: int, hidden: Sequence[int], outputs: int, **options) -> Definition:
  """Defines a `Head`."""
  return define_from(lambda key: Head(width, hidden, outputs, rngs=ParameterKeys(key), **options))


def define_prototype_head(width: int, hidden: int, bottleneck: int, prototypes: int) -> Definition:
  """Defines a `PrototypeHead`."""
  sizes = width, hidden, bottleneck, prototypes
  return define_from(lambda key: PrototypeHead(*sizes, rngs=ParameterKeys(key)))


def define_prototypes(width: int, prototypes: int) -> Definition:
  """Defines `Prototypes`."""
  return define_from(lambda key: Prototypes(width, prototypes, rngs=ParameterKeys(key)))


def head_flops(width: int, hidden: Sequence[int], outputs: int, rows: float) -> float:
  """Operations of a head's forward and backward pass over a number of rows."""
  widths = [width, *hidden, outputs]
  pairs = itertools.pairwise(widths)
  return 6.0 * rows * sum(before * after for before, after in pairs)
