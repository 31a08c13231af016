import math

import jax
import pytest

from configs import clip
from contrastive_jax.models.definition import define
from contrastive_jax.training import loop

# Of the models that OpenAI published.
PUBLISHED = {'vit_b32': 151_277_313, 'vit_b16': 149_620_737, 'vit_l14': 427_616_513}


@pytest.mark.parametrize('variant', PUBLISHED)
def test_the_papers_models_have_the_published_number_of_parameters(variant):
  definition = define(**clip.get_config(variant).model.to_dict())
  shapes = jax.eval_shape(definition.init, jax.random.key(0))
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) == PUBLISHED[variant]


@pytest.mark.parametrize('variant', clip.VARIANTS)
def test_every_variant_builds(variant):
  config = clip.get_config(variant)
  run = loop.build(config)
  assert config.variant == variant
  assert run.abstract_state.step.shape == ()


def test_the_schedule_follows_the_steps():
  config = clip.get_config('smoke')
  config.total_steps = 50
  schedule = loop.build(config).schedule
  rates = [float(schedule(step)) for step in range(51)]
  assert max(rates) == pytest.approx(config.optimizer.learning_rate)
  assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_an_unknown_variant_is_named():
  with pytest.raises(ValueError, match=r"no variant 'huge'; use one of .*'vit_b16'"):
    clip.get_config('huge')
