import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.models.definition import define
from tests.models.towers import TEXT, batch_of, drawn


def encoded(**fields):
  """A tiny model, its parameters, a batch and the outputs."""
  definition = define('text_pair', embed=12, text=TEXT, **fields)
  parameters = drawn(definition)
  first, second = (batch_of(seed=seed)[1] for seed in (0, 1))
  batch = {'tokens': first, 'second_tokens': second}
  return definition, parameters, batch, definition.bind(parameters).encode(batch)


def test_a_shared_tower_encodes_both_sides_alike():
  definition, parameters, batch, outputs = encoded()
  model = definition.bind(parameters)
  assert definition.inputs == ('tokens', 'second_tokens')
  assert parameters.keys() == {'text', 'text_projection', 'log_scale'}
  np.testing.assert_array_equal(outputs.second_text, model.encode_text(batch['second_tokens']))
  np.testing.assert_array_equal(outputs.first, outputs.text)
  np.testing.assert_array_equal(outputs.second, outputs.second_text)
  assert outputs.image is None and outputs.text_features.shape == (4, TEXT['width'])
  np.testing.assert_allclose(jnp.linalg.norm(outputs.second_text, axis=1), 1, rtol=1e-5)


def test_towers_of_their_own_take_a_side_each():
  definition, parameters, batch, outputs = encoded(shared=False, bias=-1.0)
  assert outputs.bias == parameters['bias']
  zeroed = parameters | {'second_text': jax.tree.map(jnp.zeros_like, parameters['second_text'])}
  other = definition.bind(zeroed).encode(batch)
  np.testing.assert_array_equal(other.text, outputs.text)
  assert not np.allclose(other.second_text, outputs.second_text)


def test_its_fields_are_checked():
  with pytest.raises(ValueError, match=r"text_projection = 'none' needs the tower's 16 features"):
    define('text_pair', embed=12, text=TEXT, text_projection='none')
  with pytest.raises(ValueError, match=r'config\.model does not fit TextPair'):
    define('text_pair', embed=12, text=TEXT, image={})
