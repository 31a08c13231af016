"""Finetuning as a probe."""

import chex
import jax
import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.evaluation import finetuned
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.evaluation.splits import Split
from contrastive_jax.sharding.mesh import make_mesh
from tests.models.towers import drawn, tiny

SPLIT = 'heldout_composition[vendor=twemoji,skin_tone=dark|light]'


def shades(number):
  """Dark and light noise, and which one it is."""
  random = np.random.default_rng(number)
  labels = random.integers(2, size=number)
  noise = random.integers(0, 100, (number, 8, 8, 3)) + 150 * labels[:, None, None, None]
  return Split(noise.astype(np.uint8), {'kind': [('dark', 'light')[k] for k in labels]})


def test_a_tower_learns_and_the_runs_parameters_stay(monkeypatch):
  monkeypatch.setattr(finetuned, 'STEPS', 20)
  monkeypatch.setattr(finetuned, 'RATE', 3e-3)
  definition = tiny(image={'layers': 1})
  parameters = drawn(definition)
  before = jax.device_get(parameters)
  probe = finetuned.Finetuned(definition, make_mesh('data:8'), 8, 16)
  splits = {'a': shades(30), 'b': Split(shades(9).images, {'other': ['x'] * 9})}
  classes = {'kind': {'dark': 'dark', 'light': 'light'}}
  found = probe(parameters, shades(40), splits, classes)
  assert found == {'a/kind_finetuned_accuracy': 1, 'a/kind_finetuned_mean_per_class_recall': 1}
  chex.assert_trees_all_equal(before, jax.device_get(parameters))


def test_the_evaluator_has_it_at_the_end_alone(monkeypatch):
  calls = []
  monkeypatch.setattr(
    finetuned.Finetuned, '__call__', lambda self, *given: calls.append(given) or {'a/b': 1.0}
  )
  source = data.open_source('emoji', SPLIT)
  options = {'image_size': 32, 'batch_size': 16, 'classes': {}, 'templates': ['{}']}
  options |= {'probes': ('finetuned',), 'probe_source': source}
  definition = tiny(image={'size': 32, 'patch': 8})
  evaluator = Evaluator(definition, str.split, {SPLIT: source}, make_mesh('data:8'), **options)
  assert not any('finetuned' in name for name in evaluator.names)
  assert evaluator.probing({}, {}) == {'a/b': 1.0} and len(calls) == 1


def test_models_without_square_images_are_refused():
  with pytest.raises(ValueError, match="probes: 'finetuned' takes a model of square images"):
    finetuned.Finetuned(tiny(), make_mesh('data:8'), None, 8)
