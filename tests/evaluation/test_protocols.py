"""The protocols against independent implementations, on one device and on eight."""

import json
import pathlib

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from contrastive_jax.evaluation.few_shot import FewShot
from contrastive_jax.evaluation.knn import KNN
from contrastive_jax.evaluation.pairs import find_pairs, pair_accuracies, same_words
from contrastive_jax.evaluation.probes import logistic_regression
from contrastive_jax.evaluation.retrieval import retrieve
from contrastive_jax.evaluation.zero_shot import (
  class_embeddings,
  classify,
  read_classes,
  read_templates,
)
from contrastive_jax.sharding.mesh import make_mesh

BENCHMARK = pathlib.Path(__file__).parent / 'clip_benchmark'


@pytest.fixture(params=['data:1', 'data:4,fsdp:2'])
def mesh(request):
  devices = jax.devices()
  return make_mesh(request.param, devices[:1] if request.param == 'data:1' else devices)


def unit(array):
  return array / np.linalg.norm(array, axis=-1, keepdims=True)


def drawn(number, classes=5, width=12, seed=0):
  """Unit vectors about a center for each class, of unequal sizes, and their classes."""
  random = np.random.default_rng(seed)
  centers = np.random.default_rng(9).normal(size=(classes, width))
  codes = np.minimum(random.geometric(0.4, number), classes) - 1
  points = centers[codes] + 1.5 * random.normal(size=(number, width))
  return unit(points).astype(np.float32), [f'class {code}' for code in codes]


class TestClipBenchmark:
  """Its metrics for embeddings.npz stand in expected.json; make.py computed them."""

  arrays = np.load(BENCHMARK / 'embeddings.npz')
  expected = json.loads((BENCHMARK / 'expected.json').read_text())

  def test_retrieval_with_several_captions(self, mesh):
    image, text = unit(self.arrays['image']), unit(self.arrays['text'])
    each = len(text) // len(image)
    captions = [[str(each * i + c) for c in range(each)] for i in range(len(image))]
    metrics, _ = retrieve(
      image, captions, lambda names: text[[int(n) for n in names]], (1, 5, 10), mesh=mesh
    )
    theirs = {'image_to_text': 'text_retrieval', 'text_to_image': 'image_retrieval'}
    assert metrics == pytest.approx(
      {
        f'{ours}_recall@{k}': self.expected['retrieval'][f'{name}_recall@{k}']
        for ours, name in theirs.items()
        for k in (1, 5, 10)
      }
    )

  def test_zero_shot_classification(self, mesh):
    prompts = unit(self.arrays['prompts'])
    classes = [str(k) for k in range(12)]
    templates = ['{} 0', '{} 1', '{} 2', '{} 3']

    def encode(texts):
      return prompts[[4 * int(k) + int(t) for k, t in map(str.split, texts)]]

    prototypes = class_embeddings(encode, classes, templates)
    labels = [str(label) for label in self.arrays['labels']]
    metrics = classify(unit(self.arrays['image']), prototypes, labels, classes, mesh=mesh)
    theirs = self.expected['classification']
    assert metrics == pytest.approx(
      {
        'accuracy@1': theirs['acc1'],
        'accuracy@5': theirs['acc5'],
        'mean_per_class_recall': theirs['mean_per_class_recall'],
      }
    )

  def test_pairs(self, mesh):
    vectors = unit(self.arrays['image']), unit(self.arrays['text'])[::3]
    rows = np.arange(60, dtype=np.int32).reshape(-1, 2)
    theirs = self.expected['selection']
    assert pair_accuracies(vectors, vectors, rows, mesh=mesh) == pytest.approx(
      {
        'pairs_text_accuracy': theirs['text_acc'],
        'pairs_image_accuracy': theirs['image_acc'],
        'pairs_group_accuracy': theirs['acc'],
      }
    )


def test_knn_votes_as_in_scikit_learn(mesh):
  train, test = drawn(300), drawn(101, seed=1)
  ours = KNN(*train, mesh=mesh)
  theirs = KNeighborsClassifier(
    20, metric='cosine', algorithm='brute', weights=lambda distance: np.exp(-distance / 0.07)
  ).fit(*train)
  classes, votes = ours.votes(test[0])
  assert classes == list(theirs.classes_)
  shares = votes / votes.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(shares, theirs.predict_proba(test[0]), atol=1e-4)
  assert ours.metrics(*test) == pytest.approx(
    {
      'neighbours_accuracy': theirs.score(*test),
      'neighbours_mean_per_class_recall': balanced_accuracy_score(test[1], theirs.predict(test[0])),
    }
  )


def test_prototypes_of_all_examples_are_nearest_class_means(mesh):
  train, test = drawn(200), drawn(101, seed=1)
  labels = np.array(train[1])
  means = [train[0][labels == name].mean(axis=0) for name in np.unique(labels)]
  theirs = KNeighborsClassifier(1, metric='cosine', algorithm='brute').fit(means, np.unique(labels))
  ours = FewShot(*train, mesh=mesh, shots=(1, 200), draws=3)
  metrics = ours.metrics(*test)
  assert metrics['200_shot_accuracy'] == pytest.approx(theirs.score(*test))
  assert metrics['1_shot_accuracy'] < metrics['200_shot_accuracy']
  classes, one = ours.draw(1, 0)
  for name, prototype in zip(classes, one, strict=True):
    assert np.isclose(train[0][labels == name] @ prototype, 1, atol=1e-5).any()
  assert not np.array_equal(one, ours.draw(1, 1)[1])


