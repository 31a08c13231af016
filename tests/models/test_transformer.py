import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core as jex

from contrastive_jax.models import activations, transformer
from tests.doubles import slow_but


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gelu_is_exact(dtype):
  x = jnp.linspace(-8, 8, 1001).astype(dtype)
  tolerance = {'float32': 1e-6, 'bfloat16': 2**-8}[dtype]
  expected = jax.nn.gelu(x.astype(jnp.float32), approximate=False)
  actual = activations.gelu(x)
  assert actual.dtype == x.dtype
  np.testing.assert_allclose(actual.astype(jnp.float32), expected, rtol=tolerance, atol=1e-6)


def test_a_zero_row_stays_zero_with_a_finite_gradient():
  rows = jnp.zeros((2, 3)).at[1].set(jnp.array([3.0, 0.0, 4.0]))
  value, pull = jax.vjp(transformer.unit, rows)
  np.testing.assert_allclose(value, [[0, 0, 0], [0.6, 0, 0.8]], rtol=1e-6)
  assert np.isfinite(pull(jnp.ones_like(rows))[0]).all()


@pytest.mark.parametrize(('ratio', 'tolerance'), [(10, 1e-5), (100, 1e-4), (1000, 1e-3)])
def test_layer_norm_holds_where_the_mean_is_large(ratio, tolerance):
  x = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32) + ratio
  norm = transformer.layer_norm(128, dtype=jnp.float32, rngs=nnx.Rngs(0))
  wide = x.astype(np.float64)
  expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(norm(x), expected, atol=tolerance)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_layer_norm_is_that_of_flax(dtype):
  random = np.random.default_rng(0)
  fields = {'use_fast_variance': False, 'epsilon': 1e-5, 'dtype': dtype, 'rngs': nnx.Rngs(0)}
  plain = nnx.LayerNorm(16, **fields)
  ours = transformer.layer_norm(16, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
  x, weight = (jnp.asarray(random.normal(size=(3, 5, 16)), dtype) for _ in range(2))

  def value_and_gradients(norm):
    norm.scale[...], norm.bias[...] = jnp.linspace(0.5, 2, 16), jnp.linspace(-1, 1, 16)
    graph, state = nnx.split(norm)
    y, pull = jax.vjp(lambda state, x: nnx.merge(graph, state)(x), state, x)
    return jax.tree.leaves((y, pull(weight)))

  tolerance = {'float32': 1e-5, 'bfloat16': 3e-2}[dtype]
  for a, b in zip(value_and_gradients(ours), value_and_gradients(plain), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a.astype('f'), b.astype('f'), rtol=tolerance, atol=tolerance)


def test_gradients_of_parameters_that_broadcast_are_float32_sums():
  x, parameter = jnp.ones((1024, 3, 2), jnp.bfloat16), jnp.ones((3, 2))

  def total(parameter):
    added = transformer.add_parameter(x, parameter)
    repeated = transformer.repeat(parameter, len(x), x.dtype)
    assert added.dtype == repeated.dtype == jnp.bfloat16
    assert added.shape == repeated.shape == x.shape
    return jnp.sum((added + repeated).astype(jnp.float32))

  np.testing.assert_array_equal(jax.grad(total)(parameter), np.full((3, 2), 2048.0))


def rematerialized(jaxpr):
  """Whether each rematerialized part prevents common subexpression elimination."""
  for equation in jaxpr.eqns:
    if 'prevent_cse' in equation.params:
      yield equation.params['prevent_cse']
    for inner in jex.jaxprs_in_params(equation.params):
      yield from rematerialized(inner)


@pytest.mark.parametrize('remat', transformer.REMATS)
@pytest.mark.parametrize('scan', [False, True])
def test_a_compiler_cannot_undo_rematerialization(scan, remat):
  """An unrolled layer is protected by a barrier, a scanned one by its scan."""
  fields = {'scan': scan, 'remat': remat, 'dtype': jnp.float32, 'rngs': nnx.Rngs(0)}
  graph, state = nnx.split(transformer.Transformer(8, 4, 2, **fields))
  loss = lambda state, x: nnx.merge(graph, state)(x).sum()  # noqa: E731
  found = rematerialized(jax.make_jaxpr(jax.value_and_grad(loss))(state, jnp.ones((2, 4, 8))).jaxpr)
  assert set(found) == (set() if remat == 'none' else {not scan})


@pytest.mark.parametrize('scan', slow_but([False, True], True))
@pytest.mark.parametrize(('layers', 'of_pairs'), slow_but([(4, 2), (3, 3)], (4, 2)))
def test_rematerialization_saves_inputs_of_layers(scan, layers, of_pairs):
  x = jnp.linspace(-1, 1, 2 * 3 * 8).reshape(2, 3, 8)

  def pulled(remat):
    fields = {'scan': scan, 'remat': remat, 'drop_path': 0.5, 'dtype': jnp.float32}
    graph, state = nnx.split(transformer.Transformer(8, layers, 2, **fields, rngs=nnx.Rngs(0)))
    keys = jax.random.split(jax.random.key(0), len(x))
    value, pull = jax.vjp(lambda state, x: nnx.merge(graph, state)(x, keys=keys), state, x)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(pull)]
    # A scan stacks what it saves of its layers.
    inputs = sum(math.prod(shape[:-3]) for shape in shapes if shape[-3:] == x.shape)
    return jax.tree.leaves((value, pull(jnp.cos(x)))), inputs

  expected, all_of_them = pulled('none')
  for remat, number in (('full', layers), ('pairs', of_pairs)):
    found, inputs = pulled(remat)
    assert inputs == number < all_of_them
    for a, b in zip(found, expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
