"""Episodes are functions of their seed, and their classes are never trained on."""

import json

import numpy as np
import pytest

from configs.methods import susana
from contrastive_jax import tasks
from contrastive_jax.tasks import episodes
from contrastive_jax.tasks.labeled import LabeledImages

NAMES = tuple('abcdefgh')
FOUND = LabeledImages(np.arange(40), np.arange(40, dtype=np.int32) % 8, NAMES)


def test_folds_share_no_class():
  train, test = episodes.part_classes(FOUND, 3, (0, 1), 2)
  assert train.classes == tuple('abdegh') and test.classes == tuple('cf')
  assert not {*train.images} & {*test.images}


def test_classes_of_a_group_share_a_fold():
  groups = dict(zip(NAMES, 'zzyyxxzw', strict=True))
  train, test = episodes.part_classes(FOUND, 2, (0,), 1, groups)
  assert train.classes == tuple('cdh') and test.classes == tuple('abefg')


def test_an_episode_has_each_class_in_turn_without_repeats():
  one, same, other = (episodes.draw(FOUND, 3, 4, seed) for seed in ((0, 1), (0, 1), (0, 2)))
  np.testing.assert_array_equal(one.images, same.images)
  assert not np.array_equal(one.images, other.images)
  assert len({*one.images}) == 12 and one.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
  assert [NAMES[row % 8] for row in one.images[::4]] == [*one.classes]


def test_separate_classes_are_told_apart_and_equal_ones_by_chance():
  fields = susana.get_config('smoke').evaluation
  labels = np.repeat(np.arange(6), 10)
  found = episodes.accuracy(np.eye(6)[labels], labels, 1, fields)
  assert found == {'5_way_1_shot_accuracy': 1, '5_way_1_shot_accuracy_interval': 0}
  noise = np.random.default_rng(0).normal(size=(3000, 4))
  fields.episodes = 300
  found = episodes.accuracy(noise, np.repeat(labels, 50), 5, fields)
  assert abs(found['5_way_5_shot_accuracy'] - 0.2) < 3 * found['5_way_5_shot_accuracy_interval']


def test_a_run_ends_with_the_accuracy_of_unseen_classes(tmp_path):
  config = susana.get_config('smoke')
  config.objective = episodes.LOSSES
  results = tasks.open_task(config)(tmp_path)
  assert {'5_way_1_shot_accuracy', '5_way_5_shot_accuracy'} <= results.keys()
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  terms = [lines[0][f'train/{name}'] for name in episodes.LOSSES]
  assert lines[0]['train/loss'] == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.mark.parametrize(
  ('path', 'value', 'message'),
  [
    ('objective', ('triplet',), r"config\.objective = \('triplet',\); use some of"),
    ('episodes.way', 90, r'config\.episodes\.way = 90: \d+ classes have the 10 images'),
    ('evaluation.shots', (900,), r'config\.evaluation\.way = 5: 0 classes have the 905 images'),
    ('data.parted_by', 'vendor', r"parted_by = 'vendor': the subgroup '.*' has '\w+' and '"),
    ('data.test_fold', 1, r'config\.data\.train_folds = \(0, 1\) and test_fold = 1 of 3 folds'),
  ],
)
def test_what_cannot_work_is_named_before_anything_is_compiled(path, value, message):
  config = susana.get_config('smoke')
  if path == 'data.parted_by':
    config.data.split = 'train[skin_tone=]'
  config.update_from_flattened_dict({path: value})
  with pytest.raises(ValueError, match=message):
    tasks.open_task(config)
