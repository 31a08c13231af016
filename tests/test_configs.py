import math

import jax
import pytest

from configs import clip, coca, reweighted, siglip, slip
from contrastive_jax.models.definition import define
from contrastive_jax.training import build

# Of the models that OpenAI published.
PUBLISHED = {'vit_b32': 151_277_313, 'vit_b16': 149_620_737, 'vit_l14': 427_616_513}


@pytest.mark.parametrize('variant', PUBLISHED)
def test_the_papers_models_have_the_published_number_of_parameters(variant):
  definition = define(**clip.get_config(variant).model.to_dict())
  shapes = jax.eval_shape(definition.init, jax.random.key(0))
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == PUBLISHED[variant]


@pytest.mark.parametrize(
  ('variant', 'count'), [('base', 383e6), ('large', 787e6), ('giant', 2.1e9)]
)
def test_cocas_models_have_the_papers_number_of_parameters(variant, count):
  definition = define(**coca.get_config(variant).model.to_dict())
  shapes = jax.eval_shape(definition.init, jax.random.key(0))
  parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
  assert parameters == pytest.approx(count, rel=0.01)


def test_siglips_model_has_the_published_number_of_parameters():
  model = siglip.get_config('vit_b16').model
  model.text.vocabulary = 32_000  # of its own tokenizer
  shapes = jax.eval_shape(define(**model.to_dict()).init, jax.random.key(0))
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == 203_155_970


@pytest.mark.parametrize(
  ('recipe', 'variant'),
  [
    (recipe, variant)
    for recipe in (clip, coca, reweighted, siglip, slip)
    for variant in recipe.VARIANTS
  ],
)
def test_every_variant_builds(recipe, variant):
  config = recipe.get_config(variant)
  run = build.build(config)
  assert config.variant == variant
  assert recipe.__name__ == f'configs.{config.name}'
  assert run.abstract_state.step.shape == ()


def test_the_schedule_follows_the_steps():
  config = clip.get_config('smoke')
  config.total_steps = 50
  schedule = build.build(config).schedule
  rates = [float(schedule(step)) for step in range(51)]
  assert max(rates) == pytest.approx(config.optimizer.learning_rate)
  assert rates[-1] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(('recipe', 'known'), [(clip, 'vit_b16'), (coca, 'giant')])
def test_an_unknown_variant_is_named(recipe, known):
  message = rf"configs/{recipe.__name__[8:]}\.py has no variant 'huge'; use one of .*'{known}'"
  with pytest.raises(ValueError, match=message):
    recipe.get_config('huge')
