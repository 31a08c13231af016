"""Laws of InfoNCE of mixtures: what it reduces to, and that targets add up."""

import functools

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import dense, reference

B = 6
MIXED, OTHER = reference.unit(np.random.default_rng(0), 2, B, 4)
SHARE = np.linspace(0, 1, B, dtype=np.float32)
loss = jax.jit(functools.partial(losses.mixup_info_nce, scale=5.0))


@pytest.mark.parametrize(
  'partner', [np.arange(B), np.roll(np.arange(B), 1), np.array([0, 2, 1, 3, 5, 4])]
)
def test_targets_of_a_row_sum_to_1_whatever_the_permutation(partner):
  targets = dense.mixup_targets(partner, SHARE)
  np.testing.assert_allclose(np.sum(targets, 1), 1, rtol=1e-6)
  expected = float(np.mean(dense.mixup_info_nce(MIXED, OTHER, partner, SHARE, 5.0)))
  assert loss(MIXED, OTHER, partner, SHARE) == pytest.approx(expected, rel=1e-5)


def test_unmixed_rows_make_it_info_nce():
  """With shares of 1, and where each example is its own partner, whatever the shares."""
  expected = float(losses.info_nce(MIXED, OTHER, scale=5.0))
  own, other = np.arange(B), np.roll(np.arange(B), 2)
  assert loss(MIXED, OTHER, other, np.ones_like(SHARE)) == pytest.approx(expected, rel=1e-6)
  assert loss(MIXED, OTHER, own, SHARE) == pytest.approx(expected, rel=1e-6)


def test_a_share_of_0_makes_the_partner_the_positive():
  partner = np.roll(np.arange(B), 1)
  expected = float(losses.info_nce(MIXED, OTHER[partner], scale=5.0))
  assert loss(MIXED, OTHER, partner, np.zeros_like(SHARE)) == pytest.approx(expected, rel=1e-6)
