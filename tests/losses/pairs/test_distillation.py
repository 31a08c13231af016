"""Laws of distillation: what it reduces to, and that no gradient reaches a teacher."""

import functools

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import dense, reference

B = 6
SAME = np.array([0, 1, 2, 1, 3, 0])


def pairs(seed=0, width=4):
  """Images and texts that resemble each other."""
  image, noise = reference.unit(np.random.default_rng(seed), 2, B, width)
  text = image + 0.4 * noise
  return image, (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)


STUDENT, TEACHER = pairs(0), pairs(1, width=3)
of_teachers = jax.jit(dense.of_teachers)


def test_a_student_with_the_scores_of_its_teacher_has_no_gradient():
  def loss(image, text, scale):
    return losses.distillation(image, text, *STUDENT, scale=scale, teacher_scale=7.0)

  value_and_gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))
  value, gradients = value_and_gradients(*STUDENT, 7.0)
  aims = of_teachers(*STUDENT, 7.0)
  np.testing.assert_allclose(value, -np.mean(np.sum(aims * np.log(aims), -1)), rtol=1e-6)
  np.testing.assert_allclose(jax.tree.leaves(gradients), 0, atol=1e-6)
  assert value < value_and_gradients(*STUDENT, 5.0)[0]


def test_a_sure_teacher_makes_it_info_nce():
  image, text = np.eye(B, dtype=np.float32), np.eye(B, dtype=np.float32)
  with_teacher = functools.partial(losses.distillation, scale=3.0, teacher_scale=1000.0)
  value, gradient = jax.jit(jax.value_and_grad(with_teacher))(*STUDENT, image, text, same=SAME)
  plain = functools.partial(losses.info_nce, scale=3.0)
  expected, slope = jax.jit(jax.value_and_grad(plain))(*STUDENT, same=SAME)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  np.testing.assert_allclose(gradient, slope, atol=1e-6)


def test_teachers_are_averaged_after_their_softmax():
  other = pairs(2, width=5)
  both = (TEACHER[0], other[0]), (TEACHER[1], other[1])
  scales = 5.0, 8.0
  aims = of_teachers(*both, scales)
  np.testing.assert_allclose(aims.sum(-1), 1, rtol=1e-6)
  distil = jax.jit(functools.partial(losses.distillation, *STUDENT, scale=3.0))
  value = distil(*both, teacher_scale=scales)
  expected = jax.jit(dense.distillation)(*STUDENT, *both, 3.0, scales)
  np.testing.assert_allclose(value, np.mean(expected), 1e-6)
  entropy = jax.jit(losses.teacher_entropy)(*both, teacher_scale=scales)
  expected = jax.jit(dense.teacher_entropy)(*both, scales)
  np.testing.assert_allclose(entropy, expected, rtol=1e-5)
  # Concatenated, their scores are averaged before the softmax.
  joined = [np.concatenate(parts, 1) / np.sqrt(2) for parts in both]
  assert abs(value - distil(*joined, teacher_scale=13.0)) > 0.01


def test_no_gradient_reaches_the_teacher():
  def of_teacher(image, text, scale):
    return losses.distillation(*STUDENT, image, text, scale=3.0, teacher_scale=scale)

  gradients = jax.jit(jax.grad(of_teacher, (0, 1, 2)))(*TEACHER, 5.0)
  assert not any(np.any(leaf) for leaf in gradients)


def test_each_teacher_has_a_scale():
  with pytest.raises(ValueError, match=r'are of \(1, 1, 2\) teachers'):
    losses.distillation(*STUDENT, *TEACHER, scale=1.0, teacher_scale=(1.0, 2.0))
