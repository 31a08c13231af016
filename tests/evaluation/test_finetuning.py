import io

import chex
import jax
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from contrastive_jax import data
from contrastive_jax.evaluation.finetuning import classify, define_classifier, fit
from contrastive_jax.models.definition import define
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.optimizer import make_optimizer
from contrastive_jax.training.rates import frozen, parameter_rates
from tests.models.towers import IMAGE, SECTIONS, TOWERS, drawn, tiny, tiny_coca

FIELDS = {'b1': 0.9, 'b2': 0.98, 'epsilon': 1e-6, 'weight_decay': 0.05, 'clip_norm': 1.0}
COLORS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]])


def pictures(number, seed=0):
  """Noisy pictures of three colors, and the numbers of the colors."""
  random = np.random.default_rng(seed)
  labels = random.integers(3, size=number)
  noise = random.integers(-60, 60, (number, 8, 8, 3))
  return np.clip(COLORS[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels


def started(classifier):
  """Drawn parameters, but a head as it begins, and variances of 1."""
  parameters = drawn(classifier)
  parameters['head'] = jax.jit(lambda key: classifier.init(key)['head'])(jax.random.key(0))
  begun = lambda path, a: 1 + 0 * a if path[-1].key == 'variance' else a  # noqa: E731
  return jax.tree_util.tree_map_with_path(begun, parameters)


def train(rates, mesh='data:8', layer_decay=1.0, steps=30, devices=None, **options):
  classifier = define_classifier(tiny(image={'layers': 1}), 3, heads=2)
  start = started(classifier)
  multipliers = parameter_rates(classifier, rates, layer_decay)
  optimizer = make_optimizer(optax.constant_schedule(3e-3), **FIELDS, rates=multipliers)
  mesh = make_mesh(mesh, devices)
  held = frozen(classifier, multipliers)
  trained = fit(
    held, start, optimizer, *pictures(72), steps=steps, batch_size=24, mesh=mesh, **options
  )
  images, labels = pictures(50, seed=1)
  predicted = classify(classifier, trained, images, batch_size=20, mesh=mesh)
  return start, trained, np.mean(predicted == labels)


@pytest.mark.slow
def test_the_probe_learns_over_a_frozen_tower_on_eight_devices_as_on_one():
  rates = (('image/.*', 0.0),)
  start, trained, accuracy = train(rates, 'data:4,fsdp:2')
  assert accuracy == 1
  chex.assert_trees_all_equal(start['image'], trained['image'])
  assert not np.array_equal(start['pooler']['queries'], trained['pooler']['queries'])
  _, one, _ = train(rates, 'data:1', devices=jax.devices()[:1])
  chex.assert_trees_all_close(jax.device_get(one), jax.device_get(trained), atol=1e-3)


@pytest.mark.slow
def test_finetuning_moves_all():
  start, trained, accuracy = train((), layer_decay=0.75)
  assert accuracy == 1
  moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), start, trained)
  assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize('scan', [False, True])
def test_a_classifier_keeps_the_towers_parameters_and_axes(scan):
  definition = tiny(image={'scan': scan})
  classifier = define_classifier(definition, 5, heads=2)
  ours, theirs = (
    jax.eval_shape(lambda made=made: made.init(jax.random.key(0)))
    for made in (classifier, definition)
  )
  chex.assert_trees_all_equal_shapes_and_dtypes(ours['image'], theirs['image'])
  assert classifier.axes['image'] == definition.axes['image']
  assert ours['head']['kernel'].shape == (16, 5)


@pytest.mark.parametrize('name', TOWERS)
def test_a_classifier_suits_every_tower(name):
  definition = define('encoder', embed=12, projector=(8,), image=SECTIONS[name])
  classifier = define_classifier(definition, 5, heads=2)
  shapes = classifier.shapes
  encode = lambda p: classifier.bind(p)(np.zeros((2, 32, 32, 3), np.float32))  # noqa: E731
  assert jax.eval_shape(encode, shapes).shape == (2, 5)
  assert classifier.statistics == definition.statistics


