import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from contrastive_jax.sharding import mesh, rules

AXES = {'mlp': {'kernel': ('embed', 'mlp'), 'bias': ('mlp',)}, 'square': ('embed', 'embed')}
SHAPES = {
  'mlp': {'kernel': jnp.zeros((8, 16)), 'bias': jnp.zeros(16)},
  'square': jnp.zeros((8, 8)),
}


def specs(table, shape):
  placed = rules.parameter_shardings(AXES, SHAPES, table, mesh.make_mesh(shape))
  return jax.tree.map(lambda sharding: sharding.spec, placed)


def test_the_table_alone_decides():
  assert specs({}, 'data:8')['mlp']['kernel'] == P(None, None)
  table = {'embed': 'fsdp', 'mlp': 'tensor'}
  found = specs(table, 'fsdp:4,tensor:2')
  assert found['mlp'] == {'kernel': P('fsdp', 'tensor'), 'bias': P('tensor')}
  # One mesh axis cuts a parameter once.
  assert found['square'] == P('fsdp', None)
  assert specs(table, 'data:8')['mlp']['kernel'] == P(None, None)


def test_errors_name_parameter_shape_and_rule():
  with pytest.raises(ValueError, match=r'config\.sharding\.embed = .rows.'):
    specs({'embed': 'rows'}, 'data:8')
  with pytest.raises(ValueError, match=r'mlp/bias of shape \(10,\).*config\.sharding\.mlp'):
    rules.parameter_shardings(
      {'mlp': {'bias': ('mlp',)}},
      {'mlp': {'bias': jnp.zeros(10)}},
      {'mlp': 'tensor'},
      mesh.make_mesh('tensor:8'),
    )
