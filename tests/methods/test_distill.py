"""Laws of MobileCLIP's loss and of CLIP-KD's terms."""

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.methods import Sizes
from contrastive_jax.methods.distill import ClipKd, Distill
from tests.losses import reference

B, D = 6, 4
SIZES = Sizes(B, D, teacher=D)
NAMES = ('image', 'text', 'teacher.image', 'teacher.text')


def drawn(width=D):
  """Embeddings of a student, and of a teacher of a width."""
  random = np.random.default_rng(0)
  vectors = [*reference.unit(random, 2, B, D), *reference.unit(random, 2, B, width)]
  return dict(zip(NAMES, vectors, strict=True)) | {'scale': 5.0, 'teacher.scale': 8.0}


def loss(method, inputs, heads=None):
  return jax.jit(lambda given: method.loss(given, heads or {}, {}, None)[::2])(inputs)


def heads_of(method, sizes):
  """The heads of a method with their first parameters."""
  made = method.heads(sizes).items()
  return {name: head.bind(jax.jit(head.init)(jax.random.key(0))) for name, head in made}


def test_without_distillation_it_is_clip():
  inputs = drawn()
  inputs['same'] = np.array([0, 1, 2, 1, 3, 4])
  value, metrics = loss(Distill(contrastive=1.0, logits=0.0), inputs)
  expected = losses.info_nce(inputs['image'], inputs['text'], scale=5.0, same=inputs['same'])
  assert float(value) == pytest.approx(float(expected), rel=1e-6) and set(metrics) == {
    'contrastive'
  }


def test_equal_captions_count_twice_exactly():
  inputs, method = drawn(width=7), Distill(contrastive=0.25, logits=0.75)
  once, metrics = loss(method, inputs)
  texts = {name: np.stack([inputs[name[:-1]]] * 2, 1) for name in ('texts', 'teacher.texts')}
  twice, doubled = loss(method, inputs | texts)
  assert twice == 2 * once and doubled['divergence'] == 2 * metrics['divergence']
  weighted = 0.25 * metrics['contrastive'] + 0.75 * metrics['logits']
  np.testing.assert_allclose(once, weighted, rtol=1e-6)


def test_a_student_that_is_its_teacher_diverges_by_nothing():
  inputs = drawn()
  inputs |= {name: inputs[name.removeprefix('teacher.')] for name in NAMES[2:]}
  value, metrics = loss(Distill(teacher_scale=5.0), inputs)
  np.testing.assert_allclose(metrics['divergence'], 0, atol=1e-6)
  assert value == metrics['logits'] > 0.1
  assert 'teacher.scale' not in Distill(teacher_scale=5.0).reads


def test_no_gradient_reaches_the_teacher():
  inputs = drawn()
  heads = heads_of(ClipKd(), SIZES)

  def total(taught):
    given = inputs | taught
    return Distill().loss(given, {}, {}, None).loss + ClipKd().loss(given, heads, {}, None).loss

  taught = {name: inputs[name] for name in ('teacher.image', 'teacher.text', 'teacher.scale')}
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(taught)))


def test_clip_kd_of_equal_embeddings_is_the_contrast_alone():
  inputs, method = drawn(), ClipKd(features=2.0, interactive=0.5, scale=6.0)
  inputs |= {name: inputs[name.removeprefix('teacher.')] for name in NAMES[2:]}
  heads = heads_of(method, SIZES)
  assert set(heads) == {'scale'}
  value, metrics = loss(method, inputs, heads)
  expected = losses.info_nce(inputs['image'], inputs['text'], scale=6.0)
  np.testing.assert_allclose(metrics['features'], 0, atol=1e-6)
  np.testing.assert_allclose(value, 0.5 * expected, rtol=1e-5)


def test_clip_kd_maps_to_the_width_of_the_teacher():
  method, inputs = ClipKd(), drawn(width=7)
  heads = heads_of(method, SIZES._replace(teacher=7))
  assert set(heads) == {'scale', 'image_projector', 'text_projector'}
  _, metrics = loss(method, inputs, heads)
  mapped = [heads[f'{side}_projector'](inputs[side]) for side in ('image', 'text')]
  apart = [
    losses.cosine(x, inputs[f'teacher.{side}']) for side, x in zip(NAMES, mapped, strict=False)
  ]
  np.testing.assert_allclose(metrics['features'], sum(apart), rtol=1e-5)


def test_a_loss_without_terms_is_refused():
  with pytest.raises(ValueError, match='contrastive = logits = 0 leaves no term'):
    Distill(logits=0.0)
