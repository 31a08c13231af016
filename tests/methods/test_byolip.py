import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.methods import METHODS, Sizes
from contrastive_jax.methods.byolip import smoothed_info_nce
from contrastive_jax.planning import traced_flops
from tests.losses import reference
from tests.models.towers import drawn

B, D = 8, 6
SIZES = Sizes(batch=B, embed=D, image_features=5, text_features=7, views=3, texts=3)
# One local pair.
PAIR = SIZES._replace(views=2, texts=1)
SMALL = {'hidden': 9, 'outputs': 4, 'local_hidden': 8}


def cross_entropy(scores, smoothing):
  size = len(scores)
  goals = (1 - smoothing) * np.eye(size) + smoothing / size
  return -np.mean(np.sum(goals * (scores - reference.logsumexp(scores, 1)[:, None]), 1))


def dense_contrast(image, text, scale, smoothing=0.0):
  scores = scale * image @ text.T
  return (cross_entropy(scores, smoothing) + cross_entropy(scores.T, smoothing)) / 2


def apart(prediction, target):
  return np.mean(np.sum((normal(prediction) - normal(target)) ** 2, 1))


def normal(vectors):
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def inputs_of(sizes, encoders=('', 'target.'), seed=0):
  """Everything that a method reads of a batch of random features and embeddings."""
  random = np.random.default_rng(seed)
  draw = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
  found = {'image': reference.unit(random, B, D), 'text': reference.unit(random, B, D)}
  found |= {'scale': np.float32(5), 'same': np.arange(B)}
  for encoder in encoders:
    views = draw(B, sizes.views, sizes.image_features)
    texts = draw(B, sizes.texts, sizes.text_features)
    found[f'{encoder}image_features'], found[f'{encoder}text_features'] = views[:, 0], texts[:, 0]
    if sizes.views > 1:
      found[f'{encoder}view_features'] = views
    if sizes.texts > 1:
      found[f'{encoder}texts_features'] = texts
  return found


def heads_of(method, sizes):
  """Definitions and parameters of the heads."""
  definitions = method.heads(sizes)
  return definitions, {
    name: drawn(head, seed=n) for n, (name, head) in enumerate(definitions.items())
  }


def bound(definitions, parameters, targets=None):
  modules = {name: definitions[name].bind(own) for name, own in parameters.items()}
  targets = parameters if targets is None else targets
  return modules | {f'target.{name}': definitions[name].bind(own) for name, own in targets.items()}


@pytest.mark.parametrize('mesh', ['none', '2'])
def test_label_smoothing_is_the_dense_one(mesh):
  image, text = reference.unit(np.random.default_rng(0), 2, B, D)
  options = {'smoothing': 0.3, 'block_size': 4, 'mesh': reference.make_mesh(mesh)}
  loss = jax.jit(lambda x, y, scale: smoothed_info_nce(x, y, scale=scale, **options))
  truth = lambda x, y, scale: dense_contrast(x, y, scale, 0.3)  # noqa: E731
  reference.assert_near(loss(image, text, 5.0), truth(image, text, 5.0))
  expected = reference.differences(truth, image, text, 5.0)
  jax.tree.map(reference.assert_near, jax.grad(loss, (0, 1, 2))(image, text, 5.0), expected)


def test_no_smoothing_is_info_nce():
  image, text = reference.unit(np.random.default_rng(0), 2, B, D)
  got = smoothed_info_nce(image, text, scale=5.0, smoothing=0.0)
  assert got == losses.info_nce(image, text, scale=5.0)


def test_the_loss_is_the_dense_one():
  """With heads that are the identity, all views and texts of one width."""
  sizes = SIZES._replace(image_features=D, text_features=D)
  inputs = inputs_of(sizes)
  method = METHODS['byolip'](smoothing=0.2)
  heads = {name: lambda x: x for name in method.heads(sizes)}
  heads |= {f'target.{name}': lambda x: x for name in heads}
  heads['scale'] = lambda: jnp.float32(3)
  result = method.loss(inputs, heads, {}, None)
  views, texts, aimed_views, aimed_texts = (
    np.moveaxis(np.float64(inputs[f'{encoder}{name}']), 1, 0)
    for encoder in ('', 'target.')
    for name in ('view_features', 'texts_features')
  )
  distances = [apart(views[0], aimed_texts[0]), apart(texts[0], aimed_views[0])]
  local = []
  for a in (1, 2):
    for b in (1, 2):
      distances += [apart(views[a], aimed_texts[b]), apart(texts[b], aimed_views[a])]
      local.append(dense_contrast(normal(views[a]), normal(texts[b]), 3, 0.2))
  whole = dense_contrast(np.float64(inputs['image']), inputs['text'], 5)
  contrastive = (whole + 2 * np.mean(local)) / 3
  assert result.metrics['distance'] == pytest.approx(np.mean(distances), rel=1e-5)
  assert result.metrics['contrastive'] == pytest.approx(contrastive, rel=1e-5)
  assert result.loss == pytest.approx(np.mean(distances) + 2 * contrastive, rel=1e-5)


