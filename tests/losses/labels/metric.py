"""What the tests of the losses of metric learning share."""

import jax
import numpy as np
import pytest

from tests.losses import reference

A, N = 6, 5
ANCHORS = reference.unit(np.random.default_rng(0), A, 3)
EMBEDDINGS = reference.unit(np.random.default_rng(1), N, 3)
ZEROS = np.zeros(N, int)
MIXED = np.stack([ZEROS, ZEROS + 1], 1)


def assert_shares_join_positives_and_negatives(loss, **options):
  """A share of 1 makes all pairs with an anchor of the first class positive, and 0 negative."""
  fixed = {'anchors': ANCHORS, 'anchor_classes': np.zeros(A, int), 'diagonal': True, **options}
  clean = jax.jit(lambda classes: loss(EMBEDDINGS, classes, **fixed))
  mixed = jax.jit(lambda share: loss(EMBEDDINGS, MIXED, share=share, **fixed))
  for share, classes in ((1, ZEROS), (0, ZEROS + 1)):
    assert mixed(np.full(N, share, 'f')) == pytest.approx(float(clean(classes)), rel=1e-5)
  third = fixed | {'anchor_classes': np.full(A, 2)}
  neither = jax.jit(lambda share: loss(EMBEDDINGS, MIXED, share=share, **third))
  assert neither(np.full(N, 0.5, 'f')) == 0
  return mixed
