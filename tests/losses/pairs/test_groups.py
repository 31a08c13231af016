"""InfoNCE in groups is the mean of the losses of the groups, on any mesh."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses import pairwise
from contrastive_jax.methods import METHODS, Sizes
from contrastive_jax.planning import hlo, traced_flops
from tests.losses import reference
from tests.losses.pairwise.test_memory import compiled


def reference_info_nce(groups, image, text, scale, same=None, label_smoothing=0.0):
  """The mean of the losses of the groups, and its gradients, in float64."""
  parts = [np.split(a, groups) for a in (image, text)]
  ids = [None] * groups if same is None else np.split(same, groups)
  results = [
    reference.info_nce(*arrays, scale, own, label_smoothing)
    for *arrays, own in zip(*parts, ids, strict=True)
  ]
  values, gradients = zip(*results, strict=True)
  of_image, of_text, of_scale = zip(*gradients, strict=True)
  joined = np.concatenate(of_image) / groups, np.concatenate(of_text) / groups
  return np.mean(values), (*joined, np.mean(of_scale))


@functools.partial(jax.jit, static_argnames=('options',))
def loss_and_gradients(image, text, scale, same, options):
  def loss(image, text, scale):
    return losses.info_nce(image, text, scale=scale, same=same, **dict(options))

  return jax.value_and_grad(loss, (0, 1, 2))(image, text, scale)


def check(size, groups, mesh, label_smoothing=0.0, **options):
  rng = np.random.default_rng(size)
  image, text = reference.unit(rng, 2, size, 12)
  same, scale = rng.integers(0, size // 2, size), np.float32(20)
  options |= {'groups': groups, 'label_smoothing': label_smoothing}
  options['mesh'] = reference.make_mesh(mesh)
  found = loss_and_gradients(image, text, scale, same, tuple(options.items()))
  truth, expected = reference_info_nce(groups, image, text, scale, same, label_smoothing)
  reference.assert_near(found[0], truth)
  floors = scale / size, scale / size, 1.0
  for got, gradient, floor in zip(found[1], expected, floors, strict=True):
    reference.assert_near(got, gradient, floor)


FAST = (3, 'none'), (4, '8/0'), (6, '8')


# Of 96 rows on 8 shards, a group is several shards, a shard is several groups, or neither: then a
# boundary of the groups cuts a shard.
@pytest.mark.parametrize(
  ('groups', 'mesh'),
  [
    pytest.param(groups, mesh, marks=() if (groups, mesh) in FAST else pytest.mark.slow)
    for groups in (1, 2, 3, 4, 6, 8, 12, 24, 32, 96)
    for mesh in ('none', '8', '8/0', '4x2', '2x2x2')
  ],
)
def test_value_and_gradients_are_those_of_the_groups_alone(groups, mesh):
  check(96, groups, mesh, block_size=8)


@pytest.mark.slow
@pytest.mark.parametrize('options', [{'label_smoothing': 0.1}, {'kernel': 'pallas'}])
@pytest.mark.parametrize(
  ('groups', 'mesh'), [(3, 'none'), (24, '8'), (4, '8'), (6, '8/0'), (3, '8')]
)
def test_groups_with_other_options(groups, mesh, options):
  check(96, groups, mesh, block_size=128, **options)


@pytest.mark.parametrize('mesh', [None, pytest.param('8', marks=pytest.mark.slow)])
def test_one_group_is_clip_and_groups_of_one_pair_give_0(mesh):
  image, text = reference.unit(np.random.default_rng(0), 2, 16, 4)
  loss = functools.partial(losses.info_nce, image, text, scale=9.0)
  loss = functools.partial(loss, mesh=reference.make_mesh(mesh or 'none'))
  assert loss(groups=1) == loss()
  np.testing.assert_allclose(loss(groups=16), 0.0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('mesh', ['none', '8'])
@pytest.mark.parametrize('groups', [4, 6])
def test_bfloat16_gives_bfloat16_gradients(groups, mesh):
  image, text = reference.unit(np.random.default_rng(0), 2, 96, 12)
  image, text = (jnp.asarray(a, jnp.bfloat16) for a in (image, text))
  options = ('groups', groups), ('mesh', reference.make_mesh(mesh))
  value, gradients = loss_and_gradients(image, text, jnp.float32(20), None, options)
  assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
  rounded = (np.asarray(a, np.float64) for a in (image, text))
  truth, expected = reference_info_nce(groups, *rounded, 20.0)
  reference.assert_near(value, truth)
  for got, gradient in zip(gradients[:2], expected[:2], strict=True):
    reference.assert_near(got, gradient, floor=0.0, tolerance=2**-7)


@pytest.mark.parametrize('mesh', ['none', '8'])
@pytest.mark.parametrize('groups', [1, 4, 32])
def test_groups_divide_the_products(groups, mesh):
  """Counted in the traced program, and by the plan."""
  image = jax.ShapeDtypeStruct((1024, 16), jnp.float32)
  options = {'groups': groups, 'block_size': 64, 'mesh': reference.make_mesh(mesh)}
  gradient = jax.grad(functools.partial(losses.info_nce, scale=9.0, **options), (0, 1))
  counted = traced_flops.traced(gradient, image, image).total
  assert counted == 4 * 2 * 1024**2 * 16 / groups
  assert METHODS['info_nce'](groups=groups).flops(Sizes(batch=1024, embed=16)) == counted


@pytest.mark.parametrize(
  ('groups', 'mesh', 'devices'),
  [
    (4, '8/0', 2),
    (6, '8', 4),  # three of them on 4 devices
    *(pytest.param(*case, marks=pytest.mark.slow) for case in ((8, '8', 1), (2, '8/0', 4))),
  ],
)
def test_embeddings_travel_within_a_group(groups, mesh, devices):
  program = compiled(losses.info_nce, 96, 8, reference.make_mesh(mesh), groups=groups).as_text()
  found = hlo.Program(program).collectives()
  found.pop('all-reduce')  # of the loss and the gradient of the scale
  sizes = {size for kind in found.values() for size in kind.groups}
  hops = re.findall(r'source_target_pairs=\{(.*?)\}\}', program)
  pairs = [tuple(map(int, hop)) for line in hops for hop in re.findall(r'(\d+),(\d+)', line)]
  assert all(one // devices == other // devices for one, other in pairs)
  if devices == 1:
    assert not found
  elif mesh == '8/0':
    assert pairs and set(found) == {'collective-permute'}
  else:
    assert not pairs and sizes == {devices}


@pytest.mark.parametrize(
  ('rows', 'columns', 'groups'), [(8, 8, 3), (8, 8, 0), (8, 8, 16), (8, 4, 2)]
)
def test_groups_that_do_not_divide_are_refused(rows, columns, groups):
  message = f'groups = {groups} for {rows} rows and {columns} columns; .* a divisor'
  with pytest.raises(ValueError, match=message):
    pairwise.logsumexp(jnp.ones((rows, 2)), jnp.ones((columns, 2)), groups=groups)
