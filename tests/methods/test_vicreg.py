import functools
import itertools

import jax
import numpy as np
import pytest

from contrastive_jax.methods import METHODS
from tests.losses import dense
from tests.methods import image_views

WEIGHTS = {'vicreg': {'invariance': 2.0, 'covariance': 3.0}, 'barlow_twins': {'off_diagonal': 0.1}}


@pytest.mark.parametrize('name', WEIGHTS)
def test_the_loss_is_the_dense_one_over_pairs_of_views(name):
  """With a projector that is the identity: of `vicreg` and `barlow_twins`."""
  method, inputs = METHODS[name](**WEIGHTS[name]), image_views.inputs_of()
  heads = image_views.identities(method)
  found = jax.jit(lambda inputs: method.loss(inputs, heads, {}, None).loss)(inputs)
  views = image_views.views_of(inputs)
  one = jax.jit(functools.partial(getattr(dense, name), **WEIGHTS[name]))
  expected = [one(*pair) for pair in itertools.combinations(views, 2)]
  assert found == pytest.approx(np.mean(expected), rel=1e-5)
