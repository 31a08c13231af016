import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax.losses import pairwise
from contrastive_jax.planning.hlo import Program
from tests.doubles import slow_but
from tests.losses import reference


def signed_softplus(scores, positive):
  return jax.nn.softplus(jnp.where(positive, -scores, scores))


@functools.partial(jax.jit, static_argnames=('name', 'options', 'diagonal', 'mesh', 'block_size'))
def weighted(name, options, x, y, numbers, row_weights, column_weights, **keywords):
  """A weighted sum of a reduction's results, and its gradients with respect to x, y, numbers."""

  def total(x, y, numbers):
    reduction = functools.partial(getattr(pairwise, name), x, y, *options, **keywords)
    rows, columns = reduction(**numbers)
    # Where no pair counts the sum is −inf or NaN, and yet no gradient may come back.
    return jnp.sum(rows * row_weights) + jnp.sum(columns * column_weights), (rows, columns)

  return jax.value_and_grad(total, (0, 1, 2), has_aux=True)(x, y, numbers)


def parts(a):
  return a if isinstance(a, tuple) else (a, a)


def dense(name, x, y, numbers, weights, exclude, positive, diagonal):
  """The same in float64: results, and gradients."""
  x, y = x.astype(np.float64), y.astype(np.float64)
  products = x @ y.T
  counts = reference.counted(*products.shape, exclude, diagonal)
  is_positive = np.equal(*np.ix_(*parts(positive)))
  results, slope, slopes = [], 0.0, {'scale': [], 'bias': []}
  for side, axis in enumerate((1, 0)):
    length = products.shape[1 - axis]
    scale, bias = (
      np.expand_dims(np.broadcast_to(parts(numbers[key])[side], length), axis).astype(np.float64)
      for key in ('scale', 'bias')
    )
    scores = scale * products + bias
    weight = np.expand_dims(weights[side], axis)
    if name == 'logsumexp':
      scores = np.where(counts, scores, -np.inf)
      results.append(reference.logsumexp(scores, axis))
      part = weight * reference.softmax(scores, axis)
    else:
      sign = np.where(is_positive, -1.0, 1.0)
      results.append(np.sum(np.where(counts, np.logaddexp(0, sign * scores), 0.0), axis))
      part = np.where(counts, weight * sign / (1 + np.exp(-sign * scores)), 0.0)
    slope += scale * part
    slopes['scale'].append(np.sum(part * products, axis))
    slopes['bias'].append(np.sum(part, axis))
  gradients = {
    key: tuple(
      total if np.ndim(number) else total.sum()
      for total, number in zip(slopes[key], parts(numbers[key]), strict=True)
    )
    for key in slopes
  }
  for key, number in numbers.items():
    if not isinstance(number, tuple):
      gradients[key] = sum(gradients[key])
  return results, (slope @ y, slope.T @ x, gradients)


def check(name, rng, rows, columns, numbers, classes, diagonal=True, mesh='none', block_size=None):
  """A reduction of random vectors is the dense one, in value and in every gradient."""
  x, y = reference.unit(rng, rows, 12), reference.unit(rng, columns, 12)
  exclude = rng.integers(0, classes, rows), rng.integers(0, classes, columns)
  positive = rng.integers(0, 3, rows), rng.integers(0, 3, columns)
  weights = rng.normal(size=rows).astype('f'), rng.normal(size=columns).astype('f')
  options = (signed_softplus,) if name == 'sum' else ()
  keywords = {'positive': positive} if name == 'sum' else {}
  (_, results), gradients = weighted(
    name,
    options,
    x,
    y,
    numbers,
    *weights,
    exclude=exclude,
    diagonal=diagonal,
    mesh=reference.make_mesh(mesh),
    block_size=block_size,
    **keywords,
  )
  truth, expected = dense(name, x, y, numbers, weights, exclude, positive, diagonal)
  jax.tree.map(reference.assert_near, tuple(results), tuple(truth))
  jax.tree.map(reference.assert_near, gradients, expected)


def random_numbers(rng, rows, columns, form):
  """Scales and biases: one of each; or a pair of vectors; or mixed."""
  scales = rng.uniform(1, 40, rows).astype('f'), rng.uniform(1, 40, columns).astype('f')
  biases = rng.normal(size=rows).astype('f'), rng.normal(size=columns).astype('f')
  one = np.float32(20.0), np.float32(-3.0)
  scale, bias = {
    'one': one,
    'pair': (scales, biases),
    'mixed': ((scales[0], one[0]), one[1]),
  }[form]
  return {'scale': scale, 'bias': bias}


