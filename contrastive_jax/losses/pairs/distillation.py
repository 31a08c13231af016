"""Distillation of a teacher's similarities of pairs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

from contrastive_jax.losses import pairwise
from contrastive_jax.losses.checks import check_pairs

# [B, D]; or a tuple of K of these, of K teachers.
Teachers = jax.Array | tuple[jax.Array, ...]
Scales = jax.Array | float | tuple[jax.Array | float, ...]


def distillation(
  image: jax.Array,
  text: jax.Array,
  teacher_image: Teachers,
  teacher_text: Teachers,
  *,
  scale: jax.Array | float,
  teacher_scale: Scales,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The cross entropy of a student's softmax with that of its teachers, MobileCLIP's KD [1].

      L = ½ meanᵢ( − Σⱼ Qᵢⱼ log softmaxⱼ sᵢⱼ ) + ½ (the same of the texts)
      Q = meanₖ softmaxⱼ tᵏᵢⱼ,   s = scale · image textᵀ,   tᵏ = scaleₖ · imageₖ textₖᵀ

  The K teachers are averaged after the softmax, and each direction has a softmax of its own. The
  least value is `teacher_entropy`, where the student's softmax is Q. Teachers have no gradient.

  Args:
    image: [B, D] unit vectors of the student, row i paired with row i of `text`.
    text: [B, D] unit vectors of the student.
    teacher_image: [B, D'] unit vectors of a teacher, of any width; or a tuple of K such arrays,
      whose D' may differ.
    teacher_text: [B, D'], or a tuple of K, in the form of `teacher_image`.
    scale: scalar, the student's inverse temperature.
    teacher_scale: scalar over 0, the teachers' inverse temperature; or a tuple of K.
    same: [B] integers; pairs i ≠ j of the same integer are left out, of both softmaxes. Default:
      all pairs count.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes do not match, or as `pairwise.logsumexp`.

  References:
    [1] Vasu et al., MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training,
      2024, https://arxiv.org/abs/2311.17049.

  See also `info_nce`, which it equals for a sure teacher.

  >>> eye = jnp.eye(4)
  >>> round(float(distillation(eye, eye, eye, eye, scale=1.0, teacher_scale=100.0)), 4)
  0.7437
  """
  options: dict[str, Any] = {'same': same, 'block_size': block_size, 'mesh': mesh}
  options |= {'scale': scale, 'teacher_scale': teacher_scale}
  return jnp.mean(distillation_per_example(image, text, teacher_image, teacher_text, **options))


