import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.pairs import reweighting
from tests.losses import reference

SCALE = np.float32(7.0)
spread = jax.jit(reweighting.spread)


def pair_losses(image, text, scale, same=None):
  products = image @ text.T
  counts = reference.counted(*products.shape, same)
  scores = np.where(counts, scale * products, -np.inf)
  ends = reference.logsumexp(scores, 1) + reference.logsumexp(scores, 0)
  return ends / 2 - scale * np.diagonal(products)


def dense_weights(values, strategy, temperature):
  """As the paper's code writes them: δ = 1."""
  width, ends = np.ptp(values), np.max(values) + np.min(values)
  h = 2 * values / width - ends / width if width > 1e-6 else np.zeros_like(values)
  f = {
    'linupper': np.minimum(h + 1, 1),
    'quadratic': 1 - h**2,
    'extremes': np.abs(h),
    'upper': 0.5 * h + 0.5,
  }[strategy]
  return reference.softmax(f / temperature, 0)


def random_pairs(batch=16, width=5):
  rng = np.random.default_rng(batch)
  image, text = reference.unit(rng, 2, batch, width)
  return image, text, rng.integers(0, batch, batch)


@functools.partial(jax.jit, static_argnames=('strategy', 'temperature'))
def value_and_gradients(image, text, scale, same, **options):
  def loss(image, text, scale):
    return losses.reweighted_info_nce(image, text, scale=scale, same=same, **options)

  return jax.value_and_grad(loss, (0, 1, 2))(image, text, scale)


@pytest.mark.parametrize(
  ('strategy', 'temperature', 'batch'),
  [
    ('linupper', 1.0, 1),
    ('linupper', 0.2, 7),
    ('quadratic', 0.3, 7),
    ('extremes', 2.0, 8),
    ('upper', 0.2, 8),
  ],
)
def test_it_is_the_dense_one_with_weights_held(strategy, temperature, batch):
  """The gradient is that of the weights as numbers."""
  image, text, same = random_pairs(batch)
  value, gradients = value_and_gradients(
    *(image, text, SCALE, same),
    strategy=strategy,
    temperature=temperature,
  )
  arguments = [np.asarray(a, np.float64) for a in (image, text, SCALE)]
  weights = dense_weights(pair_losses(*arguments, same), strategy, temperature)
  reference.assert_near(value, weights @ pair_losses(*arguments, same))
  expected = reference.differences(lambda *a: weights @ pair_losses(*a, same), *arguments)
  jax.tree.map(reference.assert_near, gradients, expected)


@pytest.mark.parametrize('seed', range(5))
def test_the_losses_span_the_unit_interval(seed):
  values = 10 ** np.random.default_rng(seed).uniform(-3, 3, 20).astype(np.float32)
  h = spread(values)
  # A compiler may multiply by the reciprocal of the range.
  np.testing.assert_allclose([h.min(), h.max()], [-1, 1], rtol=1e-6)
  np.testing.assert_array_equal(np.argsort(h), np.argsort(values))
  np.testing.assert_array_equal(spread(jnp.full(3, 0.1)), np.zeros(3))


@pytest.mark.parametrize('strategy', reweighting.STRATEGIES)
def test_weights_sum_to_one_within_their_bound_and_have_no_gradient(strategy):
  values = jnp.asarray(np.random.default_rng(0).gamma(1.0, 3.0, 50), jnp.float32)
  weigh = functools.partial(reweighting.weigh, strategy=strategy, temperature=0.5)
  weights, slopes = jax.jit(lambda values: (weigh(values), jax.jacobian(weigh)(values)))(values)
  assert weights.sum() == pytest.approx(1, rel=1e-6)
  assert 1.01 < weights.max() / weights.min() <= np.exp(2) * (1 + 1e-6)
  np.testing.assert_array_equal(slopes, np.zeros((50, 50)))


def test_which_samples_weigh_most():
  values = jnp.arange(9.0)  # h = −1, −¾, … 1
  weights = {
    name: np.asarray(reweighting.weigh(values, strategy=name)) for name in reweighting.STRATEGIES
  }
  assert np.unique(weights['linupper'][4:]).size == 1
  assert np.all(np.diff(weights['linupper'][:5]) > 0)
  assert np.all(np.diff(weights['upper']) > 0)
  for name in ('quadratic', 'extremes'):
    np.testing.assert_allclose(weights[name], weights[name][::-1], rtol=1e-6)
  assert weights['quadratic'].argmax() == weights['extremes'].argmin() == 4


@pytest.mark.parametrize(
  'options', [{'temperature': np.inf}, {'temperature': 0.1, 'burn_in': 5, 'step': jnp.int32(4)}]
)
def test_equal_weights_are_info_nce(options):
  image, text, same = random_pairs()
  loss = functools.partial(losses.reweighted_info_nce, scale=SCALE, same=same, **options)
  value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(image, text)
  info_nce = functools.partial(losses.info_nce, scale=SCALE, same=same)
  expected, slopes = jax.jit(jax.value_and_grad(info_nce, (0, 1)))(image, text)
  assert value == pytest.approx(float(expected), rel=1e-6)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), gradients, slopes)


def test_the_burn_in_ends():
  image, text, _ = random_pairs()
  loss = functools.partial(losses.reweighted_info_nce, image, text, scale=SCALE)
  assert loss(burn_in=5, step=jnp.int32(4)) != loss()
  assert loss(burn_in=5, step=jnp.int32(5)) == loss(burn_in=5) == loss()


def test_mistakes_are_named():
  eye = jnp.eye(4)
  with pytest.raises(ValueError, match=r"strategy = 'lower' is unknown; use one of .*'linupper'"):
    losses.reweighted_info_nce(eye, eye, scale=1.0, strategy='lower')
  with pytest.raises(ValueError, match=r'temperature = 0; use a number over 0'):
    losses.reweighted_info_nce(eye, eye, scale=1.0, temperature=0)
