import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.methods import METHODS
from tests.losses import reference
from tests.methods import local_pairs
from tests.methods.local_pairs import ALIKE, PAIR, SINGLE, B, D, normal

SMALL = {'hidden': 9, 'outputs': 4, 'local_hidden': 8}


def apart(prediction, target):
  return np.mean(np.sum((normal(prediction) - normal(target)) ** 2, 1))


def test_the_loss_is_the_dense_one():
  """With heads that are the identity, all views and texts of one width."""
  inputs, method = local_pairs.inputs_of(ALIKE), METHODS['byolip'](smoothing=0.2)
  result = method.loss(inputs, local_pairs.identities(method, ALIKE), {}, None)
  views, texts = local_pairs.views_and_texts(inputs)
  aimed_views, aimed_texts = local_pairs.views_and_texts(inputs, 'target.')
  distances = []
  for a, b in ((0, 0), (1, 1), (1, 2), (2, 1), (2, 2)):
    distances += [apart(views[a], aimed_texts[b]), apart(texts[b], aimed_views[a])]
  contrastive = local_pairs.dense_rocket(inputs, 3, 0.2)
  assert result.metrics['distance'] == pytest.approx(np.mean(distances), rel=1e-5)
  assert result.metrics['contrastive'] == pytest.approx(contrastive, rel=1e-5)
  assert result.loss == pytest.approx(np.mean(distances) + 2 * contrastive, rel=1e-5)


@pytest.mark.parametrize('name', ['byolip', 'siamlip'])
def test_without_local_views_it_is_clip_and_the_distance(name):
  method = METHODS[name](**SMALL)
  definitions, parameters = local_pairs.heads_of(method, SINGLE)
  assert not [head for head in definitions if 'local' in head or 'contrastive' in head]
  inputs = local_pairs.inputs_of(SINGLE)
  result = method.loss(inputs, local_pairs.bound(definitions, parameters), {}, None)
  clip = losses.info_nce(inputs['image'], inputs['text'], scale=5.0)
  assert result.metrics['contrastive'] == clip
  assert result.loss == pytest.approx(float(2 * clip + result.metrics['distance']), rel=1e-6)


def test_equal_features_are_no_distance_apart():
  same = jnp.ones((B, 1, 1)) * reference.unit(np.random.default_rng(0), D)
  inputs = {'image': same[:, 0], 'text': same[:, 0], 'scale': 1.0}
  for encoder in ('', 'target.'):
    inputs |= {f'{encoder}image_features': same[:, 0], f'{encoder}text_features': same[:, 0]}
  method = METHODS['byolip']()
  heads = local_pairs.identities(method, ALIKE)
  distance = method.loss(inputs, heads, {}, None).metrics['distance']
  assert distance == pytest.approx(0, abs=1e-6)


def test_no_gradient_reaches_the_target():
  method = METHODS['byolip'](**SMALL)
  definitions, parameters = local_pairs.heads_of(method, PAIR)
  inputs = local_pairs.inputs_of(PAIR)
  aimed = {name: value for name, value in inputs.items() if name.startswith('target.')}

  @jax.jit
  @functools.partial(jax.grad, argnums=(0, 1, 2))
  def gradients(aimed, targets, parameters):
    heads = local_pairs.bound(definitions, parameters, targets)
    return method.loss(inputs | aimed, heads, {}, None).loss

  of_aimed, of_targets, own = gradients(aimed, parameters, parameters)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves((of_aimed, of_targets)))
  assert all(np.any(leaf) for leaf in jax.tree.leaves(own['image_projector']))


def test_siamlip_is_byolip_whose_target_is_the_online_encoder():
  """Gradients too, so the branch of v has none."""
  inputs = local_pairs.inputs_of(PAIR)
  online = {name: value for name, value in inputs.items() if name.endswith('features')}
  online = {name: value for name, value in online.items() if not name.startswith('target.')}
  copies = {f'target.{name}': value for name, value in online.items()}
  found = []
  for name in ('byolip', 'siamlip'):
    method = METHODS[name](**SMALL)
    definitions, parameters = local_pairs.heads_of(method, PAIR)

    def loss(online, parameters, method=method, definitions=definitions, targets=parameters):
      heads = local_pairs.bound(definitions, parameters, targets)
      return method.loss(inputs | copies | online, heads, {}, None).loss

    found.append(jax.jit(jax.value_and_grad(loss, (0, 1)))(online, parameters))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)
