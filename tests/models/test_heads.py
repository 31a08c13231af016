import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from contrastive_jax.models.heads import (
  define_head,
  define_prototype_head,
  define_scale,
  head_flops,
)
from contrastive_jax.planning import traced_flops
from contrastive_jax.sharding.mesh import batch_sharding, make_mesh
from contrastive_jax.training.optimizer import bound_scale, decays
from tests.models.towers import drawn

WIDTHS = 6, (8, 8), 4


@pytest.fixture(scope='module')
def rows():
  return 3 + 2 * np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)


def test_batch_statistics_are_of_the_whole_batch_on_any_mesh(rows):
  head = define_head(*WIDTHS, last_norm=True)
  parameters = drawn(head)

  def value_and_gradient(parameters, rows):
    cotangent = jnp.arange(64.0).reshape(16, 4)
    loss = lambda parameters, rows: jnp.sum(cotangent * head.bind(parameters)(rows))  # noqa: E731
    return head.bind(parameters)(rows), jax.grad(loss, (0, 1))(parameters, rows)

  one = jax.jit(value_and_gradient)(parameters, rows)
  mesh = make_mesh('data:8')
  placed = jax.device_put(rows, batch_sharding(mesh))
  eight = jax.jit(value_and_gradient)(parameters, placed)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), one, eight)
  np.testing.assert_allclose(np.mean(one[0], 0), 0, atol=1e-5)
  np.testing.assert_allclose(np.std(one[0], 0), 1, atol=1e-3)


def test_a_shift_and_a_scale_of_a_feature_change_nothing(rows):
  """So batch norm follows each hidden layer."""
  head = define_head(*WIDTHS)
  parameters = drawn(head)
  kernel = parameters['layers'][0]['kernel']
  wider = parameters | {'layers': parameters['layers'] | {0: {'kernel': 5 * kernel}}}
  np.testing.assert_allclose(
    head.bind(wider)(rows), head.bind(parameters)(rows), rtol=1e-3, atol=1e-3
  )


@pytest.mark.parametrize(
  ('options', 'biases'),
  [({}, [False, False, True]), ({'last_norm': True}, [False] * 3), ({'norm': 'none'}, [True] * 3)],
)
def test_biases_are_where_no_norm_takes_them_away(options, biases):
  shapes = define_head(*WIDTHS, **options).shapes
  layers = [*shapes['layers'].values(), shapes['output']]
  assert ['bias' in layer for layer in layers] == biases


def test_unknown_norms_are_named():
  with pytest.raises(
    ValueError, match=r"norm = 'layer' is unknown; use one of \('batch', 'none'\)"
  ):
    define_head(*WIDTHS, norm='layer')


def test_the_program_asks_for_the_operations_of_the_sizes(rows):
  head = define_head(*WIDTHS)
  shapes = head.shapes
  gradient = jax.grad(lambda parameters, rows: jnp.sum(head.bind(parameters)(rows) ** 2), (0, 1))
  assert traced_flops.traced(gradient, shapes, rows).total == head_flops(*WIDTHS, 16)


def test_a_scale_is_bounded_like_the_models():
  scale = define_scale(10.0)
  parameters = scale.init(jax.random.key(0))
  assert scale.bind(parameters)() == pytest.approx(10)
  update, _ = bound_scale(100.0).update({'log_scale': jnp.float32(9)}, None, parameters)
  assert parameters['log_scale'] + update['log_scale'] == pytest.approx(np.log(100))
  assert decays(parameters) == {'log_scale': False}


def test_prototypes_are_compared_by_their_cosine():
  sizes = 6, 8, 5, 7
  head = define_prototype_head(*sizes)
  parameters, rows = drawn(head), np.random.default_rng(0).normal(size=(3, 2, 6))
  x = rows
  for index, layer in parameters['layers'].items():
    x = x if index == 0 else x * scipy.stats.norm.cdf(x)
    x = x @ np.float64(layer['kernel']) + layer['bias']
  normal = lambda vectors, axis: vectors / np.linalg.norm(vectors, axis=axis, keepdims=True)  # noqa: E731
  expected = normal(x, -1) @ normal(np.float64(parameters['prototypes']['kernel']), 0)
  found = head.bind(parameters)(rows.astype(np.float32))
  assert found.shape == (3, 2, 7) and np.abs(found).max() < 1
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
