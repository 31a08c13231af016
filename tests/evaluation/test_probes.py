import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax import data
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.evaluation.probes import linear_probe, logistic_regression, search_l2
from contrastive_jax.evaluation.probing import PROBES
from contrastive_jax.evaluation.zero_shot import read_classes
from contrastive_jax.sharding.mesh import make_mesh
from tests.models.towers import drawn, tiny


def clusters(number, classes=4, width=8, spread=0.1, seed=0):
  """Points about a center for each class, and the names of their classes."""
  random = np.random.default_rng(seed)
  centers = np.random.default_rng(1).normal(size=(classes, width))
  codes = random.integers(classes, size=number)
  points = centers[codes] + spread * random.normal(size=(number, width))
  return points.astype(np.float32), [f'class {code}' for code in codes]


def test_separable_classes_are_told_apart():
  probe = linear_probe(*clusters(203))
  assert probe.accuracy(*clusters(100, seed=2)) == 1
  assert probe.classes == [f'class {k}' for k in range(4)]
  assert probe.weights.shape == (8, 4) and probe.bias.shape == (4,)


@pytest.mark.parametrize('l2', [1e-2, 1.0, 1e2])
def test_the_gradient_is_zero_at_the_optimum(l2):
  x, names = clusters(150, spread=1.0)
  labels = np.array([int(name[-1]) for name in names])
  weights, bias = (
    array.astype(np.float64) for array in logistic_regression(x, labels, classes=4, l2=l2)
  )
  logits = x.astype(np.float64) @ weights + bias
  shares = np.exp(logits - logits.max(axis=1, keepdims=True))
  error = shares / shares.sum(axis=1, keepdims=True) - np.eye(4)[labels]
  # A mean gradient of 1 is what a point of every class would pull with, wholly misclassified.
  assert np.abs(x.T @ error + l2 * weights).max() / len(x) < 2e-5
  assert np.abs(error.sum(axis=0)).max() / len(x) < 2e-5


def test_with_no_weights_the_bias_says_how_frequent_each_class_is():
  x, _ = clusters(60)
  labels = np.repeat([0, 1, 2], [30, 20, 10])
  weights, bias = logistic_regression(x, labels, classes=3, l2=1e9)
  np.testing.assert_allclose(weights, 0, atol=1e-5)
  np.testing.assert_allclose(bias - bias[0], np.log([1, 20 / 30, 10 / 30]), atol=1e-4)


