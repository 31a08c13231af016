import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def drawn(size=8, width=6):
  return reference.unit(np.random.default_rng(0), 4, size, width)


def test_targets_that_assign_each_to_its_own_make_it_info_nce():
  image, text, *_ = drawn()
  own = np.eye(8, 8)
  got = losses.swapped_assignment(image, text, own, own, scale=5.0)
  assert got == pytest.approx(float(losses.info_nce(image, text, scale=5.0)), rel=1e-5)


def test_targets_that_are_all_alike_make_it_the_smoothest_info_nce():
  image, text, target, _ = drawn()
  alike = np.ones_like(target) * target[:1]
  got = losses.swapped_assignment(image, text, alike, alike, scale=5.0)
  scores = 5.0 * np.float64(image) @ text.T
  totals = reference.logsumexp(scores, 1).mean() + reference.logsumexp(scores, 0).mean()
  assert got == pytest.approx(totals / 2 - scores.mean(), rel=1e-5)


def test_what_has_no_loss_is_refused():
  image, text, *targets = drawn()
  with pytest.raises(ValueError, match='epsilon = 0; use a number over 0'):
    losses.swapped_assignment(image, text, *targets, scale=5.0, epsilon=0)
  fewer = (target[:4] for target in targets)
  with pytest.raises(ValueError, match=r'image \(8, 6\) and image_target \(4, 6\) differ in B'):
    losses.swapped_assignment(image, text, *fewer, scale=5.0)
