"""Laws of CLIP-rocket, and those that its descendants share with it."""

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.methods import METHODS
from contrastive_jax.methods.rocket import smoothed_info_nce
from contrastive_jax.planning import traced_flops
from tests.doubles import slow_but
from tests.losses import reference
from tests.methods import local_pairs
from tests.methods.local_pairs import ALIKE, PAIR, SINGLE, SIZES, B, D

# Options of narrow heads by method.
SMALL = {
  'rocket': {},
  'swalip': {'iterations': 2},
  'barlip': {'hidden': 9, 'outputs': 4},
  'siamlip': {'hidden': 9, 'outputs': 4},
  'byolip': {'hidden': 9, 'outputs': 4},
}


def small(name):
  return METHODS[name](local_hidden=8, **SMALL[name])


@pytest.mark.parametrize('mesh', slow_but(['none', '2'], '2'))
def test_label_smoothing_is_the_dense_one(mesh):
  image, text = reference.unit(np.random.default_rng(0), 2, B, D)
  options = {'smoothing': 0.3, 'block_size': 4, 'mesh': reference.make_mesh(mesh)}
  loss = lambda x, y, scale: smoothed_info_nce(x, y, scale=scale, **options)  # noqa: E731
  truth = lambda x, y, scale: local_pairs.dense_contrast(x, y, scale, 0.3)  # noqa: E731
  value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(image, text, 5.0)
  reference.assert_near(value, truth(image, text, 5.0))
  expected = reference.differences(truth, image, text, 5.0)
  jax.tree.map(reference.assert_near, gradients, expected)


def test_no_smoothing_is_info_nce():
  image, text = reference.unit(np.random.default_rng(0), 2, B, D)
  got = smoothed_info_nce(image, text, scale=5.0, smoothing=0.0)
  assert got == losses.info_nce(image, text, scale=5.0)


def test_the_loss_is_the_dense_one():
  inputs, method = local_pairs.inputs_of(ALIKE), METHODS['rocket'](smoothing=0.2)
  result = method.loss(inputs, local_pairs.identities(method, ALIKE), {}, None)
  expected = local_pairs.dense_rocket(inputs, 3, 0.2)
  assert result.loss == pytest.approx(2 * expected, rel=1e-5)
  assert result.metrics['contrastive'] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('name', ['rocket', 'swalip'])
@pytest.mark.parametrize('contrastive', [1.0, 2.0])
def test_without_local_views_it_is_clip(name, contrastive):
  """With the authors' average of both directions; twice CLIP with their sum."""
  method = METHODS[name](contrastive=contrastive)
  assert method.heads(SINGLE) == {}
  inputs = local_pairs.inputs_of(SINGLE)
  clip = losses.info_nce(inputs['image'], inputs['text'], scale=5.0)
  assert method.loss(inputs, {}, {}, None).loss == contrastive * clip


@pytest.mark.parametrize('name', ['byolip', 'siamlip', 'barlip'])
def test_local_pairs_share_heads_where_they_are_not_separate(name):
  names = METHODS[name](**SMALL[name], separate=False).heads(SIZES)
  assert not [head for head in names if head.startswith('local_')]
  assert {'image_projector', 'contrastive_image_projector'} <= set(names)


@pytest.mark.parametrize('name', SMALL)
@pytest.mark.parametrize(
  'sizes',
  [
    pytest.param(SINGLE, id='single', marks=pytest.mark.slow),
    pytest.param(PAIR, id='pair', marks=pytest.mark.slow),
    pytest.param(SIZES, id='all'),
  ],
)
def test_the_program_asks_for_the_operations_of_the_sizes(name, sizes):
  method = small(name)
  definitions = method.heads(sizes)
  key = jax.random.key(0)
  shapes = {head: jax.eval_shape(own.init, key) for head, own in definitions.items()}
  inputs = local_pairs.inputs_of(sizes)
  trained = {read: value for read, value in inputs.items() if value.dtype == np.float32}
  aimed = {read: trained.pop(read) for read in [*trained] if read.startswith('target.')}

  def loss(trained, parameters, targets):
    heads = local_pairs.bound(definitions, parameters, targets)
    return method.loss(inputs | trained | aimed, heads, {}, None).loss

  gradient = jax.grad(loss, (0, 1))
  assert traced_flops.traced(gradient, trained, shapes, shapes).total == pytest.approx(
    method.flops(sizes)
  )
