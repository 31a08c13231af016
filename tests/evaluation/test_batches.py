"""Laws of the programs that evaluate: what they read, and send between devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data import images
from contrastive_jax.evaluation import batches
from contrastive_jax.evaluation.batches import in_batches, jit_batched, own_rows
from contrastive_jax.models.generation import generate
from contrastive_jax.planning.hlo import Program
from contrastive_jax.sharding.mesh import batch_sharding, batch_shards, make_mesh, place_whole
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
  shapes = definition.shapes
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


SPLIT = 'heldout_composition[:37]'
SIZE = 16


def one_by_one(function, inputs, batch_size, mesh):
  """Outputs of batches that are whole on the host and computed one after the other."""
  batch_size = -(-batch_size // batch_shards(mesh)) * batch_shards(mesh)
  outputs = []
  for start in range(0, len(inputs), batch_size):
    part = inputs[start : start + batch_size]
    filled = np.concatenate([part, np.zeros_like(inputs, shape=(batch_size, *part.shape[1:]))])
    outputs.append(np.asarray(function(place_whole(filled[:batch_size], mesh)))[: len(part)])
  return np.concatenate(outputs)


@pytest.mark.parametrize('batch_size', [5, 16, 37, 64])
@pytest.mark.parametrize('devices', [1, 8])
def test_lazy_images_give_the_bits_of_an_array(devices, batch_size):
  mesh = make_mesh(f'data:{devices}', jax.devices()[:devices])
  weight = jax.random.normal(jax.random.key(0), (SIZE * SIZE * 3, 8))
  apply = jit_batched(lambda weight, x: jnp.tanh(x.reshape(len(x), -1) / 255 @ weight), mesh)
  source = data.open_source('emoji', SPLIT)
  whole = data.evaluation_images(source, SIZE)
  expected = one_by_one(lambda batch: apply(weight, batch), whole, batch_size, mesh)
  for inputs in (whole, data.DecodedImages(source, SIZE)):
    found = in_batches(lambda batch: apply(weight, batch), inputs, batch_size, mesh)
    np.testing.assert_array_equal(found, expected, strict=True)


class Result:
  """The output of a computation that ends when it is asked for."""

  def __init__(self, number, events):
    self.number, self.events = number, events

  def __array__(self, dtype=None, copy=None):
    self.events.append(f'fetch {self.number}')
    return np.full([8], self.number)


def test_a_batch_is_dispatched_before_the_one_before_is_fetched():
  events = []

  def dispatch(batch):
    events.append(f'dispatch {int(batch[0])}')
    return Result(int(batch[0]), events)

  in_batches(dispatch, np.repeat(np.arange(3), 8), 8, make_mesh('data:8'))
  assert events == ['dispatch 0', 'dispatch 1', 'fetch 0', 'dispatch 2', 'fetch 1', 'fetch 2']


@pytest.mark.parametrize('batch_size', [8, 12, 64])
def test_a_process_decodes_its_share_alone(monkeypatch, batch_size):
  """Of two processes, as the mesh tells their rows; what they place is put together here."""
  mesh, source = make_mesh('data:4', jax.devices()[:4]), data.open_source('emoji', SPLIT)
  decode, whole = images.decode, data.evaluation_images(source, SIZE)
  rounded, placed, decoded = -(-batch_size // 4) * 4, [], []
  monkeypatch.setattr(images, 'decode', lambda image: decoded.append(image) or decode(image))
  monkeypatch.setattr(batches, 'place_rows', lambda rows, *_: rows)
  for process in range(2):
    half = np.arange(rounded).reshape(2, -1)[process]
    monkeypatch.setattr(batches, 'local_rows', lambda *_, half=half: half)
    decoded.clear()
    parts = []
    in_batches(
      lambda batch, parts=parts: parts.append(batch) or np.zeros(rounded),
      data.DecodedImages(source, SIZE),
      batch_size,
      mesh,
    )
    assert len(decoded) == len(own_rows(len(whole), batch_size, mesh)) < len(whole)
    placed.append(np.stack(parts))
  together = np.concatenate(placed, axis=1).reshape(-1, *whole.shape[1:])
  np.testing.assert_array_equal(together[: len(whole)], whole)
  assert not together[len(whole) :].any()