def distillation_per_example(
  image: jax.Array,
  text: jax.Array,
  teacher_image: Teachers,
  teacher_text: Teachers,
  *,
  scale: jax.Array | float,
  teacher_scale: Scales,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each pair [B], of which `distillation` is the mean; it takes the same arguments.

      Lᵢ = ½ ( logsumexpⱼ sᵢⱼ − Σⱼ Qᵢⱼ sᵢⱼ ) + ½ (the same of text i)

  >>> eye = jnp.eye(2)
  >>> losses = distillation_per_example(eye, eye, eye, eye, scale=1.0, teacher_scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − e / (e + 1)
  [0.5822, 0.5822]
  """
  check_pairs(image=image, text=text)
  teachers = _teachers(teacher_image, teacher_text, teacher_scale, len(image))
  options: dict[str, Any] = {'exclude': same, 'block_size': block_size, 'mesh': mesh}
  rows, columns = pairwise.logsumexp(image, text, scale=scale, **options)
  expected = jnp.zeros(())
  for teacher in teachers:
    own, others = (teacher.image, image), (teacher.text, text)
    of_rows, of_columns = pairwise.expectation(
      own, others, _student, _teacher, scale=teacher.scale, **options
    )
    # One scale multiplies both products, so the student's are divided by it.
    expected += (of_rows[0] + of_columns[0]) / teacher.scale
  return (rows + columns - scale * expected / len(teachers)) / 2


def teacher_entropy(
  teacher_image: Teachers,
  teacher_text: Teachers,
  *,
  teacher_scale: Scales,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The mean entropy of the rows and columns of Q, the least value of `distillation`.

  `distillation` less this is the Kullback-Leibler divergence of the student from its teachers.

  Args:
    teacher_image: as in `distillation`.
    teacher_text: as in `distillation`.
    teacher_scale: as in `distillation`.
    same: as in `distillation`.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats, from 0 to log B, without a gradient.

  Raises:
    ValueError: as `distillation`.

  >>> eye = jnp.eye(2)
  >>> round(float(teacher_entropy(eye, eye, teacher_scale=1.0)), 4)
  0.5822
  """
  first = teacher_image[0] if isinstance(teacher_image, tuple) else teacher_image
  teachers = _teachers(teacher_image, teacher_text, teacher_scale, len(first))
  options: dict[str, Any] = {'exclude': same, 'block_size': block_size, 'mesh': mesh}
  totals = [pairwise.logsumexp(t.image, t.text, scale=t.scale, **options) for t in teachers]
  of_rows, of_columns = (jnp.stack(part, 1) for part in zip(*totals, strict=True))
  scales = jnp.stack([jnp.broadcast_to(t.scale, len(first)) for t in teachers], 1)
  (rows, _), (_, columns) = pairwise.sum(
    tuple(t.image for t in teachers),
    tuple(t.text for t in teachers),
    _entropies,
    rows=(scales, of_rows),
    columns=of_columns,
    **options,
  )
  return jnp.mean(rows + columns) / 2


def interactive_distillation(
  image: jax.Array,
  text: jax.Array,
  teacher_image: jax.Array,
  teacher_text: jax.Array,
  *,
  scale: jax.Array | float,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """InfoNCE of a student's embeddings against a teacher's, interactive contrastive learning [1].

      L = ½ meanᵢ( logsumexpⱼ aᵢⱼ − aᵢᵢ ) + ½ meanᵢ( logsumexpⱼ bᵢⱼ − bᵢᵢ )
      a = scale · image teacher_textᵀ,   b = scale · text teacher_imageᵀ

  The student's vectors are the anchors. The teacher has no gradient.

  Args:
    image: [B, D] unit vectors of the student, row i paired with row i of all others.
    text: [B, D] unit vectors of the student.
    teacher_image: [B, D] unit vectors of a teacher, of the student's width.
    teacher_text: [B, D] unit vectors of a teacher.
    scale: scalar, the inverse temperature.
    same: [B] integers; rows with the same integer are not negatives of each other. Default: all
      differ.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar, in nats.

  Raises:
    ValueError: if the shapes differ, or as `pairwise.logsumexp`.

  References:
    [1] Yang et al., CLIP-KD: An Empirical Study of CLIP Model Distillation, 2024,
      https://arxiv.org/abs/2307.12732.

  See also `distillation`, which takes a teacher of another width.

  >>> eye = jnp.eye(4)
  >>> round(float(interactive_distillation(eye, eye, eye, eye, scale=1.0)), 4)  # log(e + 3) − 1
  0.7437
  """
  options: dict[str, Any] = {'same': same, 'block_size': block_size, 'mesh': mesh}
  return jnp.mean(
    interactive_distillation_per_example(
      image, text, teacher_image, teacher_text, scale=scale, **options
    )
  )


def interactive_distillation_per_example(
  image: jax.Array,
  text: jax.Array,
  teacher_image: jax.Array,
  teacher_text: jax.Array,
  *,
  scale: jax.Array | float,
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The loss of each pair [B], of which `interactive_distillation` is the mean.

  It takes the same arguments.

  >>> eye = jnp.eye(2)
  >>> losses = interactive_distillation_per_example(eye, eye, eye, eye, scale=1.0)
  >>> [round(float(loss), 4) for loss in losses]      # log(e + 1) − 1
  [0.3133, 0.3133]
  """
  check_pairs(image=image, teacher_text=teacher_text)
  check_pairs(text=text, teacher_image=teacher_image)
  check_pairs(image=image, text=text)
  options: dict[str, Any] = {'exclude': same, 'block_size': block_size, 'mesh': mesh}

  def one_way(anchors, others):
    others = jax.lax.stop_gradient(others)
    total, _ = pairwise.logsumexp(anchors, others, scale=scale, **options)
    return total - scale * pairwise.paired(anchors, others)

  return (one_way(image, teacher_text) + one_way(text, teacher_image)) / 2


class _Teacher(NamedTuple):
  image: jax.Array
  text: jax.Array
  scale: jax.Array


def _teachers(image: Teachers, text: Teachers, scale: Scales, size: int) -> list[_Teacher]:
  """The teachers, without gradients; raises ValueError unless each has [B, D'] and a scale."""
  images = image if isinstance(image, tuple) else (image,)
  texts = text if isinstance(text, tuple) else (text,)
  scales = scale if isinstance(scale, tuple) else (scale,) * len(images)
  counts = len(images), len(texts), len(scales)
  if len({*counts}) > 1 or not images:
    raise ValueError(
      f'(teacher_image, teacher_text, teacher_scale) are of {counts} teachers; give one of each'
    )
  for image, text in zip(images, texts, strict=True):
    check_pairs(teacher_image=image, teacher_text=text)
    if len(image) != size:
      raise ValueError(f'teacher_image {image.shape} has {len(image)} rows; give {size}')
  given = zip(images, texts, map(jnp.asarray, scales), strict=True)
  return [_Teacher(*jax.lax.stop_gradient(each)) for each in given]


def _teacher(scores):
  """The logits of a teacher, from its products and the student's."""
  return scores[0]


def _student(scores):
  return scores[1]


def _entropies(scores, rows, columns):
  """The terms −Q log Q of the entropies of a row and of a column."""
  scales, of_rows = rows
  of_row, of_column = [], []
  for number, products in enumerate(scores):
    logits = scales[:, number, None] * products
    of_row.append(jnp.exp(logits - of_rows[:, number, None]))
    of_column.append(jnp.exp(logits - columns[:, number]))
  means = (sum(part) / len(part) for part in (of_row, of_column))
  return tuple(-xlogy(mean, mean) for mean in means)
