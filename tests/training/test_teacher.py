"""A teacher of another architecture, in the step and in the config's checks."""

import shutil

import chex
import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import contrastive_jax
from configs import clip, text
from configs.methods import clip_kd, distill
from contrastive_jax import data, interop
from contrastive_jax.data import emoji
from contrastive_jax.interop.export import TOKENIZER
from contrastive_jax.models.definition import define
from contrastive_jax.training import build, loop
from contrastive_jax.training.state import start_from
from tests.interop.parity import FOLDER
from tests.models.towers import drawn

B, SIZE = 8, 24


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A teacher that differs from the student in width, depth, image size and text length."""
  fields = clip.get_config('smoke').model.to_dict()
  fields['embed'] = 24
  fields['image'] |= {'size': SIZE, 'stem': 'patch', 'stem_blocks': None, 'layers': 1}
  fields['image']['width'] = 48
  fields['text'] |= {'length': 12, 'width': 40, 'layers': 2}
  model = interop.Model(fields, jax.device_get(drawn(define(**fields))))
  path = tmp_path_factory.mktemp('teacher')
  interop.native.write_model(model, path)
  shutil.copyfile(emoji.TOKENIZER, path / f'{TOKENIZER}.json')
  return path


def config_of(teacher, recipe=clip_kd, **fields) -> ConfigDict:
  config = recipe.get_config('smoke')
  config.teacher, config.batch_size, config.texts = str(teacher), B, 2
  config.data.captions, config.data.split, config.data.size = 'tags', 'heldout_composition', SIZE
  config.augmentation = ConfigDict({'flip': 0.0})  # resizes, and changes nothing
  config.update_from_flattened_dict(fields)
  return config


@pytest.fixture(scope='module')
def built(folder):
  """A run, and a batch of it."""
  run = build.build(config_of(folder), jax.devices()[:1])
  source = data.open_source('emoji', 'heldout_composition')
  batch = run.augment(1, next(loop._training_batches(run, source)[0]))
  return run, source, batch


def test_batches_carry_the_tokens_of_the_teacher(built):
  run, _, batch = built
  shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in batch.items()}
  assert shapes == {name: (leaf.shape, leaf.dtype) for name, leaf in run.abstract_batch.items()}
  assert batch['teacher_tokens'].shape == (B, 2, 12) and batch['tokens'].shape == (B, 2, 16)
  texts = [run.tokenizer.decode(row) for row in batch['tokens'][:, 1]]
  own = data.open_tokenizer('emoji', 12)(texts)
  np.testing.assert_array_equal(batch['teacher_tokens'][:, 1], own)


def test_the_teacher_of_a_step_is_the_model_of_the_folder(built, folder):
  """On images of its size, and on all texts."""
  run, _, batch = built
  batch = batch | {'key': jax.random.split(jax.random.key(0), B)}
  taught = jax.jit(run.teacher.teach(run.config, run.objective.reads))(
    run.teacher.parameters, batch
  )
  model = contrastive_jax.load(folder)
  images = list(map(Image.fromarray, batch['image']))
  np.testing.assert_allclose(taught.image, model.encode_image(images), atol=1e-5)
  texts = [run.tokenizer.decode(row) for row in batch['tokens'][:, 1]]
  np.testing.assert_allclose(taught.texts[:, 1], model.encode_text(texts), atol=1e-5)
  assert taught.image.shape == (B, 24)


@pytest.mark.slow
def test_a_step_leaves_the_teacher_as_it_was(built):
  run, _, batch = built
  state = start_from(run.create_state(0), teacher=run.teacher.parameters)
  before = jax.device_get(state.parameters)
  state, metrics = run.train_step(state, batch)
  chex.assert_trees_all_equal(jax.device_get(state.teacher), run.teacher.parameters)
  assert np.isfinite(metrics['loss']) and metrics['distill/divergence'] > 0
  assert set(state.heads['clip_kd']) == {'scale', 'image_projector', 'text_projector'}
  assert jax.tree.leaves(before)[0].shape == jax.tree.leaves(state.parameters)[0].shape
  assert 'teacher' in state.items


@pytest.mark.parametrize(
  ('teacher', 'fields', 'message'),
  [
    ('', {}, r"config\.teacher = '', and a method .* reads a teacher; give the workdir"),
    ('nowhere', {}, r"config\.teacher = 'nowhere' cannot be used: nowhere holds no model"),
    (FOLDER / 'clip', {}, r'does not say how its texts become tokens'),
    ('untrained', {'data.sequence_lengths': (4,)}, r'takes square images'),
    ('untrained', {'objective': ConfigDict({'info_nce': 1.0})}, r'no method of config\.objective'),
    ('untrained', {'objective.distill.logits': -1.0}, r'objective\.distill\.logits = -1\.0; use'),
    (
      'untrained',
      {'objective': ConfigDict({'distill': {'weight': 1.0, 'logits': 0.0}})},
      'leaves no term',
    ),
  ],
)
def test_what_cannot_work_is_an_error_before_any_compile(teacher, fields, message):
  config = config_of(teacher, distill, **fields)
  if config.data.sequence_lengths:
    config.model.image.update({'stem': 'patch', 'stem_blocks': None})
    config.augmentation = ConfigDict()
  with pytest.raises(ValueError, match=message):
    build.build(config, jax.devices()[:1])


def test_a_student_of_texts_has_no_teacher_of_images(folder):
  config = text.get_config('smoke')
  config.objective = ConfigDict({'distill': 1.0})
  config.teacher = str(folder)
  with pytest.raises(ValueError, match=r"is a clip that reads \['image'\], which a teacher of"):
    build.build(config, jax.devices()[:1])
