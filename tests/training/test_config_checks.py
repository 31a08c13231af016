"""Every number of a config has a range; values outside of it are errors that name the field."""

import importlib
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import clip
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.config_checks import check_config, leaves
from contrastive_jax.training.optimizer import make_optimizer
from contrastive_jax.training.rules import RULES, rule_of

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
VARIANTS = [
  (name, variant)
  for path in sorted(CONFIGS.rglob('*.py'))
  for name in ['.'.join(path.relative_to(CONFIGS).with_suffix('').parts)]
  for recipe in [importlib.import_module(f'configs.{name}')]
  for variant in recipe.VARIANTS
  if 'task' not in recipe.get_config(variant)  # A task checks its own fields.
]


def get_config(name, variant):
  return importlib.import_module(f'configs.{name}').get_config(variant)


def is_number(value):
  if isinstance(value, (list, tuple)):
    return any(map(is_number, value))
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def fields_with_numbers():
  """(name, variant, field) of every numeric field, with one config that has it."""
  found = {}
  for name, variant in VARIANTS:
    for field, value in leaves(get_config(name, variant).to_dict()):
      if is_number(value) and rule_of(field):
        found.setdefault(field, (name, variant))
  return [(*where, field) for field, where in sorted(found.items())]


@pytest.mark.parametrize(('name', 'variant'), VARIANTS)
def test_every_number_of_every_config_has_a_rule_and_follows_it(name, variant):
  config = get_config(name, variant)
  # A method checks its own options, and `parameter_rates` its pairs.
  without = [
    field
    for field, value in leaves(config.to_dict())
    if is_number(value)
    and not rule_of(field)
    and not field.startswith(('objective.', 'optimizer.rates'))
  ]
  assert not without, f'give these a rule in RULES: {without}'
  check_config(config, make_mesh(config.mesh))


@pytest.mark.parametrize(('name', 'variant', 'field'), fields_with_numbers())
def test_a_value_out_of_range_is_an_error(name, variant, field):
  rule = rule_of(field)
  wrong = [math.nan, math.inf, -math.inf, 'many']
  wrong += [rule.low if rule.open_low else rule.low - 1]
  wrong += [rule.high if rule.open_high else rule.high + 1]
  wrong += [1.5, True] if rule.integer else []
  wrong = [value for value in wrong if value not in rule.off]
  if rule.each:
    wrong = [(0.5, value) for value in wrong] + [0.5]
  for value in wrong:
    config = get_config(name, variant)
    with config.ignore_type():
      config.update_from_flattened_dict({field: value})
    value = dict(leaves(config.to_dict()))[field]  # 0 becomes 0.0 in a float field
    with pytest.raises(ValueError) as refusal:
      check_config(config, make_mesh(config.mesh))
    assert str(refusal.value).startswith(f'config.{field} = {value!r}; use '), refusal.value


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      {'data.crop': (0.9,)},
      r'crop = \(0\.9,\); use .*such as \(0\.9, 1\.0\), or \(\)',
    ),
    ({'data.crop': (1.0, 0.5)}, r'config\.data\.crop = \(1\.0, 0\.5\); use the min'),
    (
      {'data.captions': ('caption', 'tags'), 'texts': 3},
      r'captions = .* has fields of 2 texts, and config\.texts = 3; give those of each, or one',
    ),
    (
      {'data.negative_rules': ('order', 'tone')},
      r"config\.data\.negative_rules has \['tone'\]; use some of .*'tones'",
    ),
    ({'data.mean': (0.5,)}, r'config\.data\.mean = \(0\.5,\); use a number per channel'),
    ({'data.std': (0.5, 0.5, 0.0)}, r'config\.data\.std = .*; use a tuple of numbers in \(0, inf'),
    ({'keep_checkpoints': 0}, r'config\.keep_checkpoints = 0; .*1.*; a large number keeps all'),
    ({'optimizer.clip_norm': -1.0}, r'clip_norm = -1\.0; .* \(0, .* or None or 0 to do without'),
    (
      {'bad_steps.spike': 0.5},
      r'spike = 0\.5; use a number in \(1, inf\), or 0',
    ),
    (
      {'data.text_augmentation.first': 'some'},
      r"text_augmentation\.first = 'some'; use 'none' or 'stop_words' or 'all'",
    ),
    ({'data.text_augmentation.swap': 0.5}, r"first = 'none' leaves the first text .*texts = 1"),
    ({'model.dtype': 'float16'}, r"'float16'; use 'float32' or 'bfloat16'; .* loss scaling"),
    ({'model.dtype': 'bf16'}, r"config\.model\.dtype = 'bf16'; use 'float32' or 'bfloat16'"),
    ({'model.dtype': 'float64'}, r"config\.model\.dtype = 'float64'; use 'float32' or 'bfloat16'"),
    ({'model.dtype': 'int32'}, r"config\.model\.dtype = 'int32'; use 'float32' or 'bfloat16'"),
    ({'model.image.layers': 0, 'model.image.scan': True}, r'model\.image\.layers = 0 with .*scan'),
    ({'model.text.pad_id': -1}, r'config\.model\.text\.pad_id = -1; use an integer in \[0, inf'),
    ({'model.text.positions': 5.5}, r'text\.positions = 5\.5; use an integer .*, or None to do'),
    ({'model.text.mlp_ratio': 0.01}, r'model\.text\.mlp_ratio = 0\.01 .* 32 .*; use 0\.03125 or'),
  ],
)
def test_inconsistent_fields_are_errors(overrides, message):
  config = get_config('clip', 'smoke')
  with config.unlocked(), config.ignore_type():
    config.update_from_flattened_dict(overrides)
  with pytest.raises(ValueError, match=message):
    check_config(config, make_mesh(config.mesh))


