import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods import METHODS, Objective
from contrastive_jax.methods.pretext import jigsaws, permute_tiles, rotate
from contrastive_jax.models.outputs import Outputs
from tests.losses import reference
from tests.methods.laws import SIZES
from tests.models.towers import drawn

B, V, D = 6, 3, 4


def draw(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_permutations_agree_in_one_tile_at_most():
  found = jigsaws()
  assert found.shape == (72, 9)
  np.testing.assert_array_equal(found[0], np.arange(9))
  np.testing.assert_array_equal(np.sort(found, 1), np.tile(np.arange(9), (72, 1)))
  assert max(np.sum(a == b) for a, b in itertools.combinations(found, 2)) == 1


def test_views_are_rotated_and_cut():
  images = draw(4, 8, 8, 3)

  def change(images):
    return rotate(images, jnp.arange(4)), permute_tiles(images, jnp.array([0, 1, 2, 34]))

  turned, cut = jax.device_get(jax.jit(change)(images))
  for number in range(4):
    np.testing.assert_array_equal(turned[number], np.rot90(images[number], number))
  # Two pixels of eight are beyond nine tiles of 2 x 2.
  assert not cut[:, 6:].any() and not cut[:, :, 6:].any()
  np.testing.assert_array_equal(cut[0, :6, :6], images[0, :6, :6])
  order = jigsaws()[34]
  for tile in range(9):
    (y, x), (v, u) = divmod(tile, 3), divmod(int(order[tile]), 3)
    found = cut[3, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
    np.testing.assert_array_equal(found, images[3, 2 * v : 2 * v + 2, 2 * u : 2 * u + 2])


@pytest.mark.parametrize(('task', 'classes'), [('rotation', 4), ('jigsaw', 35)])
def test_the_head_has_an_output_per_class_and_one_view_is_transformed(task, classes):
  method = METHODS['pretext'](task=task)
  shapes = method.heads(SIZES)['classifier'].shapes
  assert shapes['output']['kernel'].shape == (128, classes)
  keys, part = jax.random.split(jax.random.key(0), 64), {'image': draw(64, 6, 6, 3)}
  assert method.transform(1, part, None, {}, keys) is part
  change = rotate if task == 'rotation' else permute_tiles

  @jax.jit
  def see(part, keys):
    seen = method.transform(2, part, None, {}, keys)
    return seen, change(part['image'], seen['transformed'])

  seen, expected = see(part, keys)
  np.testing.assert_array_equal(seen['image'], expected)
  drawn_classes = set(np.asarray(seen['transformed']).tolist())
  assert drawn_classes <= set(range(classes)) and len(drawn_classes) > classes // 2


def test_it_is_the_cross_entropy_and_parts_add_up():
  method, logits, classes = METHODS['pretext'](), draw(B, 4), np.array([0, 1, 2, 3, 0, 1])
  inputs = {'features_of_view.2': logits, 'transformed': classes}

  @jax.jit
  def partial(part):
    result = method.partial(part, B, {'classifier': lambda x: x}, {})
    return result.loss, result.metrics['accuracy']

  found = [partial({k: v[rows : rows + 2] for k, v in inputs.items()}) for rows in (0, 2, 4)]
  loss, accuracy = np.sum(np.array(found), 0)
  expected = np.mean(reference.logsumexp(np.float64(logits), 1) - logits[np.arange(B), classes])
  reference.assert_near(loss, expected)
  assert accuracy == pytest.approx(np.mean(logits.argmax(1) == classes))


def test_of_weight_0_it_is_nt_xent():
  views = reference.unit(np.random.default_rng(0), B * V, D).reshape(B, V, D)
  outputs = Outputs(
    image=views[:, 0], views=views, image_features=draw(B, 16), view_features=draw(B, V, 16)
  )
  alone = {'nt_xent': {'weight': 1.0, 'scale': 2.0}}
  objectives = Objective(alone), Objective(alone | {'pretext': {'weight': 0.0, 'widths': (8,)}})
  definition = objectives[1].heads(SIZES)['pretext']['classifier']
  heads = {'pretext': {'classifier': definition.bind(drawn(definition))}}
  batch = {'id': jnp.arange(B), 'transformed': jnp.zeros(B, int)}

  def loss(outputs, objective):
    return objective(outputs, batch, heads=heads)[0]

  both = jax.jit(lambda outputs: [jax.value_and_grad(loss)(outputs, each) for each in objectives])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), *both(outputs))


@pytest.mark.parametrize(
  ('options', 'message'),
  [({'task': 'color'}, "task = 'color' is unknown"), ({'permutations': 73}, 'use 2 to 72')],
)
def test_what_cannot_work_is_told_by_its_field(options, message):
  with pytest.raises(ValueError, match=f'objective.pretext: .*{message}'):
    Objective({'pretext': {'weight': 1.0, **options}})
