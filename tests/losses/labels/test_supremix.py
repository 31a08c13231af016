"""What SupReMix becomes, and what raises it; its dense form is in tests/losses/dense.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import reference

EMBEDDINGS = reference.unit(np.random.default_rng(0), 8, 3)
NUMBERS = np.array([1, 1, 2, 2, 4, 4, 9, 30])
SHARES = np.linspace(0.1, 0.9, 8, dtype='f')


def test_without_mixtures_and_weights_it_is_supcon():
  @jax.jit
  def both(z):
    found = losses.supremix_per_example(z, NUMBERS, scale=3.0, window=0, weighted=False)
    return found, losses.supervised_per_example(z, NUMBERS, scale=3.0)

  found, expected = both(EMBEDDINGS)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


@functools.partial(jax.jit, static_argnames='unit')
def mixed(embeddings, numbers, **options):
  return losses.supremix_per_example(embeddings, numbers, SHARES, scale=3.0, window=1, **options)


def test_farther_negatives_and_other_units():
  near = mixed(EMBEDDINGS, NUMBERS)
  far = mixed(EMBEDDINGS, np.where(NUMBERS == 30, 60, NUMBERS))
  assert not np.any(near[-2:]) and not np.any(far[-2:])  # these have no positive
  assert np.all(far[:-2] > near[:-2])
  rounded = mixed(EMBEDDINGS, 100.0 * NUMBERS + 20, unit=100.0)
  np.testing.assert_allclose(rounded, near, rtol=1e-5)


def test_an_anchor_between_two_others_has_their_mixture_as_positive():
  """The middle of e₀ and e₁ has the cosine ½ with each, and the mixture ½ as well."""
  middle = (np.eye(2)[0] + np.eye(2)[1]) / 2**0.5
  embeddings, numbers = np.stack([np.eye(2)[0], middle, np.eye(2)[1]]), jnp.array([3, 4, 5])
  options = {'scale': 2**0.5, 'window': 1, 'weighted': False}
  own = jax.jit(functools.partial(losses.supremix_per_example, **options))(embeddings, numbers)
  # Three candidates of the logit 1, one of them positive; losses are those of one of three anchors.
  np.testing.assert_allclose(own, [0, 3 * np.log(3), 0], rtol=1e-6)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'numbers': NUMBERS[1:]}, r'numbers \(7,\)'),
    ({'shares': SHARES[1:]}, r'shares \(7,\)'),
    ({'window': -1}, 'window = -1'),
    ({'unit': 0.0}, r'unit = 0\.0'),
  ],
)
def test_wrong_arguments_are_refused(change, message):
  arguments = {'embeddings': EMBEDDINGS, 'numbers': NUMBERS, 'scale': 1.0}
  with pytest.raises(ValueError, match=message):
    losses.supremix(**arguments | change)
