"""Laws of the contrastive loss: what a share does, and which arguments go together."""

import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses.labels import metric


def test_the_share_joins_positives_and_negatives_linearly():
  mixed = metric.assert_shares_join_positives_and_negatives(
    losses.contrastive_margin, negative_margin=2.1
  )
  negative, middle, positive = (
    float(mixed(np.full(metric.N, share, 'f'))) for share in (0, 0.3, 1)
  )
  assert min(negative, positive) > 0
  assert middle == pytest.approx(0.3 * positive + 0.7 * negative, rel=1e-5)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'share': np.ones(5, 'f')}, r'classes \(5,\) do not match; give .* or \[N, 2\]'),
    ({'classes': metric.MIXED, 'share': np.ones(5, 'f')}, r'share \(5,\) without anchors'),
    ({'anchors': metric.ANCHORS}, r'are \[\(6, 3\), None\]; give both'),
  ],
)
def test_arguments_that_do_not_go_together_are_refused(given, message):
  with pytest.raises(ValueError, match=message):
    losses.contrastive_margin(metric.EMBEDDINGS, **({'classes': metric.ZEROS} | given))