@pytest.mark.parametrize('groups', [3, 32])
def test_groups_divide_the_batch(groups):
  config = get_config('methods.grouped', 'smoke')
  config.objective.info_nce.groups = groups
  message = rf'config\.objective\.info_nce\.groups = {groups} does not divide .* 16; use a divisor'
  with pytest.raises(ValueError, match=message):
    check_config(config, make_mesh(config.mesh))


def test_a_field_without_a_rule_must_be_finite():
  config = get_config('reweighted', 'smoke')
  with config.unlocked():
    config.objective.reweighted_info_nce.margin = -0.2
  check_config(config, make_mesh(config.mesh))
  config.objective.reweighted_info_nce.margin = math.nan
  with pytest.raises(ValueError, match=r'config\.objective\.reweighted_info_nce\.margin = nan'):
    check_config(config, make_mesh(config.mesh))


def test_no_rule_is_shadowed_by_an_earlier_one():
  for pattern, rule in RULES.items():
    assert rule_of(pattern.replace('*', 'any')) is rule


@pytest.mark.parametrize('off', [None, 0, 0.0])
def test_clip_norm_of_none_or_zero_disables_clipping(off):
  def update(clip_norm):
    fields = {'b1': 0.9, 'b2': 0.98, 'epsilon': 1.0, 'weight_decay': 0.0, 'clip_norm': clip_norm}
    optimizer = make_optimizer(lambda step: 1.0, **fields)
    parameters = {'kernel': jnp.zeros(3)}
    gradients = {'kernel': jnp.array([100.0, -20.0, 3.0])}
    return optimizer.update(gradients, optimizer.init(parameters), parameters)[0]['kernel']

  np.testing.assert_array_equal(update(off), update(1e9))
  assert jnp.linalg.norm(update(off)) > jnp.linalg.norm(update(1.0))
  config = get_config('clip', 'smoke')
  config.optimizer.clip_norm = off
  check_config(config, make_mesh(config.mesh))


@pytest.mark.parametrize(
  ('weight', 'works'),
  [
    (((0, 0.0), (10, 1.0)), True),
    (((10, 0.0), (0, 1.0)), False),
    (((0, -1.0),), False),
    ((0.0, 1.0), False),
    ((), False),
  ],
)
def test_a_weight_may_be_a_schedule(weight, works):
  config = clip.get_config('smoke')
  for objective in ({'info_nce': weight}, {'info_nce': {'weight': weight}}):
    config.objective = ConfigDict(objective)
    if works:
      check_config(config, make_mesh('data:1', jax.devices()[:1]))
    else:
      with pytest.raises(ValueError, match=r'config\.objective\.info_nce.* = .*; use .*step'):
        check_config(config, make_mesh('data:1', jax.devices()[:1]))
