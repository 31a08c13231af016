import functools
import json
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs.methods import rankmixup
from contrastive_jax import tasks
from contrastive_jax.tasks import classification
from contrastive_jax.tasks.labeled import LabeledImages
from contrastive_jax.training import workdir
from tests.losses import reference

IMAGES = np.random.default_rng(0).normal(size=(6, 2, 2, 3)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
LABELS = jnp.array([0, 1, 2, 0, 1, 2])
KEY = jax.random.key(0)


def classify(images):
  """A linear classifier, whose logits of a mixture are the mixture of logits."""
  return images.reshape(len(images), -1) @ WEIGHTS


@functools.partial(jax.jit, static_argnames=('name', 'copies'))
def loss(labels, name, weight=0.1, copies=3):
  options = {'name': name, 'weight': weight, 'copies': copies}
  return classification.objective(classify, jnp.asarray(IMAGES), labels, KEY, **options)


@jax.jit
def entropy(logits, labels):
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


@pytest.mark.parametrize('name', ['mrl', 'm_ndcg'])
def test_the_ranking_is_added_to_the_cross_entropy_by_its_weight(name):
  truth = entropy(classify(IMAGES), LABELS)
  found = {weight: loss(LABELS, name, weight) for weight in (0.0, 0.5)}
  reference.assert_near(found[0.0][0], truth)
  value, parts = found[0.5]
  assert parts[name] > 0
  reference.assert_near(value, truth + 0.5 * parts[name])
  reference.assert_near(loss(LABELS, 'cross_entropy')[0], truth)


def test_mixup_is_the_cross_entropy_of_mixed_targets():
  @jax.jit
  def expected(labels, images):
    share_key, key = jax.random.split(KEY, 2)
    share = jax.random.beta(share_key, 2.0, 2.0, (1,))[0]
    partners = jax.random.permutation(key, 6)
    targets = jax.nn.one_hot(labels, 3)
    targets = share * targets + (1 - share) * targets[partners]
    logits = classify(share * images + (1 - share) * images[partners])
    return optax.softmax_cross_entropy(logits, targets).mean()

  reference.assert_near(loss(LABELS, 'mixup')[0], expected(LABELS, IMAGES))


def test_within_one_class_mrl_is_the_cross_entropy():
  same = jnp.zeros(6, int)
  value, parts = loss(same, 'mrl')
  assert parts['mrl'] == 0
  reference.assert_near(value, entropy(classify(IMAGES), same))


def test_an_epoch_has_every_example_once_and_depends_on_the_step_alone():
  config = rankmixup.get_config('smoke')
  config.batch_size = 4
  trained = LabeledImages(np.zeros((9, 1, 1, 3), np.uint8), np.arange(9), ())
  batches = [classification.make_batches(config, trained)(step)['labels'] for step in range(4)]
  for epoch in (batches[:2], batches[2:]):
    assert len({*np.concatenate(epoch)}) == 8
  assert not np.array_equal(batches[0], batches[2])
  again = classification.make_batches(config, trained)(3)
  np.testing.assert_array_equal(again['labels'], batches[3])


@pytest.mark.parametrize(
  'path, value, message',
  [
    (
      'loss.name',
      'focal',
      r"config\.loss\.name = 'focal' is unknown; use one of \('cross_entropy'",
    ),
    ('loss.copies', 0, r'config\.loss\.copies = 0; use'),
    ('loss.alpha', 0.0, r'config\.loss\.alpha = 0\.0; use'),
    ('batch_size', 0, r'config\.batch_size = 0; use'),
    ('batch_size', 10**6, r'config\.batch_size = 1000000 exceeds the \d+ examples'),
    ('data.labels', 'kind', r"config\.data\.labels = 'kind' does not suit .* has no field 'kind'"),
    ('data.labels', 'skin_tone', r"config\.data\.labels = 'skin_tone' has the one value"),
    ('evaluation.splits', (), r'config\.evaluation\.splits = \(\) names no split'),
    ('evaluation.splits', ('train[group=flags]',), r"the classes \['flags'\] that config\.data"),
    ('augmentation.flip', 2.0, r'config\.augmentation\.flip = 2\.0'),
    ('model.image.depth', 2, r'config\.model\.image\.depth: ImageTower takes none'),
  ],
)
def test_what_cannot_work_is_refused_when_opened(path, value, message):
  config = rankmixup.get_config('smoke')
  *sections, field = path.split('.')
  section = functools.reduce(operator.getitem, sections, config)
  with section.unlocked():
    section[field] = value
  with pytest.raises(ValueError, match=message):
    tasks.open_task(config)


@pytest.mark.slow
@pytest.mark.parametrize('name', classification.LOSSES)
def test_it_trains_with_every_loss_and_saves_what_diagrams_show(name, tmp_path):
  config = rankmixup.get_config('smoke')
  config.loss.name = name
  with workdir.unlocking():
    results = tasks.run(config, tmp_path)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert np.isfinite([line['train/loss'] for line in lines]).all()
  with np.load(tmp_path / classification.PREDICTIONS) as predictions:
    (split,) = config.evaluation.splits
    right = predictions[f'{split}/right']
    assert right.mean() == pytest.approx(results[f'{split}/accuracy'])
    assert predictions[f'{split}/confidence'].shape == right.shape


@pytest.mark.slow
def test_a_resnet_with_batch_norm_trains(tmp_path):
  config = rankmixup.get_config('smoke')
  tower = {'tower': 'resnet', 'size': 32, 'width': 4, 'layers': (1, 1, 1, 1), 'heads': 2}
  with config.unlocked():
    del config.model['image']
    config.model.image = tower
  with workdir.unlocking():
    results = tasks.run(config, tmp_path)
  assert 0 < results[f'{config.evaluation.splits[0]}/expected_calibration_error'] < 1
