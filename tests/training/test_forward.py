import jax
import numpy as np

from configs.methods import siglip2
from contrastive_jax.methods import Objective
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.forward import Forward
from contrastive_jax.training.views import strengths_of
from tests.models.towers import batch_of, drawn, tiny


def test_each_view_is_preprocessed_by_its_own_function():
  definition = tiny(image={'layers': 0}, text={'layers': 0})
  parameters, (images, tokens) = drawn(definition), batch_of()
  functions = [lambda keys, images, factor=factor: factor * images for factor in (1, 2, -3)]
  objective = Objective({'slip': {'weight': 1.0, 'hidden': 4, 'outputs': 2}})
  mesh = make_mesh('data:1', jax.devices()[:1])
  forward = Forward(
    definition, objective, mesh, preprocess=functions[0], view_preprocess=functions[1:], views=3
  )
  batch = {'image': images, 'tokens': tokens, 'key': jax.random.split(jax.random.key(0), 4)}

  @jax.jit
  def encode(parameters, batch):
    tower = definition.bind(parameters).image
    expected = [tower(function(None, batch['image']))[0] for function in functions]
    return forward(parameters, {}, {}, {}, batch).outputs.view_features, expected

  found, expected = encode(parameters, batch)
  for view, features in enumerate(expected):
    np.testing.assert_allclose(found[:, view], features, rtol=1e-4, atol=1e-5)


def test_strengths_hold_from_their_view_on():
  config = siglip2.get_config('smoke')
  config.views = 5
  shared = config.augmentation.to_dict()
  found = [strengths_of(config, view) for view in range(5)]
  local = shared | {'crop': 0.95, 'crop_min': 0.6}
  assert found == [shared, shared | {'crop': 0.6}, local, local, local]
