import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import dense, reference


def test_equal_views_that_vary_and_do_not_correlate_have_no_loss():
  x = reference.uncorrelated() * (15 / 16) ** 0.5
  assert losses.vicreg(2 * x, 2 * x) == pytest.approx(0, abs=1e-5)
  assert losses.vicreg(x + 0.3 * x[:, ::-1], x) > 0.1
  # The hinge of half the deviation, and the distance.
  terms = {'variance': 0.0, 'covariance': 0.0}
  assert losses.vicreg(x, x / 2, **terms) == pytest.approx(25 * np.mean((x / 2) ** 2), rel=1e-5)
  spread = losses.vicreg(x / 2, x / 2, invariance=0.0, covariance=0.0)
  assert spread == pytest.approx(25 * 0.5, rel=1e-3)


def test_each_views_regularizers_are_its_own():
  """The variance and the covariance do not change if the rows of one view are permuted."""
  x, y = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
  alone = {'invariance': 0.0}
  found = losses.vicreg(x, y, **alone)
  assert found == pytest.approx(float(losses.vicreg(x, y[::-1], **alone)), rel=1e-5)
  assert losses.vicreg(x, x, **alone) + losses.vicreg(y, y, **alone) == pytest.approx(2 * found)


def test_features_need_not_divide_over_the_mesh():
  x, y = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
  options = {'block_size': 2, 'mesh': reference.make_mesh('2')}
  found = jax.jit(lambda x, y: losses.vicreg(x, y, **options))(x, y)
  assert found == pytest.approx(float(dense.vicreg(x, y)), rel=1e-5)


@pytest.mark.parametrize(
  ('size', 'options', 'message'),
  [(1, {}, r'batch of 1 \(1, 3\)'), (2, {'covariance': -1.0}, 'covariance = -1.0; use')],
)
def test_what_has_no_loss_is_refused(size, options, message):
  with pytest.raises(ValueError, match=message):
    losses.vicreg(np.ones((size, 3)), np.ones((size, 3)), **options)