def test_eight_devices_fit_as_one():
  x, names = clusters(101, spread=1.0)
  labels = [int(name[-1]) for name in names]
  one = logistic_regression(x, labels, 4, 1.0)
  eight = logistic_regression(x, labels, 4, 1.0, mesh=make_mesh('data:4,fsdp:2'))
  for ours, theirs in zip(one, eight, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@settings(deadline=None)
@given(st.floats(-6, 6))
def test_the_search_finds_a_single_peak_to_an_eighth_of_a_decade(peak):
  tried = []

  def score(l2):
    tried.append(l2)
    return -abs(np.log10(l2) - peak)

  assert abs(np.log10(search_l2(score)) - peak) <= 1 / 16 + 1e-9
  assert len(tried) == len(set(tried)) <= 15


def test_the_strength_is_the_validations_choice():
  # Few points of much noise want a strong L2; validated on themselves, a weak one.
  train, names = clusters(40, width=200, spread=8.0)
  test, wanted = clusters(400, width=200, spread=8.0, seed=3)
  codes = [int(name[-1]) for name in names]

  def accuracy(l2):
    weights, bias = logistic_regression(train, codes, 4, l2)
    predicted = np.argmax(test @ weights + bias, axis=1)
    return np.mean([f'class {k}' == name for k, name in zip(predicted, wanted, strict=True)])

  probe = linear_probe(train, names, validation=(test, wanted))
  assert accuracy(probe.l2) >= max(accuracy(10.0**power) for power in range(-6, 7, 2))
  own = linear_probe(train, names, validation=(train, names))
  assert own.l2 < probe.l2
  # The last fit sees the validation's examples too.
  both = np.concatenate([train, test])
  expected = logistic_regression(both, [int(name[-1]) for name in names + wanted], 4, probe.l2)
  np.testing.assert_allclose(probe.weights, expected[0], atol=1e-6)


def test_a_label_that_was_never_seen_is_a_miss():
  x, names = clusters(100)
  probe = linear_probe(x, names)
  assert probe.accuracy(x[:2], [names[0], 'another']) == 0.5


@pytest.mark.parametrize(
  ('labels', 'message'),
  [(['a'] * 9, '9 features|10 features do not go with 9 labels'), (['a'] * 10, r"all of \['a'\]")],
)
def test_mistakes_are_named(labels, message):
  with pytest.raises(ValueError, match=message):
    linear_probe(np.zeros((10, 2), np.float32), labels)


def test_the_evaluator_probes_its_splits():
  definition, split = tiny(image={'size': 32, 'patch': 8, 'layers': 1}), 'heldout_composition'
  parameters = drawn(definition)
  seen, test = (data.open_source('emoji', f'{split}[vendor={v}]') for v in ('noto', 'twemoji'))

  def evaluator(**fields):
    return Evaluator(
      definition,
      None,
      {split: test},
      make_mesh('data:1', jax.devices()[:1]),
      image_size=32,
      batch_size=256,
      classes=dict([read_classes('skin_tone', seen.values)]),
      templates=('{}',),
      **fields,
    )

  metrics = evaluator(probes=['linear'], probe_source=seen).probing.probe(parameters)
  encode = jax.jit(lambda images: definition.bind(parameters).encode_image(normalize(images)))
  examples = [
    (np.asarray(encode(data.evaluation_images(source, 32))), source.values('skin_tone'))
    for source in (seen, test)
  ]
  expected = linear_probe(*examples[0]).accuracy(*examples[1])
  name = f'{split}/skin_tone_linear_probe_accuracy'
  assert metrics.keys() == {name, name.replace('accuracy', 'mean_per_class_recall')}
  assert metrics[name] == pytest.approx(expected, abs=0.02)
  assert evaluator().probing.probe(parameters) == {}
  with pytest.raises(ValueError, match=r"config\.evaluation\.probes has no 'nearest'.*linear"):
    evaluator(probes=['nearest'], probe_source=seen)


def test_a_fused_probe_reads_image_and_text(monkeypatch):
  class Probe:
    """Its metrics are the features that it is fitted to, and those that it is tested on."""

    def __init__(self, features, labels, mesh):
      self.fitted = features

    def metrics(self, features, labels):
      return {'fitted': self.fitted, 'tested': features}

  monkeypatch.setitem(PROBES, 'linear', Probe)
  image, text = {'size': 32, 'patch': 8, 'layers': 1}, {'vocabulary': 4096, 'layers': 1}
  definition = tiny(image=image, text=text)
  parameters, split = drawn(definition), 'heldout_composition[vendor=twemoji]'
  source, tokenizer = data.open_source('emoji', split), data.open_tokenizer('emoji', 6)

  def evaluator(text):
    return Evaluator(
      *(definition, tokenizer, {'split': source}, make_mesh('data:1', jax.devices()[:1])),
      image_size=32,
      batch_size=256,
      classes=dict([read_classes('skin_tone', source.values)]),
      templates=('{}',),
      texts=(text,),
      probes=('fused_linear', 'linear'),
      probe_source=source,
    )

  metrics = evaluator('join(tags)').probing.probe(parameters)
  image, fused = (metrics[f'split/skin_tone_{kind}tested'] for kind in ('', 'fused_'))
  np.testing.assert_array_equal(metrics['split/skin_tone_fused_fitted'], fused)
  tokens = tokenizer([', '.join(tags) for tags in source.values('tags')])
  text = jax.jit(lambda tokens: definition.bind(parameters).encode_text(tokens))(tokens)
  expected = np.concatenate([image, text], axis=1) / np.sqrt(2)
  np.testing.assert_allclose(fused, expected, atol=1e-5)
  with pytest.raises(ValueError, match=r"probe_split has no texts in 'no', which the probes on im"):
    evaluator('no')
