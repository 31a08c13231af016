"""SupReMix as a method: its views, its shares, and its options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.methods.supremix import SupReMix
from tests.losses import reference

VIEWS = reference.unit(np.random.default_rng(0), 6, 2, 4)
NUMBERS = np.array([1, 2, 3, 3, 5, 9], 'f')


def test_views_of_equal_numbers_are_positives():
  method = SupReMix(scale=3.0, mix_negatives=False, window=0, weighted=False)
  classes = np.tile(NUMBERS.astype(int), 2)

  @jax.jit
  def both(views):
    found = method.loss({'views': views, 'number': NUMBERS}, {}, {}, None).loss
    stacked = jnp.concatenate([views[:, 0], views[:, 1]])
    return found, losses.supervised(stacked, classes, scale=3.0)

  np.testing.assert_allclose(*both(VIEWS), rtol=1e-5)


def test_the_key_draws_the_shares():
  method = SupReMix(scale=3.0, window=0)
  loss = jax.jit(lambda key: method.loss({'views': VIEWS, 'number': NUMBERS}, {}, {}, key).loss)
  assert loss(jax.random.key(0)) != loss(jax.random.key(1))


@pytest.mark.parametrize(
  'options', [{'scale': 0.0}, {'unit': -1.0}, {'window': 0.5}, {'beta_other': 0.0}]
)
def test_options_out_of_range_are_refused(options):
  (name,) = options
  with pytest.raises(ValueError, match=f'{name} = '):
    SupReMix(**options)
