"""Laws of the multi-similarity loss: what a share does, and what mining leaves out."""

import jax
import numpy as np

from contrastive_jax import losses
from tests.losses.labels import metric


def test_the_share_joins_positives_and_negatives():
  metric.assert_shares_join_positives_and_negatives(losses.multi_similarity, mining=None)


def test_mining_leaves_out_easy_pairs():
  apart = np.repeat(np.eye(3, dtype=np.float32), 2, 0)  # Any positive is more similar.
  value, gradient = jax.jit(jax.value_and_grad(losses.multi_similarity))(apart, np.arange(6) // 2)
  assert value == 0 and not np.any(gradient)