@pytest.mark.parametrize('name', ['byolip', 'siamlip'])
def test_without_local_views_it_is_clip_and_the_distance(name):
  sizes = SIZES._replace(views=1, texts=1)
  method = METHODS[name](**SMALL)
  definitions, parameters = heads_of(method, sizes)
  assert not [head for head in definitions if 'local' in head or 'contrastive' in head]
  inputs = inputs_of(sizes)
  result = method.loss(inputs, bound(definitions, parameters), {}, None)
  clip = losses.info_nce(inputs['image'], inputs['text'], scale=5.0)
  assert result.metrics['contrastive'] == clip
  assert result.loss == pytest.approx(float(2 * clip + result.metrics['distance']), rel=1e-6)


def test_equal_features_are_no_distance_apart():
  sizes = SIZES._replace(image_features=D, text_features=D)
  same = jnp.ones((B, 1, 1)) * reference.unit(np.random.default_rng(0), D)
  inputs = {'image': same[:, 0], 'text': same[:, 0], 'scale': 1.0}
  for encoder in ('', 'target.'):
    inputs |= {f'{encoder}image_features': same[:, 0], f'{encoder}text_features': same[:, 0]}
  method = METHODS['byolip']()
  heads = {name: lambda x: x for name in method.heads(sizes)}
  heads |= {f'target.{name}': lambda x: x for name in heads}
  distance = method.loss(inputs, heads, {}, None).metrics['distance']
  assert distance == pytest.approx(0, abs=1e-6)


def test_no_gradient_reaches_the_target():
  method = METHODS['byolip'](**SMALL)
  definitions, parameters = heads_of(method, PAIR)
  inputs = inputs_of(PAIR)
  aimed = {name: value for name, value in inputs.items() if name.startswith('target.')}

  def loss(aimed, targets, parameters):
    return method.loss(inputs | aimed, bound(definitions, parameters, targets), {}, None).loss

  of_aimed, of_targets, own = jax.grad(loss, (0, 1, 2))(aimed, parameters, parameters)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves((of_aimed, of_targets)))
  assert all(np.any(leaf) for leaf in jax.tree.leaves(own['image_projector']))


def test_siamlip_is_byolip_whose_target_is_the_online_encoder():
  """Gradients too, so the branch of v has none."""
  inputs = inputs_of(PAIR)
  online = {name: value for name, value in inputs.items() if name.endswith('features')}
  online = {name: value for name, value in online.items() if not name.startswith('target.')}
  copies = {f'target.{name}': value for name, value in online.items()}
  found = []
  for name in ('byolip', 'siamlip'):
    method = METHODS[name](**SMALL)
    definitions, parameters = heads_of(method, PAIR)

    def loss(online, parameters, method=method, definitions=definitions, targets=parameters):
      heads = bound(definitions, parameters, targets)
      return method.loss(inputs | copies | online, heads, {}, None).loss

    found.append(jax.value_and_grad(loss, (0, 1))(online, parameters))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)


def test_local_pairs_share_heads_where_they_are_not_separate():
  names = METHODS['siamlip'](**SMALL, separate=False).heads(SIZES)
  assert not [name for name in names if name.startswith('local_')]
  assert 'contrastive_image_projector' in names


@pytest.mark.parametrize('name', ['byolip', 'siamlip'])
@pytest.mark.parametrize(('views', 'texts'), [(1, 1), (3, 1), (3, 3)])
def test_the_program_asks_for_the_operations_of_the_sizes(name, views, texts):
  sizes = SIZES._replace(views=views, texts=texts)
  method = METHODS[name](**SMALL)
  definitions = method.heads(sizes)
  key = jax.random.key(0)
  shapes = {name: jax.eval_shape(head.init, key) for name, head in definitions.items()}
  inputs = inputs_of(sizes)
  trained = {name: value for name, value in inputs.items() if value.dtype == np.float32}
  aimed = {name: trained.pop(name) for name in [*trained] if name.startswith('target.')}

  def loss(trained, parameters, targets):
    heads = bound(definitions, parameters, targets)
    return method.loss(inputs | trained | aimed, heads, {}, None).loss

  gradient = jax.grad(loss, (0, 1))
  assert traced_flops.traced(gradient, trained, shapes, shapes).total == pytest.approx(
    method.flops(sizes)
  )
