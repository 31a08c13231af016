import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend import core as jex

from contrastive_jax.models import activations, transformer
from tests.doubles import slow_but
from tests.models.towers import made, run


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gelu_is_exact(dtype):
  x = np.linspace(-8, 8, 1001).astype(dtype)
  tolerance = {'float32': 1e-6, 'bfloat16': 2**-8}[dtype]
  expected = [float(y) * (1 + math.erf(y / math.sqrt(2))) / 2 for y in x]
  actual = jax.jit(activations.gelu)(x)
  assert actual.dtype == x.dtype
  np.testing.assert_allclose(np.float32(actual), expected, rtol=tolerance, atol=1e-6)


def test_a_zero_row_stays_zero_with_a_finite_gradient():
  rows = np.float32([[0, 0, 0], [3, 0, 4]])

  @jax.jit
  def value_and_gradient(rows):
    value, pull = jax.vjp(transformer.unit, rows)
    return value, pull(jnp.ones_like(rows))[0]

  value, gradient = value_and_gradient(rows)
  np.testing.assert_allclose(value, [[0, 0, 0], [0.6, 0, 0.8]], rtol=1e-6)
  assert np.isfinite(np.asarray(gradient)).all()


@pytest.mark.parametrize(('ratio', 'tolerance'), [(10, 1e-5), (100, 1e-4), (1000, 1e-3)])
def test_layer_norm_holds_where_the_mean_is_large(ratio, tolerance):
  x = np.random.default_rng(0).normal(size=(64, 128)).astype(np.float32) + ratio
  norm = made(transformer.layer_norm, 128)
  wide = x.astype(np.float64)
  expected = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(run(norm, x), expected, atol=tolerance)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_layer_norm_is_that_of_flax(dtype):
  random = np.random.default_rng(0)
  fields = {'use_fast_variance': False, 'epsilon': 1e-5, 'dtype': dtype, 'rngs': nnx.Rngs(0)}
  plain = nnx.LayerNorm(16, **fields)
  ours = transformer.layer_norm(16, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
  x, weight = (random.normal(size=(3, 5, 16)).astype(dtype) for _ in range(2))

  def value_and_gradients(norm):
    norm.scale[...], norm.bias[...] = np.linspace((0.5, -1), (2, 1), 16, dtype=np.float32).T
    graph, state = nnx.split(norm)

    @jax.jit
    def compute(state, x, weight):
      y, pull = jax.vjp(lambda state, x: nnx.merge(graph, state)(x), state, x)
      return jax.tree.leaves((y, pull(weight)))

    return jax.device_get(compute(state, x, weight))

  tolerance = {'float32': 1e-5, 'bfloat16': 3e-2}[dtype]
  for a, b in zip(value_and_gradients(ours), value_and_gradients(plain), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a.astype('f'), b.astype('f'), rtol=tolerance, atol=tolerance)


def test_gradients_of_parameters_that_broadcast_are_float32_sums():
  x, parameter = np.ones((1024, 3, 2), jnp.bfloat16), np.ones((3, 2), np.float32)

  def total(parameter):
    added = transformer.add_parameter(x, parameter)
    repeated = transformer.repeat(parameter, len(x), x.dtype)
    assert added.dtype == repeated.dtype == jnp.bfloat16
    assert added.shape == repeated.shape == x.shape
    return jnp.sum((added + repeated).astype(jnp.float32))

  np.testing.assert_array_equal(jax.jit(jax.grad(total))(parameter), np.full((3, 2), 2048.0))


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
  fields = {'scan': scan, 'remat': remat, 'dtype': jnp.float32}
  graph, state = nnx.split(
    nnx.eval_shape(lambda: transformer.Transformer(8, 2, 2, **fields, rngs=nnx.Rngs(0)))
  )
  loss = lambda state, x: nnx.merge(graph, state)(x).sum()  # noqa: E731
  x = np.ones((2, 4, 8), np.float32)
  found = rematerialized(jax.make_jaxpr(jax.value_and_grad(loss))(state, x).jaxpr)
  assert set(found) == (set() if remat == 'none' else {not scan})


@pytest.mark.parametrize('scan', slow_but([False, True], True))
@pytest.mark.parametrize(('layers', 'of_pairs'), slow_but([(4, 2), (3, 3)], (4, 2)))
def test_rematerialization_saves_inputs_of_layers(scan, layers, of_pairs):
  x = np.linspace(-1, 1, 2 * 3 * 8, dtype=np.float32).reshape(2, 3, 8)
  keys = jax.random.split(jax.random.key(0, impl='unsafe_rbg'), len(x))

  def pulled(remat):
    fields = {'scan': scan, 'remat': remat, 'drop_path': 0.5}
    graph, state = nnx.split(made(transformer.Transformer, 8, layers, 2, **fields))
    shapes = []

    @jax.jit
    def compute(state, x, keys):
      value, pull = jax.vjp(lambda state, x: nnx.merge(graph, state)(x, keys=keys), state, x)
      shapes.extend(np.shape(leaf) for leaf in jax.tree.leaves(pull))
      return jax.tree.leaves((value, pull(jnp.cos(x))))

    found = jax.device_get(compute(state, x, keys))
    # A scan stacks what it saves of its layers.
    inputs = sum(math.prod(shape[:-3]) for shape in shapes if shape[-3:] == x.shape)
    return found, inputs

  expected, all_of_them = pulled('none')
  for remat, number in (('full', layers), ('pairs', of_pairs)):
    found, inputs = pulled(remat)
    assert inputs == number < all_of_them
    for a, b in zip(found, expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