@pytest.mark.parametrize('rates', [(), pytest.param((('image/.*', 0.0),), marks=pytest.mark.slow)])
def test_training_a_classifier_leaves_running_statistics(rates):
  image = IMAGE | {'stem': 'convolution', 'stem_blocks': (0, 1), 'stem_norm': 'batch', 'layers': 0}
  classifier = define_classifier(tiny(image=image | {'pooling': 'mean'}), 3, heads=2)
  start = started(classifier)
  multipliers = parameter_rates(classifier, rates)
  optimizer = make_optimizer(optax.constant_schedule(3e-3), **FIELDS, rates=multipliers)
  mesh, held = make_mesh('data:1', jax.devices()[:1]), frozen(classifier, multipliers)
  trained = fit(held, start, optimizer, *pictures(24), steps=2, batch_size=12, mesh=mesh)
  assert jax.tree.structure(trained) == jax.tree.structure(start)
  (before, fixed), (after, kept) = (classifier.part(tree) for tree in (start, trained))
  chex.assert_trees_all_equal(fixed, kept)
  moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, after)
  assert any(jax.tree.leaves(moved['image'])) == (not rates) and moved['head']['kernel']


@pytest.mark.parametrize('make', [tiny, tiny_coca])
def test_a_new_classifier_has_no_opinion(make):
  classifier = define_classifier(make(), 5, heads=2)
  parameters = started(classifier)
  logits = jax.jit(lambda p: classifier.bind(p)(np.ones((2, 8, 8, 3), np.float32)))(parameters)
  np.testing.assert_array_equal(logits, np.zeros((2, 5)))


def test_mistakes_are_named():
  with pytest.raises(ValueError, match=r'batch_size = 24 does not suit 20 examples'):
    fit(None, None, None, np.zeros((20, 1)), None, steps=1, batch_size=24, mesh=make_mesh('data:8'))
  with pytest.raises(ValueError, match=r'batch_size = 20 does not suit 72 examples on 8 data'):
    fit(None, None, None, np.zeros((72, 1)), None, steps=1, batch_size=20, mesh=make_mesh('data:8'))


def test_pictures_are_augmented_and_a_loss_that_is_not_finite_stops():
  with pytest.raises(FloatingPointError, match='the loss of step 2 is nan'):
    mesh = {'mesh': 'data:1', 'devices': jax.devices()[:1]}
    nan = lambda keys, images: images * jax.numpy.nan  # noqa: E731
    train((('image/.*', 0.0),), steps=2, augment=nan, **mesh)


class FashionMnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """TFDS's fashion_mnist as it lies on disk, of a few pictures."""

  VERSION = tfds.core.Version('3.0.1')

  def _info(self):
    features = {
      'image': tfds.features.Image(shape=(28, 28, 1)),
      'label': tfds.features.ClassLabel(num_classes=10),
    }
    return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples(20), 'test': self._generate_examples(10)}

  def _generate_examples(self, number):
    for i in range(number):
      buffer = io.BytesIO()
      Image.fromarray(np.full((28, 28), 25 * (i % 10), np.uint8)).save(buffer, 'PNG')
      yield i, {'image': buffer.getvalue(), 'label': i % 10}


def test_fashion_mnist_is_read_as_tfds_prepares_it(tmp_path):
  with pytest.raises(ValueError, match=r"no split 'train'|cannot be read"):
    data.open_source('fashion_mnist', 'train', str(tmp_path))
  FashionMnist(data_dir=tmp_path, file_format='array_record').download_and_prepare()
  source = data.open_source('fashion_mnist', 'train', str(tmp_path))
  assert len(source) == 20 and len(data.open_source('fashion_mnist', 'test', str(tmp_path))) == 10
  images, labels = data.evaluation_images(source, 32), source.values('label')
  assert images.shape == (20, 32, 32, 3) and sorted(labels) == sorted(2 * '0123456789')
  np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), 25 * np.array(labels, int), atol=1)
