"""Where each parameter of the paper's models lives, written down: a change must be meant.

`python -m tests.sharding.test_golden` writes the tables anew.
"""

import pathlib

import jax
import pytest
from jax.sharding import AbstractMesh

from configs import clip, coca
from contrastive_jax.models.definition import define
from contrastive_jax.sharding.mesh import AXES
from contrastive_jax.sharding.rules import parameter_shardings

FOLDER = pathlib.Path(__file__).parent / 'golden'
# (data, fsdp, tensor): (256,), (16, 16) and (8, 4, 8).
MESHES = {
  'data:256': (256, 1, 1),
  'data:16,fsdp:16': (16, 16, 1),
  'data:8,fsdp:4,tensor:8': (8, 4, 8),
}
# Its twelve heads do not divide over eight devices: attention is cut along 'embed' alone.
MODELS = {'clip_vit_b16': (clip, 'vit_b16', {'heads': None}), 'coca_large': (coca, 'large', {})}


def table(recipe, variant, rules):
  """A line a parameter: its path, its shape, and its cut on each mesh."""
  config = recipe.get_config(variant)
  definition = define(**config.model.to_dict())
  shapes = definition.shapes
  rules = config.sharding.to_dict() | rules
  columns = [
    jax.tree.leaves(parameter_shardings(definition.axes, shapes, rules, AbstractMesh(sizes, AXES)))
    for sizes in MESHES.values()
  ]
  lines = [f'parameter | shape | {" | ".join(MESHES)}']
  for (path, leaf), *placed in zip(
    jax.tree_util.tree_leaves_with_path(shapes), *columns, strict=True
  ):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    cuts = [', '.join(axis or '-' for axis in sharding.spec) for sharding in placed]
    lines.append(f'{name} | {", ".join(map(str, leaf.shape))} | {" | ".join(cuts)}')
  return '\n'.join(lines) + '\n'


@pytest.mark.parametrize('name', MODELS)
def test_every_parameter_lives_where_it_is_written(name):
  assert table(*MODELS[name]) == (FOLDER / f'{name}.txt').read_text()


if __name__ == '__main__':
  for name, model in MODELS.items():
    (FOLDER / f'{name}.txt').write_text(table(*model))
