import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference


def test_orthonormal_views():
  loss = losses.decoupled(jnp.eye(7), jnp.eye(7), scale=3.0)
  assert loss == pytest.approx(math.log(2 * 6) - 3, rel=1e-5)


def test_wide_weights_are_no_weights():
  first, second = reference.unit(np.random.default_rng(0), 2, 9, 4)
  loss = functools.partial(losses.decoupled, first, second, scale=5.0)
  np.testing.assert_allclose(loss(sigma=1e5), loss(), rtol=1e-4)


def test_two_examples_are_each_others_only_negatives():
  """Then NT-Xent of an anchor is softplus of its decoupled loss."""
  first = reference.unit(np.random.default_rng(0), 4)
  views = np.stack([first, -first])
  decoupled = losses.decoupled(views, views, scale=2.0)
  nt_xent = losses.nt_xent(views, views, scale=2.0)
  np.testing.assert_allclose(nt_xent, jax.nn.softplus(decoupled), rtol=1e-5)


def test_one_example_is_refused():
  with pytest.raises(ValueError, match='1 rows, and no negatives; give 2 or more'):
    losses.decoupled(jnp.ones((1, 4)), jnp.ones((1, 4)), scale=1.0)