MESHES = ('none', '8/0', '8/4000', '2x2x2')
# Every form, with a diagonal and without, and every mesh.
FAST = [('logsumexp', 'one', '2x2x2'), ('logsumexp', 'pair', '8/4000'), ('sum', 'one', '8/0')]
FAST += [('sum', 'pair', 'none'), ('sum', 'mixed', '8/4000'), ('logsumexp', 'mixed', 'none')]


@pytest.mark.parametrize(
  ('name', 'form', 'mesh'),
  slow_but(itertools.product(('logsumexp', 'sum'), ('one', 'pair', 'mixed'), MESHES), *FAST),
)
def test_value_and_gradients_are_the_dense_ones(name, form, mesh):
  rng = np.random.default_rng(0)
  numbers = random_numbers(rng, 40, 72, form)
  diagonal = form != 'pair'
  check(name, rng, 40, 72, numbers, 6, diagonal, mesh, block_size=11)


@pytest.mark.parametrize('name', slow_but(['logsumexp', 'sum'], 'sum'))
@settings(max_examples=8, deadline=None)
@given(
  rows=st.integers(1, 15),
  columns=st.integers(1, 15),
  block_size=st.integers(1, 16),
  classes=st.integers(1, 20),
  diagonal=st.booleans(),
  seed=st.integers(0, 2**16),
)
def test_any_shape(name, rows, columns, block_size, classes, diagonal, seed):
  rng = np.random.default_rng(seed)
  numbers = random_numbers(rng, rows, columns, 'one')
  check(name, rng, rows, columns, numbers, classes, diagonal, block_size=block_size)


@pytest.mark.parametrize('mesh', slow_but(['none', '2'], '2'))
def test_where_no_pair_counts(mesh):
  rng = np.random.default_rng(0)
  for name in ('logsumexp', 'sum'):
    # One class: only the diagonal is left, and then not even that.
    check(name, rng, 6, 4, random_numbers(rng, 6, 4, 'one'), 1, False, mesh, block_size=2)


def test_far_scores_neither_overflow_nor_vanish():
  x, y = np.eye(3, dtype='f'), -np.eye(3, dtype='f')
  numbers = {'scale': np.float32(1e4), 'bias': np.float32(0)}
  (_, results), gradients = weighted('logsumexp', (), x, y, numbers, np.ones(3), np.ones(3))
  scores = 1e4 * (x @ y.T).astype(np.float64)
  reference.assert_near(results[0], reference.logsumexp(scores, 1))
  assert all(np.isfinite(gradient).all() for gradient in jax.tree.leaves(gradients))
  one_far = np.array([[1.0, 0.0]], 'f'), np.array([[1.0, 0.0], [-1.0, 0.0]], 'f')
  columns = pairwise.logsumexp(*one_far, scale=100.0)[1]
  np.testing.assert_allclose(columns, [100.0, -100.0])


def test_float64_stays_float64():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(2, 9, 4))
  with jax.enable_x64(True):
    rows, _ = pairwise.logsumexp(x, y, block_size=4)
    _, where = pairwise.top_k(x, y, 3, block_size=4)
  np.testing.assert_allclose(rows, reference.logsumexp(x @ y.T, 1), rtol=1e-14)
  np.testing.assert_array_equal(where, np.argsort(-x @ y.T, axis=1)[:, :3])


def test_a_term_may_be_a_tree():
  x, y = reference.unit(np.random.default_rng(0), 2, 6, 4)
  rows, columns = pairwise.sum(
    x, y, lambda s: {'count': s > 0, 'square': s**2}, scale=2.0, block_size=4
  )
  scores = 2.0 * (x @ y.T).astype(np.float64)
  for results, axis in ((rows, 1), (columns, 0)):
    np.testing.assert_array_equal(results['count'], np.sum(scores > 0, axis))
    reference.assert_near(results['square'], np.sum(scores**2, axis))


def test_biases_of_a_pair_count_ranks():
  x, y = reference.unit(np.random.default_rng(0), 2, 30, 4)
  own = -np.asarray(pairwise.paired(x, y))
  ranks, _ = pairwise.sum(x, y, lambda s: s > 0, bias=(own, own), diagonal=False, block_size=8)
  order = np.argsort(-(x.astype(np.float64) @ y.T.astype(np.float64)), axis=1)
  np.testing.assert_array_equal(ranks, np.argmax(order == np.arange(30)[:, None], axis=1))


SIZES = (1, None), (5, 3), (24, 7)  # k, and the block's
TOP_K = [('none', 24, 7), ('1', 1, None), ('4/0', 5, 3), ('4x2/2000', 5, 3), ('4x2/2000', 24, 7)]


