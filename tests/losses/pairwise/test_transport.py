"""The laws of balanced assignments."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.losses import pairwise
from tests.losses import dense, reference

B, K, D = 8, 4, 6


def drawn():
  rng = np.random.default_rng(0)
  return reference.unit(rng, B, D), reference.unit(rng, K, D)


@functools.partial(jax.jit, static_argnames=('iterations', 'block_size', 'mesh'))
def assignments(x, y, **options):
  """Rows to columns, and columns to rows [K, B]."""
  rows, columns = pairwise.sinkhorn(x, y, scale=5.0, **options)
  scores = 5.0 * x @ y.T
  return jax.nn.softmax(scores + columns, 1), jax.nn.softmax(scores.T + rows, 1)


@pytest.mark.parametrize(('mesh', 'iterations'), [('none', 1), ('2', 3)])
def test_it_normalizes_columns_and_rows_in_turn(mesh, iterations):
  x, y = drawn()
  options = {'iterations': iterations, 'block_size': 2, 'mesh': reference.make_mesh(mesh)}
  of_rows, of_columns = assignments(x, y, **options)
  scores = 5.0 * np.float64(x) @ y.T
  reference.assert_near(of_rows, dense.sinkhorn(scores, iterations))
  reference.assert_near(of_columns, dense.sinkhorn(scores.T, iterations))


def test_rows_sum_to_one_and_the_masses_of_columns_become_equal():
  x, y = drawn()
  apart = []
  for iterations in (1, 3, 50):
    of_rows, of_columns = assignments(x, y, iterations=iterations)
    np.testing.assert_allclose(of_rows.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(of_columns.sum(1), 1, rtol=1e-5)
    apart.append([np.ptp(of_rows.sum(0)), np.ptp(of_columns.sum(0))])
  assert np.all(np.diff(apart, axis=0) < 0)
  np.testing.assert_allclose(of_rows.sum(0), B / K, rtol=1e-4)
  np.testing.assert_allclose(of_columns.sum(0), K / B, rtol=1e-4)


def test_it_has_no_gradient():
  x, y = drawn()
  loss = lambda x: sum(map(jnp.sum, pairwise.sinkhorn(x, y, scale=5.0)))  # noqa: E731
  assert not np.any(jax.jit(jax.grad(loss))(x))


def test_no_iteration_is_refused():
  with pytest.raises(ValueError, match='iterations = 0; use 1 or more'):
    pairwise.sinkhorn(*drawn(), scale=1.0, iterations=0)
