import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods import METHODS
from contrastive_jax.models.heads import define_prototypes
from tests.losses import dense, reference
from tests.methods import image_views
from tests.methods.local_pairs import normal
from tests.models.towers import drawn

K, W = 5, image_views.W


def test_the_loss_is_the_dense_one():
  """With a projector that is the identity; lengths of features and prototypes do not matter."""
  method, inputs = METHODS['swav'](prototypes=K), image_views.inputs_of()
  prototypes = reference.unit(np.random.default_rng(1), K, W)
  heads = image_views.identities(method) | {'prototypes': lambda: prototypes}
  found = jax.jit(lambda inputs: method.loss(inputs, heads, {}, None).loss)(inputs)
  views = normal(np.float64(inputs['view_features']))
  expected = jnp.mean(jax.jit(dense.swav)(views, prototypes, 10.0))
  assert found == pytest.approx(float(expected), rel=1e-4)


def test_prototypes_are_unit_vectors():
  definition = define_prototypes(W, K)
  found = definition.bind(drawn(definition))()
  assert found.shape == (K, W)
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)


def test_prototypes_divide_over_the_mesh():
  mesh = jax.sharding.AbstractMesh((4, 2), ('data', 'fsdp'))
  METHODS['swav'](prototypes=16, mesh=mesh)
  with pytest.raises(ValueError, match=r'prototypes = 3000 .* 16 shards; use a multiple of 16'):
    METHODS['swav'](mesh=jax.sharding.AbstractMesh((4, 4), ('data', 'fsdp')))
