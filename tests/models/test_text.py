import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax.models.text import end_positions
from tests.models.towers import TEXT, batch_of, drawn, tiny


@functools.cache
def encoder(**text):
  """A jitted function from tokens to (states, pooled), and the parameters."""
  definition = tiny(image={'layers': 0}, text={'layers': 1, **text})
  encode = jax.jit(lambda parameters, tokens: definition.bind(parameters).text(tokens)[::-1])
  return lambda *operands: jax.device_get(encode(*operands)), drawn(definition)


@pytest.mark.parametrize(
  ('pooling', 'causal'),
  [
    ('end', True),
    ('mean', False),
    pytest.param('end', False, marks=pytest.mark.slow),
    pytest.param('mean', True, marks=pytest.mark.slow),
  ],
)
def test_padding_changes_nothing(pooling, causal):
  fields = {'causal': causal, 'pooling': pooling}
  encode, parameters = encoder(**fields)
  longer, _ = encoder(**fields, length=TEXT['length'] + 3)
  _, tokens = batch_of(size=8)
  _, pooled = encode(parameters, tokens)
  text = parameters['text']
  # Whatever stands in the padding, its position and its token, must not be seen.
  wide = {**text, 'positions': np.pad(text['positions'], ((0, 3), (0, 0)), constant_values=5.0)}
  wide['embed'] = {'embedding': np.array(text['embed']['embedding'])}
  wide['embed']['embedding'][0] = 7.0
  padded = np.pad(tokens, ((0, 0), (0, 3)))
  _, again = longer({**parameters, 'text': wide}, padded)
  np.testing.assert_allclose(again, pooled, rtol=1e-4, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(place=st.integers(0, TEXT['length'] - 1), token=st.integers(1, TEXT['vocabulary'] - 1))
def test_a_later_token_never_changes_an_earlier_state_when_causal(place, token):
  tokens = np.arange(1, 1 + TEXT['length'], dtype=np.int32)[None]
  changed = tokens.copy()
  changed[0, place] = (token + tokens[0, place]) % TEXT['vocabulary']
  encode, parameters = encoder(causal=True, pooling='end')
  before, after = (encode(parameters, t)[0][0] for t in (tokens, changed))
  np.testing.assert_array_equal(before[:place], after[:place])
  assert np.abs(before - after)[place:].max(axis=1).min() > 1e-4


def test_a_later_token_changes_an_earlier_state_when_bidirectional():
  tokens = np.arange(1, 1 + TEXT['length'], dtype=np.int32)[None]
  changed = tokens.copy()
  changed[0, -1] += 1
  encode, parameters = encoder(causal=False, pooling='mean')
  before, after = (encode(parameters, t)[0][0] for t in (tokens, changed))
  assert np.abs(before - after)[0].max() > 1e-4


def test_the_end_is_the_last_token_that_is_not_padding():
  # The padding's id may stand for a token within a text.
  tokens = np.array([[5, 0, 7, 0, 0], [1, 2, 3, 4, 5], [9, 0, 0, 0, 0]])
  np.testing.assert_array_equal(end_positions(tokens), [2, 4, 0])


@pytest.mark.parametrize('pooling', ['end', 'last', 'mean'])
def test_pooling_takes_the_states_that_it_names(pooling):
  encode, parameters = encoder(causal=pooling != 'mean', pooling=pooling)
  _, tokens = batch_of(size=8)
  states, pooled = map(np.asarray, encode(parameters, tokens))
  for text, vectors, vector in zip(tokens, states, pooled, strict=True):
    end = int(np.max(np.nonzero(text)))
    expected = {'end': vectors[end], 'last': vectors[-1], 'mean': vectors[: end + 1].mean(axis=0)}
    np.testing.assert_allclose(vector, expected[pooling], rtol=1e-4, atol=1e-5)
