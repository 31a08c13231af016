"""Laws of the programs that evaluate: what they send between devices."""

import jax
import jax.numpy as jnp
import pytest

from contrastive_jax.evaluation.batches import jit_batched
from contrastive_jax.models.generation import generate
from contrastive_jax.planning.hlo import Program
from contrastive_jax.sharding.mesh import batch_sharding, make_mesh
from contrastive_jax.sharding.rules import parameter_shardings
from tests.models.towers import tiny, tiny_coca

LAYERS = {'width': 64, 'layers': 3, 'heads': 2, 'scan': True}
IMAGE = {**LAYERS, 'size': 32, 'patch': 8}
TEXT = {**LAYERS, 'vocabulary': 32, 'length': 16}
CLIP = tiny(image=IMAGE, text=TEXT, embed=64)
COCA = tiny_coca(image=IMAGE, text=TEXT, decoder={'layers': 1, 'heads': 2}, embed=64)


def encode_image(model, images):
  return model.encode_image(images)


def encode_text(model, tokens):
  return model.encode_text(tokens)


def caption(model, images):
  return generate(model, images, start_id=1, end_id=2, max_length=3).tokens


def sent(definition, function, batch, mesh):
  """Collectives of a function whose parameters are sharded, and the bytes of those."""
  shapes = jax.eval_shape(definition.init, jax.random.key(0))
  places = parameter_shardings(definition.axes, shapes, {'embed': 'fsdp'}, mesh)
  place = lambda leaf, to: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=to)  # noqa: E731

  def apply(parameters, batch):
    return function(definition.bind(parameters), batch)

  lowered = jit_batched(apply, mesh).lower(
    jax.tree.map(place, shapes, places), place(batch, batch_sharding(mesh))
  )
  found = Program(lowered.compile().as_text()).collectives()
  return found, sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
  ('definition', 'function', 'shape', 'dtype'),
  [
    (CLIP, encode_image, (32, 32, 3), jnp.float32),
    (CLIP, encode_text, (16,), jnp.int32),
    (COCA, caption, (32, 32, 3), jnp.float32),
  ],
  ids=['image', 'text', 'caption'],
)
def test_fsdp_gathers_parameters_and_leaves_activations(definition, function, shape, dtype):
  batch = jax.ShapeDtypeStruct((128, *shape), dtype)
  found, parameters = sent(definition, function, batch, make_mesh('fsdp:8'))
  assert found['all-gather'].bytes > 0.2 * parameters
  assert sum(collective.bytes for collective in found.values()) < 2 * parameters
  if function is not caption:  # whose decoding reduces one token per caption
    assert 'all-reduce' not in found
