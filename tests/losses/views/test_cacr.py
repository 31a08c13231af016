"""CACR: closed forms and limits, in float64."""

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference

B, V, D = 5, 3, 5
PAIRS = ((0, 1), (0, 2), (1, 2))


@jax.jit
def limits(views):
  """With small temperatures, large ones, and the repulsion alone."""
  small, large = ({'tau_pos': tau, 'tau_neg': tau} for tau in (1e-7, 1e4))
  return (
    losses.cacr(views, alpha=0.7, beta=1.5, **small),
    losses.cacr(views, alpha=0.7, beta=1.5, **large),
    losses.cacr(views, alpha=0.0, beta=1.5),
  )


def test_weights_are_uniform_at_0_and_select_at_infinity():
  with jax.enable_x64(True):
    views = np.float64(reference.unit(np.random.default_rng(0), B, V, D))
    uniform, hardest, _ = limits(views)
    orthonormal = limits(np.stack([np.eye(B)] * V, 1))
  squares = np.sum((views[:, :, None, None] - views) ** 2, -1)  # [B, V, B, V]
  own = np.einsum('ivix->ivx', squares)
  negatives = [[np.delete(squares[i, x, :, y], i) for i in range(B)] for x, y in PAIRS]
  expected = 0.7 * own.sum() / (B * V * (V - 1)) - 1.5 * np.mean(negatives)
  assert uniform == pytest.approx(expected, rel=1e-6)
  expected = 0.7 * own.max(2).mean() - 1.5 * np.min(negatives, 2).mean()
  assert hardest == pytest.approx(expected, rel=1e-4)
  # Without attraction, and with negatives at a squared distance of 2.
  np.testing.assert_allclose(orthonormal, np.full(3, -2 * 1.5), rtol=1e-9)


def test_the_attraction_of_two_views_is_their_alignment():
  first, second = reference.unit(np.random.default_rng(0), 2, B, D)
  views = np.stack([first, second], 1)
  attraction = losses.cacr(views, alpha=2.0) - losses.cacr(views, alpha=0.0)
  assert attraction == pytest.approx(2 * np.mean(np.sum((first - second) ** 2, 1)), rel=1e-4)


@pytest.mark.parametrize(
  ('size', 'options', 'message'),
  [
    (1, {}, r'views \(1, 2, 3\) has one example'),
    (2, {'tau_neg': 0.0}, 'tau_neg = 0.0'),
    (2, {'tau_plus': 1.0}, r'tau_plus = 1.0; use 0 or more, a number over 0, and one in \[0, 1\)'),
  ],
)
def test_what_has_no_loss_is_refused(size, options, message):
  with pytest.raises(ValueError, match=message):
    losses.cacr(np.ones((size, 2, 3), np.float32), **options)
