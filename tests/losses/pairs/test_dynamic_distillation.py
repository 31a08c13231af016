"""Laws of DCD: its weights, its columns, and that no gradient reaches the teacher."""

import functools

import jax
import numpy as np

from contrastive_jax import losses
from contrastive_jax.losses.pairs.dynamic_distillation import dynamic_weights
from tests.losses.pairs.test_distillation import SAME, STUDENT, TEACHER, B

weigh = jax.jit(dynamic_weights)


def test_no_gradient_reaches_the_teacher():
  def of_teacher(image, text, scale):
    return losses.dynamic_distillation(*STUDENT, image, text, scale=3.0, teacher_scale=scale)

  gradients = jax.jit(jax.grad(of_teacher, (0, 1, 2)))(*TEACHER, 5.0)
  assert not any(np.any(leaf) for leaf in gradients)


def test_without_distance_it_is_the_weighted_task():
  scores = 3.0 * STUDENT[0] @ STUDENT[1].T
  task = np.mean(np.logaddexp(0, scores * (1 - 2 * np.eye(B))), 1)
  weights, _ = weigh(5.0 * TEACHER[0] @ TEACHER[1].T)
  options = {'k': B - 1, 'alpha': 0.0}
  loss = jax.jit(functools.partial(losses.dynamic_distillation, **options))
  value = loss(*STUDENT, *TEACHER, scale=3.0, teacher_scale=5.0)
  np.testing.assert_allclose(value, np.sum(weights * task), rtol=1e-5)


def test_a_student_with_the_scores_of_its_teacher_has_no_distance():
  distance = jax.jit(functools.partial(losses.dynamic_distillation, alpha=1.0))
  options = {'scale': 3.0, 'teacher_scale': 3.0, 'bias': -1.0, 'teacher_bias': -1.0}
  np.testing.assert_allclose(distance(*STUDENT, *STUDENT, **options), 0, atol=1e-10)


def test_equal_entropies_weigh_equally_and_the_weights_of_the_distance_hardly_differ():
  rolled = np.stack([np.roll(np.arange(7.0), n) for n in range(7)])
  for weights in weigh(rolled):
    np.testing.assert_allclose(weights, 1 / 7, rtol=1e-5)
  one_unsure = np.where(np.eye(7) > 0, 1e3, 0.0)
  one_unsure[0] = 0
  share, of_distance = weigh(one_unsure)
  np.testing.assert_allclose(share, np.eye(7)[0], atol=1e-6)
  assert 0.05 < of_distance[0] < of_distance[1] < 0.16


def test_fewer_negatives_than_k_are_left_out():
  """An image has one negative less where another has the same caption."""
  loss = jax.jit(functools.partial(losses.dynamic_distillation_per_example, k=9))
  value = loss(*STUDENT, *TEACHER, scale=3.0, teacher_scale=5.0, same=SAME)
  assert np.all(np.isfinite(value))
  lacking = np.array([j for j in range(B) if j != 5])  # what image 0 is compared with
  task = 3.0 * STUDENT[0][0] @ STUDENT[1][lacking].T
  teacher = 5.0 * (TEACHER[0] @ TEACHER[1].T)
  scores = np.where((SAME[:, None] != SAME) | np.eye(B, dtype=bool), teacher, -np.inf)
  weights, of_distance = weigh(scores)
  aims = lacking == 0
  entropy = np.mean(np.logaddexp(0, np.where(aims, -task, task)))
  distance = np.mean((task - teacher[0, lacking]) ** 2)
  expected = B * (0.2 * of_distance[0] * distance + 0.8 * weights[0] * entropy)
  np.testing.assert_allclose(value[0], expected, rtol=1e-5)
