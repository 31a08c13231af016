"""Terms with side data, and of several products, in every reduction."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.losses import pairwise
from tests.doubles import slow_but
from tests.losses import reference

ROWS, COLUMNS = 24, 40


def logits(scores, rows, columns):
  """A temperature per row, a bias per column, a weight per pair of labels."""
  distance = jnp.abs(rows['label'][:, None] - columns['label'])
  return scores * rows['temperature'][:, None] + columns['bias'] + jnp.log1p(1.0 * distance)


def area(scores, rows, columns):
  """A function of two products, and of a product within each candidate."""
  left, right = scores
  inside = columns['bias'] * rows['temperature'][:, None]
  return -jnp.sqrt(jnp.abs(1 - left * right * inside) + left**2 + right**2 + 0.1)


def gaps(scores, rows, columns):
  """A tree of values."""
  score = jax.tree.leaves(scores)[0]
  return {'gap': (score - rows['temperature'][:, None]) ** 2, 'bias': columns['bias']}


def draw(seed=0):
  """Vectors for two products, scale, and side data."""
  rng = np.random.default_rng(seed)

  def side(size):
    return {
      'label': rng.integers(0, 5, size, dtype=np.int32),
      'temperature': rng.uniform(0.5, 2, size).astype('f'),
      'bias': rng.normal(size=size).astype('f'),
      'vector': rng.normal(size=(size, 3)).astype('f'),
    }

  x = reference.unit(rng, ROWS, 6), reference.unit(rng, ROWS, 4)
  y = reference.unit(rng, COLUMNS, 6), reference.unit(rng, COLUMNS, 4)
  exclude = tuple(rng.integers(0, 8, size, dtype=np.int32) for size in (ROWS, COLUMNS))
  return (x, y, np.float32(5), side(ROWS), side(COLUMNS)), exclude


def streamed(name, term, exclude, mesh, x, y, scale, rows, columns):
  """The results of a reduction."""
  options = {'scale': scale, 'rows': rows, 'columns': columns, 'exclude': exclude}
  options |= {'diagonal': False, 'mesh': reference.make_mesh(mesh), 'block_size': 7}
  if name == 'logsumexp':
    return pairwise.logsumexp(x, y, term, **options)
  if name == 'sum':
    return pairwise.sum(x, y, gaps, **options)
  if name == 'expectation':
    return pairwise.expectation(x, y, gaps, term, **options)
  if name == 'vectors':
    vectors = rows['vector'], columns['vector']
    return pairwise.expectation(x, y, vectors, term, **options)
  return pairwise.top_k(x, y, 3, term, **options)[0]


def dense(name, term, exclude, x, y, scale, rows, columns):
  """The same from whole matrices."""
  scores = jax.tree.map(lambda a, b: scale * a @ b.T, x, y)
  counts = reference.counted(ROWS, COLUMNS, exclude, diagonal=False)
  values = term(scores, rows, columns)
  masked = jnp.where(counts, values, -jnp.inf)
  if name == 'logsumexp':
    return jax.nn.logsumexp(masked, 1), jax.nn.logsumexp(masked, 0)
  if name == 'top_k':
    return jax.lax.top_k(masked, 3)[0]
  of_pairs = jax.tree.map(lambda a: jnp.broadcast_to(a, counts.shape), gaps(scores, rows, columns))
  if name == 'sum':
    of_pairs = jax.tree.map(lambda a: jnp.where(counts, a, 0.0), of_pairs)
    return tuple(jax.tree.map(functools.partial(jnp.sum, axis=axis), of_pairs) for axis in (1, 0))
  results = []
  for axis, vectors in ((1, columns['vector']), (0, rows['vector'])):
    weights = jax.nn.softmax(masked, axis)
    expected = jax.tree.map(lambda a: jnp.sum(weights * a, axis), of_pairs)  # noqa: B023
    if name == 'vectors':
      expected = (weights if axis else weights.T) @ vectors
    results.append((expected, jax.nn.logsumexp(masked, axis)))
  return tuple(results)


def weigh(results):
  """A scalar that depends on every result."""
  leaves = jax.tree.leaves(results)
  return sum(jnp.sum(a * jnp.cos(jnp.arange(a.size)).reshape(a.shape)) for a in leaves)


NAMES = ('logsumexp', 'sum', 'expectation', 'vectors', 'top_k')
# The ring of groups takes all ways of the others; products and meshes meet in a few reductions.
FAST = [(name, 1, '8/3000') for name in NAMES]
FAST += [('logsumexp', 2, '8/3000'), ('expectation', 2, 'none'), ('sum', 2, '8/0')]
FAST += [('top_k', 2, 'none'), ('vectors', 2, '8/0')]


@pytest.mark.parametrize(
  ('name', 'products', 'mesh'),
  slow_but(itertools.product(NAMES, (1, 2), ('none', '8/0', '8/3000')), *FAST),
)
def test_value_and_gradients_are_the_dense_ones(name, products, mesh):
  (x, y, *others), exclude = draw()
  term = area if products == 2 else logits
  arguments = (x, y, *others) if products == 2 else (x[0], y[0], *others)
  truth = functools.partial(dense, name, term, exclude)

  def weighted(function, *arguments):
    results = function(*arguments)
    return weigh(results), results

  step = jax.value_and_grad(weighted, range(1, 6), has_aux=True, allow_int=True)
  step = jax.jit(step, static_argnums=0)
  function = functools.partial(streamed, name, term, exclude, mesh)
  (_, results), gradients = step(function, *arguments)
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, arguments)
    (_, expected), slopes = jax.tree.map(np.asarray, step(truth, *wide))
  jax.tree.map(reference.assert_near, results, expected)
  for got, slope in zip(jax.tree.leaves(gradients), jax.tree.leaves(slopes), strict=True):
    if slope.dtype != jax.dtypes.float0:
      reference.assert_near(got, slope)


@pytest.mark.parametrize('products', slow_but([1, 2], 2))
def test_scales_and_biases_of_a_pair_meet_side_data(products):
  """Scores that differ between rows and columns all pass through the term."""
  (x, y, _, rows, columns), _ = draw()
  x, y, term = (x, y, area) if products == 2 else (x[0], y[0], logits)
  scales = rows['temperature'] + 1, columns['temperature'] + 2
  biases = rows['bias'], columns['bias']

  def streamed(x, y, scale, bias, rows, columns):
    options = {'scale': scale, 'bias': bias, 'rows': rows, 'columns': columns}
    return weigh(pairwise.logsumexp(x, y, term, **options, block_size=9))

  def whole(x, y, scale, bias, rows, columns):
    products = jax.tree.map(lambda a, b: a @ b.T, x, y)
    by_row = jax.tree.map(lambda a: scale[0][:, None] * a + bias[0][:, None], products)
    by_column = jax.tree.map(lambda a: scale[1] * a + bias[1], products)
    by_row, by_column = (term(scores, rows, columns) for scores in (by_row, by_column))
    return weigh((jax.nn.logsumexp(by_row, 1), jax.nn.logsumexp(by_column, 0)))

  arguments = x, y, scales, biases, rows, columns
  gradients = jax.jit(jax.grad(streamed, range(6), allow_int=True))(*arguments)
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, arguments)
    slopes = jax.jit(jax.grad(whole, range(6), allow_int=True))(*wide)
    expected = jax.tree.map(np.asarray, slopes)
  for got, slope in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
    if slope.dtype != jax.dtypes.float0:
      reference.assert_near(got, slope)


def test_where_no_pair_counts():
  x = jnp.eye(3)
  exclude = jnp.array([0, 0, 1]), jnp.zeros(3, int)  # row 2 alone has pairs

  def total(x, values):
    (expected, total), _ = pairwise.expectation(
      x, x, (None, values), exclude=exclude, diagonal=False, block_size=2
    )
    return jnp.sum(expected) + jnp.sum(jnp.where(total > -1e9, total, 0.0)), (expected, total)

  step = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
  (_, (expected, total)), gradients = step(x, 2 * x)
  np.testing.assert_array_equal(expected, [[0, 0, 0], [0, 0, 0], [1, 1, 0]])
  np.testing.assert_array_equal(np.isneginf(total), [True, True, False])
  assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize('size', slow_but([4096, 16384], 16384))
def test_bfloat16_side_data_is_summed_in_float32(size):
  """In bfloat16 a sum of many terms of one sign stops growing."""
  x = jnp.ones((8, 4), jnp.bfloat16)
  y = jnp.asarray(1 + np.random.default_rng(0).normal(size=(size, 4)), jnp.bfloat16)
  bias = jnp.ones(8, jnp.bfloat16)

  def total(bias, vectors):
    squares, _ = pairwise.sum(x, y, lambda s, r, c: r[:, None] * s**2, rows=bias, block_size=512)
    (expected, _), _ = pairwise.expectation(x, y, (None, vectors), scale=0.01)
    return jnp.sum(squares) + jnp.sum(expected)

  got = jax.jit(jax.grad(total, (0, 1)))(bias, y)
  assert {a.dtype for a in got} == {jnp.bfloat16.dtype}
  products = np.asarray(x, np.float64) @ np.asarray(y, np.float64).T
  expected = np.sum(products**2, 1), np.tile(reference.softmax(0.01 * products, 1).sum(0), (4, 1)).T
  for a, b in zip(got, expected, strict=True):
    reference.assert_near(a, b, floor=0.0, tolerance=2**-8)


def test_mistakes_are_refused():
  x = jnp.ones((4, 2))
  term = logits
  cases = (
    (lambda: pairwise.sum(x, x, term, rows=jnp.ones(3)), r'rows has a leaf of shape \(3,\)'),
    (lambda: pairwise.sum(x, x, term, columns=1.0), r'columns has a leaf of shape \(\)'),
    (lambda: pairwise.logsumexp(x, x, columns=jnp.ones(4)), 'give a term, or leave them out'),
    (lambda: pairwise.logsumexp((x, x), (x, x)), 'tuple of 2 arrays; give a term'),
    (lambda: pairwise.logsumexp((x, x), x, term), 'a tuple of as many'),
    (lambda: pairwise.logsumexp((x, x[:3]), (x, x), term), 'a tuple of as many'),
    (lambda: pairwise.logsumexp((), (), term), 'not empty'),
    (lambda: pairwise.logsumexp(x, x, lambda s: (s, s)), 'give one array'),
    (lambda: pairwise.logsumexp(x, x, jnp.sin, kernel='pallas'), 'takes no term'),
    (
      lambda: pairwise.sum(x, x, term, rows=jnp.ones(4), positive=jnp.arange(4)),
      'positive was given with rows',
    ),
    (lambda: pairwise.expectation(x, x, (None, jnp.ones(4))), r'values has shape \(4,\)'),
  )
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()
