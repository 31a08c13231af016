import importlib
import math
import pathlib

import jax
import pytest

from configs import clip, coca, mae, naflex, siglip, simclr, text
from contrastive_jax import tasks
from contrastive_jax.models.definition import define
from contrastive_jax.training import build

FOLDER = pathlib.Path(__file__).parents[1] / 'configs'
METHODS = [
  importlib.import_module(f'configs.methods.{path.stem}')
  for path in sorted((FOLDER / 'methods').glob('*.py'))
]

# Of the models that OpenAI published.
PUBLISHED = {
  'vit_b32': 151_277_313,
  'vit_b16': 149_620_737,
  'vit_l14': 427_616_513,
  'rn50': 102_007_137,
}


@pytest.mark.parametrize('variant', PUBLISHED)
def test_the_papers_models_have_the_published_number_of_parameters(variant):
  definition = define(**clip.get_config(variant).model.to_dict())
  trained, _ = definition.part(definition.shapes)
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained)) == PUBLISHED[variant]


@pytest.mark.parametrize(
  ('variant', 'count'), [('base', 383e6), ('large', 787e6), ('giant', 2.1e9)]
)
def test_cocas_models_have_the_papers_number_of_parameters(variant, count):
  definition = define(**coca.get_config(variant).model.to_dict())
  shapes = definition.shapes
  parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  assert parameters == pytest.approx(count, rel=0.01)


def test_siglips_model_has_the_published_number_of_parameters():
  model = siglip.get_config('vit_b16').model
  model.text.vocabulary = 32_000  # of its own tokenizer
  shapes = jax.eval_shape(define(**model.to_dict()).init, jax.random.key(0))
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 203_155_970


def test_simclrs_recipe_is_the_papers():
  config = simclr.get_config('rn50')
  optimizer = config.optimizer
  assert (optimizer.name, optimizer.weight_decay) == ('lars', 1e-6)
  assert optimizer.learning_rate == pytest.approx(4.8)  # 0.3 per 256 images
  epochs = config.total_steps * config.batch_size / 1_281_167
  assert (epochs, optimizer.warmup_fraction * epochs) == pytest.approx((1000, 10), rel=1e-4)
  assert (*config.model.projector, config.model.embed) == (2048, 128)


RECIPES = clip, coca, mae, naflex, siglip, simclr, text, *METHODS


@pytest.mark.parametrize('recipe', RECIPES)
def test_every_variant_has_its_name(recipe):
  name = recipe.__name__.removeprefix('configs.methods.').removeprefix('configs.')
  for variant in recipe.VARIANTS:
    config = recipe.get_config(variant)
    assert (config.name, config.variant) == (name, variant)


def doubles(recipe, variant):
  """Whether a variant differs from those that the default suite builds by sizes or splits alone.

  Splits are those of configs/clip.py, the sizes of methods those of the recipes that they build on,
  and tests/test_smoke.py trains the smallest.
  """
  if recipe in METHODS:
    return variant != 'default'
  return variant in ('vit_b32', 'vit_l14', 'base', 'large') or (
    variant == 'validation' and recipe is not clip
  )


@pytest.mark.parametrize(
  ('recipe', 'variant'),
  [
    pytest.param(recipe, variant, marks=pytest.mark.slow if doubles(recipe, variant) else ())
    for recipe in RECIPES
    for variant in recipe.VARIANTS
  ],
)
def test_every_variant_builds(recipe, variant):
  config = recipe.get_config(variant)
  if 'task' in config:
    if variant in clip.SHARED:  # the paper's data may be absent
      tasks.open_task(config)
    return
  if config.teacher:
    config.teacher = 'untrained'  # in place of a run
  run = build.build(config, examples=1000)
  assert run.abstract_state.step.shape == ()


@pytest.mark.parametrize('recipe', METHODS)
def test_a_methods_config_is_short_and_has_the_shared_variants(recipe):
  lines = pathlib.Path(recipe.__file__).read_text().split('"""\n', 1)[1].splitlines()
  limit = 60 if 'task' in recipe.get_config() else 25  # a task's config builds on no other
  assert len(list(filter(str.strip, lines))) <= limit
  assert set(clip.SHARED) <= set(recipe.VARIANTS)
  name = recipe.__name__.removeprefix('configs.methods.')
  with pytest.raises(ValueError, match=rf"configs/methods/{name}\.py has no variant 'huge'"):
    recipe.get_config('huge')


@pytest.mark.parametrize('name', ['reweighted', 'slip'])
def test_a_method_keeps_its_earlier_path(name):
  earlier = importlib.import_module(f'configs.{name}')
  method = importlib.import_module(f'configs.methods.{name}')
  assert earlier.get_config('smoke') == method.get_config('smoke')
  assert earlier.VARIANTS == method.VARIANTS


def test_the_schedule_follows_the_steps():
  config = clip.get_config('smoke')
  config.total_steps = 50
  schedule = build.build(config).schedule
  rates = [float(schedule(step)) for step in range(51)]
  assert max(rates) == pytest.approx(config.optimizer.learning_rate)
  assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_siglip_has_no_recipe_with_a_resnet():
  # Its text tower has the width and depth of a vision transformer.
  with pytest.raises(ValueError, match=r"configs/siglip\.py has no variant 'rn50'; use one of"):
    siglip.get_config('rn50')


@pytest.mark.parametrize(('recipe', 'known'), [(clip, 'vit_b16'), (coca, 'giant')])
def test_an_unknown_variant_is_named(recipe, known):
  message = rf"configs/{recipe.__name__[8:]}\.py has no variant 'huge'; use one of .*'{known}'"
  with pytest.raises(ValueError, match=message):
    recipe.get_config('huge')
