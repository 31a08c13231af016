import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods import METHODS
from contrastive_jax.methods.simsiam import spread
from tests.losses import reference
from tests.methods import image_views, local_pairs
from tests.methods.image_views import SIZES
from tests.methods.local_pairs import normal

SMALL = {'hidden': 9, 'outputs': 4, 'predictor_hidden': 5}


def test_the_loss_is_the_mean_distance_of_different_views():
  """With heads that are the identity; the authors' loss is that of two views, over 2, less 1."""
  method, inputs = METHODS['simsiam'](), image_views.inputs_of()
  result = method.loss(inputs, image_views.identities(method), {}, None)
  views = normal(image_views.views_of(inputs))
  cosines = np.einsum('abd,cbd->ac', views, views) / views.shape[1]
  expected = 2 - 2 * cosines[~np.eye(len(views), dtype=bool)].mean()
  assert result.loss == pytest.approx(expected, rel=1e-5)

  two = image_views.inputs_of(2)
  found = method.loss(two, image_views.identities(method), {}, None).loss
  first, second = normal(image_views.views_of(two))
  authors = -np.mean(np.sum(first * second, 1))
  assert found / 2 - 1 == pytest.approx(authors, rel=1e-5)


def test_byol_predicts_the_target():
  method, inputs = METHODS['byol'](), image_views.inputs_of(2)
  found = method.loss(inputs, image_views.identities(method), {}, None).loss
  online, aims = (normal(image_views.views_of(inputs, encoder)) for encoder in ('', 'target.'))
  apart = [np.mean(np.sum((online[a] - aims[1 - a]) ** 2, 1)) for a in (0, 1)]
  assert found == pytest.approx(np.mean(apart), rel=1e-5)
  assert str(method.target) == '0.996-1' and METHODS['simsiam']().target is None


def test_simsiam_is_byol_whose_target_is_the_online_encoder():
  """Value and gradients, so no gradient reaches what is predicted: BYOL's target has none."""
  methods = [METHODS[name](**SMALL) for name in ('simsiam', 'byol')]
  definitions, parameters = local_pairs.heads_of(methods[0], SIZES)
  features = image_views.inputs_of(2)['view_features']

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1, 2, 3), has_aux=True)
  def gradients(features, parameters, aimed, targets):
    heads = local_pairs.bound(definitions, parameters, targets)
    inputs = {'view_features': features, 'target.view_features': aimed}
    losses = [method.loss(inputs, heads, {}, None).loss for method in methods]
    return losses[1], (losses, jax.grad(simsiam, (0, 1))(features, parameters))

  def simsiam(features, parameters):
    heads = local_pairs.bound(definitions, parameters)
    return methods[0].loss({'view_features': features}, heads, {}, None).loss

  (*online, of_aimed, of_targets), (values, own) = gradients(
    features, parameters, features, parameters
  )
  assert values[0] == values[1]
  assert not any(np.any(leaf) for leaf in jax.tree.leaves((of_aimed, of_targets)))
  jax.tree.map(functools.partial(reference.assert_near, floor=0.1), tuple(online), own)
  assert all(np.any(leaf) for leaf in jax.tree.leaves(own[1]['projector']))


def test_a_batch_of_one_has_no_statistics():
  with pytest.raises(ValueError, match=r'batch_size = 1: the projector of Byol .*; use 2 or more'):
    METHODS['byol']().heads(SIZES._replace(batch=1))


def test_the_spread_tells_a_collapse():
  random = np.random.default_rng(0)
  assert spread(jnp.ones((50, 8)) * random.uniform(1, 2, (50, 1))) == pytest.approx(0, abs=1e-6)
  assert spread(random.normal(size=(500, 8))) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
  ('name', 'projector', 'predictor'),
  [
    ('simsiam', 3 * 2048**2 + 2 * 2 * 2048, 2 * 2048 * 512 + 2 * 512 + 2048),
    ('byol', (2048 + 256) * 4096 + 2 * 4096 + 256, 2 * 256 * 4096 + 2 * 4096 + 256),
  ],
)
def test_the_heads_have_the_papers_sizes(name, projector, predictor):
  heads = METHODS[name]().heads(SIZES._replace(image_features=2048))
  sizes = {
    head: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(own.shapes))
    for head, own in heads.items()
  }
  assert sizes == {'projector': projector, 'predictor': predictor}
