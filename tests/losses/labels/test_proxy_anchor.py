"""Laws of the proxy anchor loss: what a share does."""

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses.labels.metric import ANCHORS, EMBEDDINGS, MIXED, ZEROS, N

PROXIES = ANCHORS[:2]


def test_the_share_joins_positives_and_negatives():
  clean = jax.jit(lambda classes: losses.proxy_anchor(EMBEDDINGS, classes, PROXIES))
  mixed = jax.jit(lambda share: losses.proxy_anchor(EMBEDDINGS, MIXED, PROXIES, share=share))
  for share, classes in ((1, ZEROS), (0, ZEROS + 1)):
    assert mixed(np.full(N, share, 'f')) == pytest.approx(float(clean(classes)), rel=1e-5)


def test_proxies_must_be_vectors():
  with pytest.raises(ValueError, match=r'proxies \(3,\); give \[C, D\]'):
    losses.proxy_anchor(EMBEDDINGS, ZEROS, PROXIES[0])
