import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def test_it_is_zero_only_where_positives_coincide():
  image, text = reference.unit(np.random.default_rng(0), 2, 9, 4)
  assert losses.alignment(image, image) == 0
  assert losses.alignment(image, text) > 0
  assert losses.alignment(image, -image) == pytest.approx(4, rel=1e-5)
