import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.methods import pixpro
from contrastive_jax import losses
from contrastive_jax.losses.views.pixels import positive_pixels
from contrastive_jax.methods import METHODS, Sizes
from contrastive_jax.planning import traced_flops
from contrastive_jax.training import build
from tests.doubles import slow_but
from tests.models.towers import drawn

B, P, W, D = 4, 9, 5, 6
SIZES = Sizes(batch=B, embed=W, image_features=W, patches=P, image_tokens=W, views=2)
SMALL = {'hidden': 7, 'outputs': D}
CASES = [
  ('pix_contrast', {}),
  ('pixpro', {}),
  ('pixpro', {'instance': 1.0, 'transform_layers': 2, 'p': 0.5}),
]


@pytest.fixture(scope='module')
def inputs():
  rng = np.random.default_rng(0)
  names = [f'{encoder}tokens_of_view.{n}' for encoder in ('', 'target.') for n in range(2)]
  given = {name: rng.normal(size=(B, P, W)).astype(np.float32) for name in names}
  corners = rng.uniform(0, 0.3, (B, 2, 2))
  boxes = np.concatenate([corners, corners + 0.6], -1).astype(np.float32)
  boxes[::2, 1] = boxes[::2, 1][:, [2, 1, 0, 3]]  # flipped
  return given | {'boxes': boxes}


def heads_of(method, seed=0):
  """Its heads and those of a target, with other parameters."""
  heads = method.heads(SIZES)
  parameters = {name: drawn(head, seed=seed) for name, head in heads.items()}
  target = {name: drawn(head, seed=seed + 1) for name, head in heads.items()}
  return heads, parameters, target


def bound(heads, parameters, target):
  own = {name: head.bind(parameters[name]) for name, head in heads.items()}
  return own | {f'target.{name}': head.bind(target[name]) for name, head in heads.items()}


@pytest.mark.parametrize(('name', 'options'), slow_but(CASES, CASES[0], CASES[2]))
def test_the_target_has_no_gradient_and_the_operations_are_those_of_the_sizes(
  name, options, inputs
):
  method = METHODS[name](**SMALL, **options)
  heads, parameters, target = heads_of(method)
  aimed = {k: v for k, v in inputs.items() if k.startswith('target.')}
  own = {k: v for k, v in inputs.items() if k.startswith('tokens')}

  def loss(own, parameters, aimed, target):
    given = inputs | own | aimed
    return method.partial(given, B, bound(heads, parameters, target), {}).loss

  arguments = own, parameters, aimed, target
  of_own, of_heads, of_aimed, of_target = jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*arguments)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves((of_aimed, of_target)))
  assert all(np.any(leaf) for leaf in jax.tree.leaves(of_own))
  assert all(any(map(np.any, jax.tree.leaves(head))) for head in of_heads.values())
  traced = traced_flops.traced(jax.value_and_grad(loss, (0, 1)), *arguments)
  assert traced.total == pytest.approx(method.flops(SIZES))


def test_pixpro_is_the_sum_of_both_directions(inputs):
  method = METHODS['pixpro'](**SMALL, transform_layers=0)
  modules = dict.fromkeys(('projector', 'target.projector'), lambda x: x)
  step = jax.jit(lambda inputs: method.partial(inputs, B, modules, {})[::2])
  found, metrics = step(inputs)
  positive = positive_pixels(inputs['boxes'][:, 0], inputs['boxes'][:, 1], 3)
  x, y, k, other = (np.float64(inputs[name]) for name in method.reads[:4])

  def propagated(x):
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return np.maximum(x @ x.swapaxes(1, 2), 0) ** 2 @ x

  loss = jax.jit(losses.pixpro)
  expected = loss(propagated(x), other, positive)
  expected += loss(propagated(y), k, positive.swapaxes(1, 2))
  assert found == pytest.approx(float(expected), rel=1e-5)
  assert metrics['matched'] == pytest.approx(float(positive.any(-1).mean()))
  assert 0 < metrics['matched'] < 1


def test_equal_pixels_in_equal_crops_reach_the_least_loss():
  method = METHODS['pixpro'](**SMALL, transform_layers=0)
  tokens = jnp.tile(jnp.eye(P)[None], (B, 1, 1))  # orthogonal, so that they propagate to themselves
  given = dict.fromkeys(method.reads[:4], tokens)
  given['boxes'] = jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), (B, 2, 1))
  modules = dict.fromkeys(('projector', 'target.projector'), lambda x: x)
  found = jax.jit(lambda given: method.partial(given, B, modules, {}).loss)(given)
  assert found == pytest.approx(-4, abs=1e-5)


def test_the_target_follows_a_half_cosine_to_1():
  target = METHODS['pixpro']().target
  assert [float(target(step, 100)) for step in (0, 50, 100)] == pytest.approx([0.99, 0.995, 1])


def configured(**fields):
  config = pixpro.get_config('smoke')
  with config.unlocked():
    config.update_from_flattened_dict({name.replace('__', '.'): v for name, v in fields.items()})
  return config


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'augmentation__degrees': 9.0}, r'config\.augmentation\.degrees = 9\.0 makes views .*use 0'),
    ({'augmentation__rand_augment': 0.3}, r'augmentation\.rand_augment = 0\.3 makes views'),
    ({'view_augmentation': {'1': {'shear': 5.0}}}, r'view_augmentation\.1\.shear = 5\.0 makes'),
    ({'model__image__class_token': True}, r'pixpro takes a square of pixels, .* 65 tokens'),
    ({'views': 1}, r'pixpro compares 2 views of an image, and config\.views = 1; use 2'),
    ({'objective__pixpro__p': -1.0}, r'config\.objective\.pixpro\.p = -1\.0; use a number'),
  ],
)
def test_what_cannot_work_is_told_by_its_field(fields, message):
  with pytest.raises(ValueError, match=message):
    build.build(configured(**fields))


def test_the_step_gives_the_boxes_of_its_views():
  run = build.build(configured())
  assert 'boxes' not in run.abstract_batch  # the views are drawn in the step
  _, metrics = jax.eval_shape(run.train_step, run.abstract_state, run.abstract_batch)
  assert 'pixpro/matched' in metrics
