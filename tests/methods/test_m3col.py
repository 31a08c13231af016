"""M3CoL as a method: its terms, its switch, and the classes that it needs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.methods import m3col as config_of_m3col
from contrastive_jax import losses
from contrastive_jax.methods.m3col import M3CoL, mix
from contrastive_jax.methods.method import Sizes
from contrastive_jax.training import build
from tests.losses import reference

B, D, K = 8, 4, 3
SIZES = Sizes(batch=B, embed=D, classes=K)
IMAGE, TEXT = reference.unit(np.random.default_rng(0), 2, B, D)
LABELS = np.arange(B) % K
METHOD = M3CoL(switch=0.5)
HEADS = {
  name: (head, jax.jit(head.init)(jax.random.key(number)))
  for number, (name, head) in enumerate(METHOD.heads(SIZES).items())
}


@jax.jit
def evaluate(image, text, progress, key):
  heads = {name: head.bind(parameters) for name, (head, parameters) in HEADS.items()}
  inputs = {'image': image, 'text': text, 'labels': LABELS, 'progress': progress}
  result = METHOD.loss(inputs, heads, {}, key)
  return result.loss, result.metrics


@functools.cache
def contrast_of(progress):
  return evaluate(IMAGE, TEXT, progress, jax.random.key(1))[1]['contrast']


def test_the_loss_is_the_sum_of_its_terms():
  loss, metrics = evaluate(IMAGE, TEXT, 0.0, jax.random.key(1))
  features = {'image': 2 * IMAGE, 'text': 2 * TEXT, 'fused': 2 * np.hstack([IMAGE, TEXT])}
  total = 0.1 * metrics['contrast']
  for name, x in features.items():
    head, parameters = HEADS[name]
    apply = jax.jit(lambda parameters, x, head=head: head.bind(parameters)(x))
    logits = np.float64(apply(parameters, x))
    right = logits[np.arange(B), LABELS]
    entropy = np.mean(np.log(np.sum(np.exp(logits), 1)) - right)
    assert metrics[f'{name}_entropy'] == pytest.approx(entropy, rel=1e-4)
    accuracy = np.mean(np.argmax(logits, 1) == LABELS)
    assert metrics[f'{name}_accuracy'] == pytest.approx(accuracy)
    total += entropy
  assert loss == pytest.approx(float(total), rel=1e-5)


def test_the_loss_switches_from_mixtures_to_soft_targets():

  @jax.jit
  def terms(image, text):
    keys = jax.random.split(jax.random.key(1))
    mixed = [mix(key, x, 0.5, 0.15) for key, x in zip(keys, (image, text), strict=True)]
    expected = sum(
      losses.mixup_info_nce(x, other, partner, share, scale=10.0)
      for (x, partner, share), other in zip(mixed, (text, image), strict=True)
    )
    soft = sum(
      losses.soft_target_info_nce(x, y, scale=8.0, targets=y, target_scale=8.0)
      for x, y in ((image, text), (text, image))
    )
    return expected, soft

  expected, soft = terms(IMAGE, TEXT)
  assert contrast_of(0.0) == pytest.approx(float(expected), rel=1e-5)
  assert contrast_of(0.5) == pytest.approx(float(soft), rel=1e-5)


def test_the_modalities_have_equal_parts():
  """Swapped modalities swap the two terms; mixtures are drawn anew for each."""
  swapped = evaluate(TEXT, IMAGE, 0.5, jax.random.key(1))[1]
  assert swapped['contrast'] == pytest.approx(float(contrast_of(0.5)), rel=1e-5)
  key = jax.random.key(2)

  @jax.jit
  def term(key, x, y):
    mixed, partner, share = mix(key, x, 0.5, 0.15)
    return losses.mixup_info_nce(mixed, y, partner, share, scale=10.0)

  terms = {
    (name, which): term(own, x, y)
    for which, own in enumerate(jax.random.split(key))
    for name, x, y in (('image', IMAGE, TEXT), ('text', TEXT, IMAGE))
  }
  for pair, first, second in ((IMAGE, TEXT), 'image', 'text'), ((TEXT, IMAGE), 'text', 'image'):
    found = evaluate(*pair, 0.0, key)[1]['contrast']
    assert found == pytest.approx(float(terms[first, 0] + terms[second, 1]), rel=1e-5)


def test_a_mixture_is_of_two_rows_at_length_1():
  mixed, partner, share = jax.jit(lambda key: mix(key, jnp.asarray(IMAGE), 0.5, 1.0))(
    jax.random.key(0)
  )
  expected = share[:, None] * IMAGE + (1 - share[:, None]) * IMAGE[partner]
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  np.testing.assert_allclose(mixed, expected, atol=1e-6)
  assert sorted(partner.tolist()) == list(range(B))
  assert 0 < np.sum(share < 1) < B and np.all((share >= 0) & (share <= 1))


@pytest.mark.parametrize(
  ('option', 'value', 'works'),
  [
    ('p', 1.5, r'in \[0, 1\]'),
    ('switch', -0.1, r'in \[0, 1\]'),
    ('alpha', 0, 'over 0'),
    ('scale', 0.0, 'over 0'),
    ('soft_scale', float('nan'), 'over 0'),
  ],
)
def test_wrong_options_are_refused(option, value, works):
  with pytest.raises(ValueError, match=f'{option} = {value}; use a number {works}'):
    M3CoL(**{option: value})


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'classes': 0}, r'config\.data\.classes = 0, .*m3col trains classifiers'),
    ({'classes': 1}, r'config\.data\.classes = 1; use an integer in \[2'),
    ({'labels': ''}, r'config\.data\.classes = 98 numbers the labels'),
    ({'labels': '', 'classes': 0}, r"m3col needs 'labels', which .* set config\.data\.labels"),
  ],
)
def test_classes_are_needed_before_the_compile(fields, message):
  config = config_of_m3col.get_config('smoke')
  config.data.update(fields)
  with pytest.raises(ValueError, match=message):
    build.build(config)