@pytest.mark.parametrize('l2', [1.0, 10.0])
def test_logistic_regression_is_scikit_learns(l2, mesh):
  points, names = drawn(150)
  labels = np.array([int(name[-1]) for name in names])
  weights, bias = logistic_regression(points, labels, 5, l2, mesh=mesh)
  theirs = LogisticRegression(C=1 / l2, tol=1e-8, max_iter=2000).fit(points, labels)
  np.testing.assert_allclose(weights.T, theirs.coef_, atol=2e-3)
  np.testing.assert_allclose(bias - bias.mean(), theirs.intercept_, atol=2e-3)


def test_pairs_that_tie_are_wrong():
  same = np.ones((4, 2), np.float32)
  rows = np.array([[0, 1], [2, 3]], np.int32)
  assert set(pair_accuracies((same, same), (same, same), rows).values()) == {0.0}


def test_pairs_of_noise_score_chance():
  image, text = np.random.default_rng(0).normal(size=(2, 40_000, 8)).astype(np.float32)
  rows = np.arange(40_000, dtype=np.int32).reshape(-1, 2)
  found = pair_accuracies((image, text), (image, text), rows)
  assert list(found.values()) == pytest.approx([1 / 4, 1 / 4, 1 / 6], abs=0.015)


def test_captions_in_another_order_are_those_of_the_same_words():
  captions = ['a man, a dog', 'A dog: a man', 'a dog', 'a man a dog a']
  pairs = np.array([[0, 1], [0, 2], [3, 0], [1, 0]], np.int32)
  assert same_words(pairs, captions, captions).tolist() == [True, False, False, True]
  assert same_words(pairs[:0], captions, captions).shape == (0,)


def test_a_pair_agrees_in_its_keys_and_differs_in_its_captions():
  keys, captions = ['a', 'a', 'b', 'a'], ['dark', 'light', 'dark', 'dark']
  found = find_pairs(keys, captions, keys, captions)
  assert found.tolist() == [[0, 1], [1, 0], [1, 3], [3, 1]]
  with pytest.raises(ValueError, match='no pairs'):
    pair_accuracies((), (), find_pairs(['a'], ['dark'], ['b'], ['light']))


def test_class_embeddings_are_means_of_prompts():
  table = {'a x x': [1, 0], 'a y': [0, 1], 'x x': [1, 0], 'y': [1, 0]}
  found = class_embeddings(
    lambda texts: np.array([table[text] for text in texts], float), ['x x', 'y'], ['a {}', '{}']
  )
  np.testing.assert_allclose(found, [[1, 0], [0.5**0.5, 0.5**0.5]])


def test_prompts_hold_any_braces_and_may_cancel():
  table = {'a {x} {': [1, 0], 'x {0}': [-1, 0], 'a {y} {': [0, 1], 'y {0}': [0, 1]}
  templates = ['a {{}} {', '{} {0}']
  found = class_embeddings(
    lambda texts: np.array([table[text] for text in texts], float), ['x', 'y'], templates
  )
  np.testing.assert_array_equal(found, [[0, 0], [0, 1]])


def test_prototypes_may_cancel():
  features = np.array([[1, 0], [-1, 0], [0, 1]], np.float32)
  _, found = FewShot(features, ['a', 'a', 'b'], shots=(2,)).draw(2, 0)
  np.testing.assert_array_equal(found, [[0, 0], [0, 1]])


def test_a_label_outside_the_classes_is_a_miss():
  eye = np.eye(2, dtype=np.float32)
  assert classify(eye, eye, ['a', 'c'], ['a', 'b'], [1])['accuracy@1'] == 0.5
  with pytest.raises(ValueError, match="2 classes, 'x' and so on, none is a label"):
    classify(eye, eye, ['a', 'c'], ['x', 'y'])


def test_templates_and_names_come_from_the_data_or_a_file(tmp_path):
  lines = tmp_path / 'prompts.txt'
  lines.write_text('a {}\nthe {c}\n')
  assert read_templates(['{}', str(lines)]) == ['{}', 'a {}', 'the {}']
  assert len(read_templates(['imagenet'])) == 80
  with pytest.raises(ValueError, match=r"templates names 'an emoji'.*'imagenet'"):
    read_templates(['an emoji'])
  for prompt in ('{name}', '{0}', '{'):
    with pytest.raises(ValueError, match=r'evaluation\.templates: .* has no \{\}'):
      read_templates([prompt])
  lines.write_text('no place\n')
  with pytest.raises(ValueError, match=r"'no place' has no \{\}"):
    read_templates([str(lines)])

  for text in ('', '[]', '[1]', '["a", null]', '3', '{"0": ""}', '["\\ud83d"]'):
    (odd := tmp_path / 'odd.json').write_text(text)
    with pytest.raises(ValueError, match=r'config\.evaluation\.zero_shot names .*odd\.json'):
      read_classes(f'label={odd}', None)
    with pytest.raises(ValueError, match=r'config\.evaluation\.templates'):
      read_templates([str(odd)])

  assert read_classes('kind', lambda field: ['b_c', 'a-d', 'b_c']) == (
    'kind',
    {'a-d': 'a d', 'b_c': 'b c'},
  )
  field, names = read_classes('label=imagenet', None)
  assert field == 'label' and len(names) == 1000 and names['n01440764'] == 'tench'
  mapping = tmp_path / 'names.json'
  mapping.write_text('{"n01440764": "tench"}')
  assert read_classes(f'label={mapping}', None) == ('label', {'n01440764': 'tench'})
