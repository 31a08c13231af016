"""The absolute error as a method."""

import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods.absolute_error import AbsoluteError

NUMBERS = np.array([1, 2, 3, 3, 5, 9], 'f')


def test_the_absolute_error_is_that_of_standardized_numbers():
  method = AbsoluteError(center=2.0, spread=4.0)
  heads = {'regression': lambda x: jnp.full((len(x), 1), 0.25)}  # 3 in their unit
  result = method.loss({'image_features': np.eye(6), 'number': NUMBERS}, heads, {}, None)
  assert result.metrics['mean_absolute_error'] == pytest.approx(np.mean(np.abs(NUMBERS - 3)))
  assert result.loss == pytest.approx(np.mean(np.abs(NUMBERS - 3)) / 4)


def test_a_spread_of_zero_is_refused():
  with pytest.raises(ValueError, match='spread = 0'):
    AbsoluteError(spread=0.0)
