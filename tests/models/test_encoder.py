import functools
import io

import jax
import numpy as np
import pytest
from PIL import Image

from configs import simclr
from configs.methods import moco_images
from contrastive_jax import interop
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.methods import Objective
from contrastive_jax.models.definition import define
from contrastive_jax.planning import traced_flops
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import build, flops
from contrastive_jax.training.batch import abstract_batch
from tests.doubles import slow_but
from tests.models.towers import IMAGE, batch_of, drawn


def tiny(**fields):
  return define('encoder', **{'embed': 12, 'projector': (8,), 'image': IMAGE} | fields)


def encoded_by(definition):
  """What the loss reads, and what an evaluation does."""

  @jax.jit
  def encode(parameters, images):
    model = definition.bind(parameters)
    return model.encode({'image': images}), model.encode_image(images)

  return jax.device_get(encode(drawn(definition), batch_of()[0]))


def test_the_projector_is_for_the_loss_and_its_features_for_evaluation():
  definition = tiny()
  outputs, embedded = encoded_by(definition)
  assert outputs.image.shape == (4, 12) and outputs.text is None
  np.testing.assert_allclose(np.linalg.norm(outputs.image, axis=1), 1, rtol=1e-5)
  features = outputs.image_features
  expected = features / np.linalg.norm(features, axis=1, keepdims=True)
  np.testing.assert_allclose(embedded, expected, rtol=1e-5)


def test_without_a_projector_the_embeddings_are_the_features():
  definition = tiny(projector=(), embed=IMAGE['width'])
  outputs, embedded = encoded_by(definition)
  np.testing.assert_array_equal(outputs.image, embedded)
  with pytest.raises(ValueError, match=r"projector = \(\) needs .* tower's 16 features to equal"):
    tiny(projector=())


@pytest.mark.parametrize('recipe', slow_but([simclr, moco_images], moco_images))
def test_it_is_built_without_texts(recipe):
  config = recipe.get_config('smoke')
  assert 'text' not in config.model
  run = build.build(config)
  assert run.tokenizer is None
  batch = abstract_batch(config, run.definition)
  assert set(batch) == {'image', 'id'}
  traced = traced_flops.traced(run.train_step, run.abstract_state, batch)
  parts = flops.analytic(config, run.abstract_state.parameters, run.objective, run.sizes)
  # Those of the augmentation are not of the model.
  assert traced.total >= parts['image'] + parts['targets'] > 0 == parts['text']


def test_a_second_view_is_asked_for():
  definition = tiny()
  outputs = jax.eval_shape(
    lambda p: definition.bind(p).encode({'image': np.zeros((2, 8, 8, 3), np.float32)}),
    definition.shapes,
  )
  with pytest.raises(ValueError, match=r"decoupled needs 'second', .* with config\.views = 2"):
    Objective({'decoupled': 1.0}).check(outputs, {})


class Examples:
  """Pictures of one color per class."""

  cached = True

  def __len__(self):
    return 8

  def __getitem__(self, number):
    image = np.full((8, 8, 3), 255 * (number % 2), np.uint8)
    return self.fields(number) | {'image': encoded(image)}

  def fields(self, number):
    return {'id': number, 'kind': 'ab'[number % 2]}


def encoded(image):
  Image.fromarray(image).save(buffer := io.BytesIO(), 'png')
  return buffer.getvalue()


@functools.cache
def evaluator(augmentation=()):
  return Evaluator(
    tiny(),
    None,
    {'held_out': Examples()},
    make_mesh('data:1', jax.devices()[:1]),
    image_size=8,
    batch_size=8,
    classes={'kind': {'a': 'a', 'b': 'b'}},
    templates=('{}',),
    probes=('neighbours', 'prototypes'),
    probe_source=Examples(),
    augmentation=dict(augmentation),
  )


def test_its_evaluation_is_by_the_nearest_neighbours():
  parameters = drawn(tiny())
  figures = evaluator()(parameters)
  assert sorted(figures) == sorted(evaluator().names)
  assert figures['held_out/kind_neighbours_accuracy'] == 1
  whole, splits = evaluator().finish(parameters)
  assert figures.items() < whole.items() and splits == []
  assert 'held_out/alignment' not in whole


def test_two_views_of_the_held_out_images_diagnose_the_embeddings():
  views = evaluator((('brightness', 0.5),))
  figures = views(parameters := drawn(tiny()))
  assert sorted(figures) == sorted(views.names)
  assert figures == views(parameters)  # the same views in every evaluation
  assert 0 < figures['held_out/alignment'] < 4
  assert 1 <= figures['held_out/effective_rank'] <= 7
  assert -1 <= figures['held_out/tolerance_kind'] <= 1


def test_what_is_written_is_read(tmp_path):
  fields = {'name': 'encoder', 'embed': 12, 'projector': [8], 'image': IMAGE}
  parameters = jax.device_get(drawn(define(**fields)))
  interop.export_run(
    {'name': 'x', 'variant': 'y', 'model': fields, 'objective': {}, 'batch_size': 2}
    | {'data': {'name': 'z', 'split': 'train', 'tokenizer': ''}},
    parameters,
    tmp_path,
    None,
  )
  read = interop.read(tmp_path / 'export')
  assert read.fields == fields
  jax.tree.map(np.testing.assert_array_equal, read.parameters, parameters)