@pytest.mark.parametrize(
  ('mesh', 'k', 'block_size'),
  slow_but([(mesh, *size) for mesh in ('none', '1', '4/0', '4x2/2000') for size in SIZES], *TOP_K),
)
def test_top_k_is_the_dense_one(mesh, k, block_size):
  rng = np.random.default_rng(k)
  x, y = reference.unit(rng, 16, 6), reference.unit(rng, 24, 6)
  weights = rng.normal(size=(16, k))
  exclude = rng.integers(0, 4, 16), rng.integers(0, 4, 24)

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
  def weighted_values(x, y, scale):
    values, where = pairwise.top_k(
      x,
      y,
      k,
      scale=scale,
      exclude=exclude,
      diagonal=False,
      block_size=block_size,
      mesh=reference.make_mesh(mesh),
    )
    return jnp.sum(jnp.where(where >= 0, values, 0.0) * weights), (values, where)

  (_, (values, where)), gradients = weighted_values(x, y, 3.0)
  products = x.astype(np.float64) @ y.T.astype(np.float64)
  scores = np.where(reference.counted(16, 24, exclude, diagonal=False), 3 * products, -np.inf)
  order = np.argsort(-scores, axis=1, kind='stable')[:, :k]
  expected = np.take_along_axis(scores, order, axis=1)
  reference.assert_near(values, expected)
  np.testing.assert_array_equal(where, np.where(np.isfinite(expected), order, -1))

  slope = np.zeros_like(products)
  np.put_along_axis(slope, order, np.where(np.isfinite(expected), weights, 0.0), axis=1)
  truth = 3 * slope @ y, 3 * slope.T @ x, np.sum(slope * products)
  jax.tree.map(reference.assert_near, gradients, truth)


@pytest.mark.parametrize('mesh', ['none', '2', '8/0'])
def test_of_equal_scores_the_lower_column_comes_first(mesh):
  x = np.ones((8, 2), 'f')
  y = np.repeat(np.array([1.0, 2.0, 2.0, 1.0], 'f'), 4)[:, None] * np.ones(2, 'f')
  values, where = pairwise.top_k(x, y, 10, block_size=3, mesh=reference.make_mesh(mesh))
  np.testing.assert_array_equal(where, np.tile([4, 5, 6, 7, 8, 9, 10, 11, 0, 1], (8, 1)))
  np.testing.assert_array_equal(values, np.tile([4.0] * 8 + [2.0] * 2, (8, 1)))


def test_mistakes_are_refused():
  x = jnp.ones((4, 2))
  explicit = jax.make_mesh((2,), ('data',), axis_types=(jax.sharding.AxisType.Explicit,))
  cases = (
    (lambda: pairwise.logsumexp(x, jnp.ones((4, 3))), r'x is \(4, 2\) and y is \(4, 3\)'),
    (lambda: pairwise.logsumexp(x, x[:0]), r'y is \(0, 2\).*not empty'),
    (lambda: pairwise.logsumexp(x, x, scale=jnp.ones(4)), r'scale has shape \(4,\).*a pair'),
    (lambda: pairwise.logsumexp(x, x, bias=(1.0, jnp.ones(3))), r'bias has shape \(3,\)'),
    (lambda: pairwise.logsumexp(x, x, exclude=jnp.arange(3)), r'exclude has shape \(3,\).*4'),
    (lambda: pairwise.logsumexp(x, x, exclude=jnp.ones(4)), 'exclude.*float32.*integers'),
    (lambda: pairwise.logsumexp(x, x, block_size=0), 'block_size = 0; use 1 or more'),
    (lambda: pairwise.top_k(x, x, 5), 'k = 5 of 4 columns; use 1 to 4'),
    (lambda: pairwise.logsumexp(x, x, mesh=reference.make_mesh('8')), '4 rows.*8 shards'),
    (lambda: pairwise.logsumexp(x, x, mesh=explicit), 'axis_types.*Explicit.*AxisType.Auto'),
  )
  for call, message in cases:
    with pytest.raises(ValueError, match=message):
      call()


@pytest.mark.parametrize(
  ('gather_bytes', 'group'),
  slow_but(
    [(0, 1), (9_000, 1), (14_000, 2), (28_000, 2), (36_000, 4), (48_000, 8)],
    *[(9_000, 1), (28_000, 2), (36_000, 4), (48_000, 8)],
  ),
)
def test_groups_are_as_large_as_their_memory_allows(gather_bytes, group):
  """Of a ring of 8 devices 8 / group hops remain."""
  x = jnp.ones((64, 76))
  ring = reference.make_mesh(f'8/{gather_bytes}')
  loss = jax.jit(lambda x: jnp.sum(pairwise.logsumexp(x, x, mesh=ring)[0]))
  own = jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(ring.mesh, jax.P('data')))
  found = Program(loss.lower(own).compile().as_text()).collectives()
  hops = found['collective-permute'].count if 'collective-permute' in found else 1
  assert hops == 8 // group
