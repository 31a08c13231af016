"""Distillation on the hard negatives that a teacher selects."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs


def dynamic_distillation(
  image: jax.Array,
  text: jax.Array,
  teacher_image: jax.Array,
  teacher_text: jax.Array,
  *,
  scale: jax.Array | float,
  teacher_scale: jax.Array | float,
  bias: jax.Array | float = 0.0,
  teacher_bias: jax.Array | float = 0.0,
  k: int = 7,
  alpha: float = 0.2,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """Dynamic contrastive distillation, DCD [1], for two towers.

      L = α Σᵢ rᵢ meanⱼ( sᵢⱼ − tᵢⱼ )² + (1 − α) Σᵢ wᵢ meanⱼ BCE( sᵢⱼ, [j = i] ),   j ∈ {i} ∪ H(i)
      s = scale · image textᵀ + bias,   t the same of the teacher
      w = H / Σ H,   r = softmax( (1 − w)² ),   Hᵢ = entropy of softmaxⱼ tᵢⱼ

  where H(i) are the k texts j ≠ i with the greatest tᵢⱼ, and BCE is the binary cross entropy of a
  logit. The teacher, and so the weights, have no gradient. A temperature would cancel in the
  squared error.

  [1] ranks the outputs of a fusion encoder. In the authors' code the weights r have no effect,
  since they multiply a mean over all items, and the student's columns are not those of the teacher
  where the teacher does not rank the positive first; here each item has its own error, over the
  same texts. Even so r is nearly uniform: (1 − w)² is near 1 for all but a few items of a batch.

  Args:
    image: [B, D] unit vectors of the student, row i paired with row i of `text`.
    text: [B, D] unit vectors of the student.
    teacher_image: [B, D'] unit vectors of a teacher, of any width.
    teacher_text: [B, D'] unit vectors of a teacher.
    scale: scalar, the student's inverse temperature.
    teacher_scale: scalar, the teacher's inverse temperature.
    bias: scalar added to the student's scores.
    teacher_bias: scalar added to the teacher's scores.
    k: the number of negatives per image; all of them where there are fewer.
    alpha: α, the weight of the squared error, from 0 to 1.
    same: [B] integers; rows with the same integer are not negatives of each other. Default: all
      differ.
    block_size: as in `pairwise.top_k`.
    mesh: as in `pairwise.top_k`.

  Returns:
    Scalar.

  Raises:
    ValueError: if the shapes differ, `alpha` is out of range, or as `pairwise.top_k`.

  References:
    [1] Rao et al., Dynamic Contrastive Distillation for Image-Text Retrieval, 2022,
      https://arxiv.org/abs/2207.01426.

  See also `hard_negative` and `distillation`.

  >>> eye = jnp.eye(4)
  >>> scales = {'scale': 1.0, 'teacher_scale': 1.0}
  >>> round(float(dynamic_distillation(eye, eye, eye, eye, **scales, k=1)), 4)
  0.4026
  """
  options: dict[str, Any] = {'same': same, 'block_size': block_size, 'mesh': mesh}
  options |= {'scale': scale, 'teacher_scale': teacher_scale, 'bias': bias}
  options |= {'teacher_bias': teacher_bias, 'k': k, 'alpha': alpha}
  return jnp.mean(
    dynamic_distillation_per_example(image, text, teacher_image, teacher_text, **options)
  )


def dynamic_distillation_per_example(
  image: jax.Array,
  text: jax.Array,
  teacher_image: jax.Array,
  teacher_text: jax.Array,
  *,
  scale: jax.Array | float,
  teacher_scale: jax.Array | float,
  bias: jax.Array | float = 0.0,
  teacher_bias: jax.Array | float = 0.0,
  k: int = 7,
  alpha: float = 0.2,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each image [B], of which `dynamic_distillation` is the mean.

      Lᵢ = B ( α rᵢ meanⱼ( sᵢⱼ − tᵢⱼ )² + (1 − α) wᵢ meanⱼ BCE( sᵢⱼ, [j = i] ) )

  It takes the same arguments.

  >>> eye = jnp.eye(2)
  >>> scales = {'scale': 1.0, 'teacher_scale': 1.0}
  >>> losses = dynamic_distillation_per_example(eye, eye, eye, eye, **scales)
  >>> [round(float(loss), 4) for loss in losses]      # 0.8 (log(1 + 1/e) + log 2) / 2
  [0.4026, 0.4026]
  """
  check_pairs(image=image, text=text)
  check_pairs(teacher_image=teacher_image, teacher_text=teacher_text)
  if len(teacher_image) != len(image):
    raise ValueError(f'teacher_image {teacher_image.shape} and image {image.shape} differ in B')
  if not 0 <= alpha <= 1:
    raise ValueError(f'alpha = {alpha}; use a number from 0 to 1')
  aim = jax.lax.stop_gradient((teacher_image, teacher_text, teacher_scale, teacher_bias))
  teacher_image, teacher_text, teacher_scale, teacher_bias = aim
  hardest, columns = pairwise.top_k(
    *(teacher_image, teacher_text, min(k, len(image))),
    scale=teacher_scale,
    exclude=same,
    diagonal=False,
    block_size=block_size,
    mesh=mesh,
  )
  # The positive comes first, in both lists.
  positive = teacher_scale * pairwise.paired(teacher_image, teacher_text)
  teacher = jnp.concatenate([positive[:, None], hardest], 1) + teacher_bias
  columns = jnp.concatenate([jnp.arange(len(image))[:, None], columns], 1)
  student = scale * _products(image, jnp.asarray(text)[columns]) + bias
  is_positive = jnp.arange(columns.shape[1]) == 0
  counts = columns >= 0  # −1 where there are fewer negatives
  squares = jnp.square(student - jnp.where(counts, teacher, 0.0))
  entropies = jax.nn.softplus(student) - jnp.where(is_positive, student, 0.0)
  distance, task = (jnp.mean(part, 1, where=counts) for part in (squares, entropies))
  weights, of_distance = dynamic_weights(teacher)
  return len(image) * (alpha * of_distance * distance + (1 - alpha) * weights * task)


def dynamic_weights(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
  """DCD's weights of the task and of the squared error, by the entropy of a teacher's scores.

  Args:
    scores: [B, 1 + k], −∞ for a text that does not count.

  Returns:
    w and r, [B] of sum 1; 1 / B where all entropies are equal.

  >>> dynamic_weights(jnp.zeros((2, 3)))
  (Array([0.5, 0.5], dtype=float32), Array([0.5, 0.5], dtype=float32))
  """
  log_probability = jax.nn.log_softmax(scores, 1)
  finite = jnp.where(jnp.isneginf(log_probability), 0.0, log_probability)
  entropy = -jnp.sum(jnp.exp(log_probability) * finite, 1)
  total = jnp.sum(entropy)
  share = jnp.where(total > 0, entropy / jnp.where(total > 0, total, 1.0), 1 / len(scores))
  return share, jax.nn.softmax(jnp.square(1 - share))


def _products(image: jax.Array, texts: jax.Array) -> jax.Array:
  """Products of [B, D] with [B, K, D], float32 [B, K]."""
  dtype = jnp.promote_types(image.dtype, jnp.float32)
  return jnp.einsum('bd,bkd->bk', image, texts, preferred_element_type=dtype)
