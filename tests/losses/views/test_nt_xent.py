import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def test_orthonormal_views():
  loss = losses.nt_xent(jnp.eye(7), jnp.eye(7), scale=3.0)
  assert loss == pytest.approx(math.log(math.exp(3) + 2 * 6) - 3, rel=1e-5)


def test_views_may_be_swapped():
  first, second = reference.unit(np.random.default_rng(0), 2, 9, 4)
  loss = functools.partial(losses.nt_xent, scale=5.0)
  np.testing.assert_allclose(loss(first, second), loss(second, first), rtol=1e-6)
