"""AMCL on SimCLR, as its formula."""

import jax
import numpy as np
import pytest

from contrastive_jax.losses.views.adaptive import SHARES
from contrastive_jax.methods.amcl import Amcl
from tests.losses import dense
from tests.methods.adaptive import FEATURES, OPTIONS, SIZES, B, C, embed, project, step


@pytest.mark.parametrize('k', [3, 100])
def test_on_simclr_the_negatives_are_the_views_of_other_examples(k):
  method = Amcl(k=k, **OPTIONS)
  inputs = dict(zip(method.reads, FEATURES, strict=True))
  result = step(method, inputs)
  others = ~np.tile(np.eye(B, dtype=bool), (2, 2))
  expected, near = 0.0, []
  with jax.enable_x64(True):
    for n in range(C):
      anchors, positives = (embed(*(project(n, x) for x in FEATURES[::way])) for way in (1, -1))
      options = min(k, 2 * B - 2), 0.01, (0.1, 1.5)
      loss, *tau = dense.adaptive_contrast(anchors, positives, anchors, others, *options)
      expected += np.mean(loss)
      near.append([[np.mean(a < 0.114), np.mean(a > 1.486)] for a in tau])
  assert result.loss == pytest.approx(float(expected), rel=1e-4)
  shares = [result.metrics[name] for name in SHARES]
  np.testing.assert_allclose(shares, np.mean(near, 0).ravel(), atol=1e-6)


def test_what_has_no_loss_is_refused():
  with pytest.raises(ValueError, match=r'bounds = \(2.0, 1.0\); use 0 < low < high'):
    Amcl(bounds=(2.0, 1.0))
  with pytest.raises(ValueError, match='projectors = 0'):
    Amcl(projectors=0)
  with pytest.raises(ValueError, match=r'config\.batch_size = 1 has no negatives'):
    Amcl().heads(SIZES._replace(batch=1))
