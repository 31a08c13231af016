import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax.models.attention import attend
from contrastive_jax.models.linear import Linear, affine
from tests.models.towers import made, run

# Those that compile to different programs: one row or many, none to three leading axes.
LEADING = [(1,), (5,), (1, 1), (4, 3), (2, 1, 3)]


@settings(max_examples=25, deadline=None)
@given(
  leading=st.sampled_from(LEADING),
  inputs=st.sampled_from([1, 3, 8]),
  outputs=st.sampled_from([1, 2, 16]),
  bias=st.booleans(),
  dtype=st.sampled_from(['float32', 'bfloat16']),
)
def test_value_and_gradients_are_those_of_the_plain_product(leading, inputs, outputs, bias, dtype):
  random = np.random.default_rng(0)
  x, kernel, weight = (
    random.normal(size=shape).astype(dtype)
    for shape in ((*leading, inputs), (inputs, outputs), (*leading, outputs))
  )
  offset = np.float32(random.normal(size=outputs)) if bias else None

  @jax.jit
  def value_and_gradients(x, kernel, offset, weight):
    y, pull = jax.vjp(affine, x, kernel, offset)
    return y, pull(weight)

  y, (of_x, of_kernel, of_offset) = value_and_gradients(x, kernel.astype('float32'), offset, weight)
  assert (y.dtype, of_x.dtype, of_kernel.dtype) == (dtype, dtype, 'float32')
  x, kernel, weight = (np.asarray(array, np.float64) for array in (x, kernel, weight))
  tolerance = {'float32': 1e-5, 'bfloat16': 2e-2}[dtype]
  close = lambda a, b: np.testing.assert_allclose(  # noqa: E731
    np.asarray(a, np.float64), b, rtol=tolerance, atol=tolerance
  )
  close(y, x @ kernel + (0 if offset is None else offset))
  close(of_x, weight @ kernel.T)
  # Sums over rows are kept in float32, in either dtype.
  rows, weights = x.reshape(-1, inputs), weight.reshape(-1, outputs)
  np.testing.assert_allclose(of_kernel, rows.T @ weights, rtol=1e-5, atol=1e-5)
  if offset is not None:
    np.testing.assert_allclose(of_offset, weights.sum(axis=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ('inputs', 'outputs'), [((6,), (4,)), ((2, 3), (4,)), ((6,), (2, 2)), ((3, 2), (4, 1))]
)
def test_a_linear_map_contracts_trailing_axes(inputs, outputs):
  axes = (None,) * len(inputs + outputs)
  linear = made(Linear, inputs, outputs, axes, 1.0)
  linear.bias[...] = np.arange(4, dtype=np.float32).reshape(linear.bias.shape)
  x = np.random.default_rng(0).normal(size=(5, 7, *inputs)).astype(np.float32)
  expected = np.tensordot(x, linear.kernel[...], len(inputs)) + np.asarray(linear.bias[...])
  found = run(linear, x)
  assert found.shape == (5, 7, *outputs)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ('dtype', 'asked', 'precision'),
  [
    ('float32', None, 'HIGHEST'),
    ('float32', 'high', 'HIGH'),
    ('float32', 'default', 'DEFAULT'),
    ('bfloat16', None, 'DEFAULT'),
    ('bfloat16', 'highest', 'DEFAULT'),
  ],
)
def test_float32_products_are_exact_unless_another_precision_is_asked_for(dtype, asked, precision):
  x, kernel = jnp.ones((2, 3), dtype), jnp.ones((3, 4))

  def loss(x, kernel):
    y = affine(x, kernel, None)[:, None, None]
    return jnp.sum(attend(y, y, y, implementation='xla').astype('float32'))

  with jax.default_matmul_precision(asked):
    program = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(x, kernel))
  found = set(re.findall(r'Precision\.(\w+)|precision=(None)', program))
  assert found <= {(precision, ''), *([('', 'None')] if precision == 'DEFAULT' else [])}
