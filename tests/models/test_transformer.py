import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.models import transformer


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_gelu_is_exact(dtype):
  x = jnp.linspace(-8, 8, 1001).astype(dtype)
  tolerance = {'float32': 1e-6, 'bfloat16': 2**-8}[dtype]
  expected = jax.nn.gelu(x.astype(jnp.float32), approximate=False)
  actual = transformer.gelu(x)
  assert actual.dtype == x.dtype
  np.testing.assert_allclose(actual.astype(jnp.float32), expected, rtol=tolerance, atol=1e-6)


def test_a_zero_row_stays_zero_with_a_finite_gradient():
  rows = jnp.zeros((2, 3)).at[1].set(jnp.array([3.0, 0.0, 4.0]))
  value, pull = jax.vjp(transformer.unit, rows)
  np.testing.assert_allclose(value, [[0, 0, 0], [0.6, 0, 0.8]], rtol=1e-6)
  assert np.isfinite(pull(jnp.ones_like(rows))[0]).all()
