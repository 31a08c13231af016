"""LiT: a frozen image tower of other weights, and a text tower that is trained."""

import chex
import jax
import numpy as np
import optax
import pytest

from configs import clip
from configs.methods import lit
from contrastive_jax import interop
from contrastive_jax.models.definition import define
from contrastive_jax.training import build
from contrastive_jax.training.state import start_from
from tests.methods import laws
from tests.models.towers import drawn


@pytest.fixture(scope='module')
def run():
  return build.build(lit.get_config('smoke'), jax.devices()[:1])


@pytest.fixture(scope='module')
def tower(run, tmp_path_factory):
  """A folder with an encoder of images alone, and its parameters."""
  folder = tmp_path_factory.mktemp('encoder')
  fields = {'name': 'encoder', 'embed': 7, 'projector': (8,)}
  fields['image'] = run.config.model.image.to_dict()
  parameters = jax.device_get(drawn(define(**fields)))
  interop.write_model(interop.Model(fields, parameters), folder)
  return folder, parameters['image']


def started(run, folder):
  """A state of zeros that takes the image tower of a folder."""
  place = lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding)  # noqa: E731
  fields = run.config.model.to_dict()
  initial = interop.initial_parameters(folder, fields, towers=run.config.init_towers)
  return start_from(jax.tree.map(place, run.abstract_state), initial)


def test_only_the_named_tower_takes_its_weights(run, tower):
  folder, expected = tower
  parameters = jax.device_get(started(run, folder).parameters)
  chex.assert_trees_all_equal(parameters.pop('image'), expected)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(parameters))


def test_another_image_tower_is_refused(run, tower):
  fields = run.config.model.to_dict()
  fields['image'] |= {'heads': 4}
  with pytest.raises(ValueError, match=r'config\.model\.image\.heads is 4, there 2'):
    interop.initial_parameters(tower[0], fields, towers=('image',))
  with pytest.raises(ValueError, match=r"config\.model\.name is 'clip', there 'encoder'"):
    interop.initial_parameters(tower[0], run.config.model.to_dict())


def test_the_locked_tower_has_no_optimizer_state(run):
  """The moments are those of the text tower, its projection and the scale."""
  size = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
  parameters = dict(run.abstract_state.parameters)
  assert 'image_projection' not in parameters
  parameters.pop('image')
  is_adam = lambda node: isinstance(node, optax.ScaleByAdamState)  # noqa: E731
  nodes = jax.tree.leaves(run.abstract_state.optimizer_state, is_leaf=is_adam)
  (adam,) = filter(is_adam, nodes)
  assert size(adam.mu) == size(adam.nu) == size(parameters)


@pytest.mark.slow
def test_training_leaves_the_locked_tower_as_it_was(run, tower):
  expected = tower[1]
  state = start_from(run.create_state(0), {'image': expected})
  before = jax.device_get(state.parameters)
  after = before
  for step in range(2):
    state, metrics = run.train_step(state, laws.batch_of(run, step))
    assert np.isfinite(metrics['loss'])
    after = jax.device_get(state.parameters)
  chex.assert_trees_all_equal(after['image'], expected)
  assert np.any(after['text_projection']['kernel'] != before['text_projection']['kernel'])


def test_an_unknown_tower_is_told():
  config = clip.get_config('smoke')
  config.init_towers = ('image', 'decoder')
  with pytest.raises(ValueError, match=r"init_towers = .* has 'decoder'; use some of 'image' and"):
    build.build(config)
