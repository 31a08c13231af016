import jax
import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data.scenes import silhouette
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.evaluation.segmentation import (
  Segmentation,
  balance,
  cell_classes,
  compose,
  mean_iou,
  segment,
)
from contrastive_jax.evaluation.zero_shot import read_classes
from contrastive_jax.sharding.mesh import make_mesh
from tests.models.towers import drawn, tiny

SPLIT = 'heldout_composition[vendor=twemoji,skin_tone=dark]'


def squares(count=4, size=16):
  """Dark squares with a white hole, on white, of a color by class."""
  images = np.full((count, size, size, 3), 255, np.uint8)
  for n, image in enumerate(images):
    image[2:14, 2:14] = 40 * (n % 2)
    image[6:9, 6:9] = 255
  return images, np.arange(count) % 2


def test_a_silhouette_has_what_white_encloses():
  images, _ = squares()
  found = silhouette(images[0])
  assert found.sum() == 144 and found[2:14, 2:14].all()
  assert not silhouette(np.full((8, 8, 3), 255, np.uint8)).any()
  assert silhouette(np.zeros((8, 8, 3), np.uint8)).all()


def test_scenes_are_deterministic_and_their_masks_tell_the_drawings():
  images, labels = squares()
  scenes = compose(images, labels, 6, seed=1)
  again = compose(images, labels, 3, seed=1)
  for found, expected in zip(again, scenes, strict=True):
    np.testing.assert_array_equal(found, expected[:3])
  assert np.any(scenes.images != compose(images, labels, 6, seed=2).images)
  assert set(np.unique(scenes.masks)) == {0, 1, 2}
  # The background is smooth: a jump is at the edge of a drawing, or inside of one.
  jumps = np.abs(np.diff(scenes.images.astype(int), axis=1)).max(-1) > 60
  inside = (scenes.masks[:, 1:] > 0) | (scenes.masks[:, :-1] > 0)
  assert not np.any(jumps & ~inside)


def test_right_logits_have_an_iou_of_1():
  masks = np.kron(np.random.default_rng(0).integers(0, 3, (2, 4, 4)), np.ones((4, 4), int))
  cells = cell_classes(masks, 4, 3)
  np.testing.assert_array_equal(cells, masks[:, ::4, ::4])
  logits = np.float32(np.eye(3)[masks])
  assert segment(logits, masks, 3) == 1
  assert segment(-logits, masks, 3) == 0
  assert mean_iou([[2, 0, 0], [0, 0, 0], [2, 0, 0]]) == pytest.approx(0.25)


def test_the_background_is_as_frequent_as_a_class():
  labels = np.repeat([0, 1, 2], [30, 4, 8])
  found = balance(labels)
  np.testing.assert_array_equal(found[30:], labels[30:])
  assert np.sum(found == 0) == 6 and np.sum(found == -1) == 24


@pytest.fixture(scope='module')
def definition():
  image = {'size': 32, 'patch': 8, 'layers': 1}
  return tiny(image=image, text={'vocabulary': 4096, 'length': 8, 'layers': 1})


def test_the_evaluator_segments_its_splits(definition, monkeypatch):
  monkeypatch.setattr('contrastive_jax.evaluation.segmentation.TRAINING', 24)
  monkeypatch.setattr('contrastive_jax.evaluation.segmentation.TESTED', 8)
  source = data.open_source('emoji', SPLIT)
  parameters = drawn(definition, deviation=0.6)

  def finish(mesh):
    evaluator = Evaluator(
      definition,
      data.open_tokenizer('emoji', 8),
      {SPLIT: source},
      mesh,
      image_size=32,
      batch_size=16,
      classes=dict([read_classes('group', source.values)]),
      templates=['{}'],
      probes=('segmentation',),
      probe_source=source,
    )
    assert not any('segmentation' in name for name in evaluator.names)
    return evaluator.probing.probe_images(parameters)

  names = f'{SPLIT}/segmentation_mean_iou', f'{SPLIT}/group_segmentation_mean_iou'
  found = finish(make_mesh('data:8'))
  assert set(found) == set(names)
  assert all(0.2 < value < 1 for value in found.values())
  alone = finish(make_mesh('data:1', jax.devices()[:1]))
  assert alone == pytest.approx(found, abs=0.01)


def test_towers_without_a_square_of_tokens_are_refused(definition):
  mesh = make_mesh('data:8')
  with pytest.raises(ValueError, match=r"probes: 'segmentation' takes a model of square images"):
    Segmentation(definition, mesh, None, 8)
  other = tiny(image={'size': 32, 'patch': 8, 'pooling': 'mean', 'class_token': True})
  with pytest.raises(ValueError, match=r'takes a square of tokens, .*the image tower has 17'):
    Segmentation(other, mesh, 32, 8)
