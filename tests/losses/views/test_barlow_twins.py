import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import dense, reference


def test_it_is_zero_where_the_correlation_is_the_identity_and_only_there():
  x = reference.uncorrelated()
  # Each feature's mean and variance are free.
  assert losses.barlow_twins(x, 3 * x + 2) == pytest.approx(0, abs=1e-5)
  mixed = x + 0.3 * x[:, ::-1]
  assert losses.barlow_twins(mixed, mixed) > 1e-3  # the diagonal is 1, and others are not 0
  assert losses.barlow_twins(x, np.roll(x, 1, 1)) > 1  # all off the diagonal
  assert losses.barlow_twins(x, -x) == pytest.approx(4 * 5, rel=1e-3)


def test_features_need_not_divide_over_the_mesh():
  x, y = np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32)
  options = {'block_size': 2, 'mesh': reference.make_mesh('2')}
  found = jax.jit(lambda x, y: losses.barlow_twins(x, y, **options))(x, y)
  assert found == pytest.approx(float(dense.barlow_twins(x, y)), rel=1e-5)


@pytest.mark.parametrize(
  ('size', 'options', 'message'),
  [(1, {}, r'batch of 1 \(1, 3\)'), (2, {'off_diagonal': -1.0}, 'off_diagonal = -1.0; use')],
)
def test_what_has_no_loss_is_refused(size, options, message):
  with pytest.raises(ValueError, match=message):
    losses.barlow_twins(np.ones((size, 3)), np.ones((size, 3)), **options)
