import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.losses import pairwise
from tests.doubles import slow_but
from tests.losses import reference


def draw(rows=16, columns=40, levels=None):
  """Vectors whose products are whole numbers where `levels` is given, so that many are equal."""
  rng = np.random.default_rng(0)
  if levels is None:
    return reference.unit(rng, rows, 6), reference.unit(rng, columns, 6)
  return tuple(rng.integers(-levels, levels + 1, (size, 2)).astype('f') for size in (rows, columns))


WANTED = {'fraction': 0.1}, {'fraction': 1.0}, {'count': 7.25}
FAST = [(WANTED[0], 2, '8/0'), (WANTED[1], None, 'none'), (WANTED[2], 2, 'none')]


@pytest.mark.parametrize(
  ('wanted', 'levels', 'mesh'),
  slow_but(itertools.product(WANTED, (None, 2), ('none', '8/0')), *FAST),
)
def test_it_is_the_sorted_row_s(wanted, levels, mesh):
  x, y = draw(levels=levels)
  exclude = np.arange(16) % 5, np.arange(40) % 5
  options = {'scale': 3.0, 'diagonal': False, 'block_size': 9, 'mesh': reference.make_mesh(mesh)}
  step = functools.partial(pairwise.threshold, exclude=exclude, **wanted, **options)
  thresholds, shares = jax.jit(step)(x, y)
  counts = reference.counted(16, 40, exclude, diagonal=False)
  for i in range(16):
    row = np.sort(3.0 * (x[i] @ y[counts[i]].T).astype(np.float64))[::-1]
    rank = min(wanted.get('count', np.inf), wanted.get('fraction', np.inf) * len(row))
    expected = row[int(np.ceil(np.float32(rank))) - 1]
    assert thresholds[i] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    near = np.isclose(row, expected, rtol=1e-6, atol=1e-6)
    above = np.sum(row[~near] > expected)
    assert above + shares[i] * near.sum() == pytest.approx(rank, rel=1e-5)
    assert 0 < shares[i] <= 1


@pytest.mark.parametrize('mesh', slow_but(['none', '8'], '8'))
def test_another_reduction_selects_exactly_the_fraction(mesh):
  """Its scores have the bits of the threshold: none falls on the wrong side."""
  x, y = draw(rows=64, columns=104)
  options = {'scale': 7.3, 'block_size': 11, 'mesh': reference.make_mesh(mesh)}

  def weight(scores, rows, columns):
    least, share = rows
    return jnp.where(scores > least[:, None], 1.0, share[:, None] * (scores == least[:, None]))

  @jax.jit
  def selected(x, y):
    rows = pairwise.threshold(x, y, fraction=0.15, **options)
    return pairwise.sum(x, y, weight, rows=rows, **options)[0]

  np.testing.assert_allclose(selected(x, y), np.full(64, 0.15 * 104), rtol=1e-6)


def test_signs_zeros_and_no_pairs():
  y = np.array([[-2.0], [-0.0], [0.0], [1.0], [-1e-30], [3e38]], 'f')
  counts = np.array([1, 2, 2.5, 3, 4, 5, 6], 'f')
  find = jax.jit(functools.partial(pairwise.threshold, count=counts))
  thresholds, shares = find(np.ones((7, 1), 'f'), y)
  np.testing.assert_array_equal(thresholds, np.float32([3e38, 1, 0, 0, 0, -1e-30, -2]))
  np.testing.assert_allclose(shares, [1, 1, 0.25, 0.5, 1, 1, 1])
  one = np.ones((1, 1), 'f')
  find = jax.jit(functools.partial(pairwise.threshold, fraction=0.5, diagonal=False))
  threshold, share = find(one, one)
  assert (threshold, share) == (np.inf, 0)


def test_a_term_with_side_data_and_no_gradient():
  x, y = draw()
  term = lambda scores, rows, columns: scores + columns  # noqa: E731
  bias = np.linspace(0, 9, 40).astype('f')

  def total(x, bias):
    return jnp.sum(pairwise.threshold(x, y, term, fraction=0.2, columns=bias)[0])

  value, gradients = jax.jit(jax.value_and_grad(total, (0, 1)))(x, bias)
  assert value == pytest.approx(np.sum(np.sort(x @ y.T + bias, 1)[:, -8]), rel=1e-5)
  assert not any(np.any(gradient) for gradient in gradients)


def test_float64_is_selected_by_its_own_bits():
  x, y = np.random.default_rng(0).normal(size=(2, 9, 4))
  with jax.enable_x64(True):
    thresholds, _ = jax.jit(functools.partial(pairwise.threshold, count=3))(x, y)
  np.testing.assert_allclose(thresholds, np.sort(x @ y.T, 1)[:, -3], rtol=1e-14)


def test_mistakes_are_refused():
  x = jnp.ones((4, 2))
  for options, message in (
    ({}, 'fraction = None and count = None; give one'),
    ({'fraction': 0.5, 'count': 2}, 'fraction = 0.5 and count = 2; give one'),
    ({'fraction': 1.5}, 'fraction = 1.5; use a number over 0 and at most 1'),
  ):
    with pytest.raises(ValueError, match=message):
      pairwise.threshold(x, x, **options)
