import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.methods import METHODS, Objective, Sizes
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.planning import traced_flops
from tests.losses import reference
from tests.models.towers import drawn

B = 8
SIZES = Sizes(batch=B, embed=6, image_features=5, text_features=7, views=3)
SMALL = {'hidden': 9, 'outputs': 4}


def inputs(views=3):
  random = np.random.default_rng(0)
  image, text = reference.unit(random, 2, B, 6)
  features = random.normal(size=(B, views, 5)).astype(np.float32)
  return {'image': image, 'text': text, 'scale': np.float32(5), 'view_features': features}


def bound(method):
  heads = {name: (head, drawn(head)) for name, head in method.heads(SIZES).items()}
  return {name: head.bind(parameters) for name, (head, parameters) in heads.items()}


@pytest.mark.parametrize('views', [2, 3])
def test_it_is_clip_and_nt_xent_of_the_last_two_views(views):
  given = inputs(views)
  method = METHODS['slip'](**SMALL, temperature=0.5, simclr=3.0)
  heads = bound(method)
  result = method.loss(given, heads, {}, None)
  clip = losses.info_nce(given['image'], given['text'], scale=5.0)
  first, second = (heads['projector'](given['view_features'][:, n]) for n in (views - 2, views - 1))
  first, second = (z / jnp.linalg.norm(z, axis=1, keepdims=True) for z in (first, second))
  own = losses.nt_xent(first, second, scale=2.0)
  assert result.loss == pytest.approx(float(clip + 3 * own), rel=1e-5)


def test_without_self_supervision_it_is_clip():
  given = inputs() | {'same': np.zeros(B, int)}
  method = METHODS['slip'](**SMALL, simclr=0.0)
  result = method.loss(given, bound(method), {}, None)
  assert result.loss == losses.info_nce(
    given['image'], given['text'], scale=5.0, same=given['same']
  )


def test_it_needs_two_views():
  image = jnp.eye(4)
  outputs = Outputs(image=image, text=image, image_features=image, scale=jnp.float32(1))
  with pytest.raises(ValueError, match=r'slip compares 2 views of an image, and config\.views = 1'):
    Objective({'slip': 1.0}).check(outputs, {})


def test_the_program_asks_for_the_operations_of_the_sizes():
  method = METHODS['slip'](**SMALL)
  head = method.heads(SIZES)['projector']
  shapes = head.shapes

  def loss(given, parameters):
    return method.loss(given, {'projector': head.bind(parameters)}, {}, None).loss

  traced = traced_flops.traced(jax.grad(loss, (0, 1)), inputs(), shapes)
  assert traced.total == method.flops(SIZES)
