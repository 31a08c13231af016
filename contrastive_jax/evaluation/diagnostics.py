"""Diagnostics of the embedding space: alignment, uniformity, modality gap, rank and collapse.

All are functions of unit embeddings; their memory is linear in the number of embeddings.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from contrastive_jax import losses
from contrastive_jax.evaluation.probes import logistic_regression
from contrastive_jax.losses import pairwise
from contrastive_jax.sharding.mesh import batch_shards, place_whole

SAMPLE = 8192  # maximum number of pairs in `diagnose`, which runs during training


def metric_names(
  captions: Sequence[str],
  classes: Mapping[str, Sequence[str]],
  sides: tuple[str, str] = ('image', 'text'),
) -> list[str]:
  """Returns the names of the metrics that `diagnose` returns for captions and classes."""
  if len(set(captions)) < 2:
    return []
  one, other = sides
  return [
    *('alignment', f'uniformity_{one}', f'uniformity_{other}', 'hard_negative_share'),
    *('modality_gap', 'separability', f'effective_rank_{one}', f'effective_rank_{other}'),
    *(f'collapsed_dimensions_{one}', f'collapsed_dimensions_{other}'),
    *(f'tolerance_{field}' for field in _tolerated(classes, _sample(len(captions)))),
  ]


def view_metric_names(number: int, classes: Mapping[str, Sequence[str]]) -> list[str]:
  """Returns the names of the metrics that `diagnose_views` returns for so many images."""
  if number < 2:
    return []
  return [
    *('alignment', 'uniformity', 'effective_rank', 'collapsed_dimensions'),
    'effective_rank_features',
    *(f'tolerance_{field}' for field in _tolerated(classes, _sample(number))),
  ]


def _sample(number: int) -> np.ndarray:
  """Returns the rows of all pairs, or of a random `SAMPLE` of them."""
  rows = np.arange(number)
  if number > SAMPLE:
    rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
  return rows


def _tolerated(classes: Mapping[str, Sequence[str]], rows: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the labels of the rows by field, for fields in which two rows agree."""
  own = {field: np.asarray(labels)[rows] for field, labels in classes.items()}
  return {field: labels for field, labels in own.items() if len(set(labels)) < len(labels)}


def diagnose(
  image: np.ndarray,
  text: np.ndarray,
  captions: Sequence[str],
  classes: Mapping[str, Sequence[str]],
  scale: float,
  mesh: Mesh,
  sides: tuple[str, str] = ('image', 'text'),
) -> dict[str, float]:
  """Computes the diagnostics of N pairs, or of a random 8,192 of them.

  Args:
    image: [N, D] unit vectors, row i paired with row i of `text`.
    text: [N, D] unit vectors.
    captions: N strings; pairs of equal caption are not negatives of each other.
    classes: N labels by field.
    scale: the model's inverse temperature.
    mesh: mesh over which a sample of 8,192 pairs is sharded, if it divides; fewer pairs stay on one
      device.
    sides: names of the two sides of a pair.

  Returns:
    Metrics by the name of their function, followed by `_image`, `_text` or the field; and
    `hard_negative_share`, of the hardest 1% at the model's temperature. Empty for fewer than two
    distinct captions, which have no negatives.
  """
  if len(set(captions)) < 2:
    return {}
  rows, (one, other) = _sample(len(captions)), sides
  image, text = image[rows], text[rows]
  same = np.unique(np.asarray(captions)[rows], return_inverse=True)[1].astype(np.int32)
  cut = len(rows) < len(captions) and SAMPLE % batch_shards(mesh) == 0
  options = {'mesh': mesh if cut else None}
  images, texts, ids = place_whole((image, text, same), mesh) if cut else (image, text, same)
  metrics = {
    'alignment': _alignment(images, texts),
    f'uniformity_{one}': _uniformity(images, images, **options),
    f'uniformity_{other}': _uniformity(texts, texts, **options),
    'hard_negative_share': hard_negative_shares(
      images, texts, scales=[scale], hardest=(max(1, len(rows) // 100),), same=ids, **options
    )[0, 0],
    'modality_gap': modality_gap(image, text),
    'separability': separability(image, text),
    f'effective_rank_{one}': effective_rank(image),
    f'effective_rank_{other}': effective_rank(text),
    f'collapsed_dimensions_{one}': collapsed_dimensions(image),
    f'collapsed_dimensions_{other}': collapsed_dimensions(text),
  }
  for field, labels in _tolerated(classes, rows).items():
    metrics[f'tolerance_{field}'] = tolerance(image, labels)
  return {name: float(value) for name, value in metrics.items()}


def diagnose_views(
  first: np.ndarray,
  second: np.ndarray,
  features: np.ndarray,
  classes: Mapping[str, Sequence[str]],
  mesh: Mesh,
) -> dict[str, float]:
  """Computes the diagnostics of two views of N images, or of a random 8,192 of them.

  Args:
    first: [N, D] unit vectors of a view of each image.
    second: [N, D] unit vectors of another view.
    features: [N, W] unit vectors of the images before the projector.
    classes: N labels by field.
    mesh: as in `diagnose`.

  Returns:
    Metrics by the name of their function: `alignment` of the views, `uniformity`, the mean of both
    views, and those of the first view alone; and `effective_rank_features`. Empty for one image.
  """
  if len(first) < 2:
    return {}
  rows = _sample(len(first))
  first, second, features = first[rows], second[rows], features[rows]
  cut = len(rows) == SAMPLE and SAMPLE % batch_shards(mesh) == 0
  views = place_whole((first, second), mesh) if cut else (first, second)
  options = {'mesh': mesh if cut else None}
  metrics = {
    'alignment': _alignment(*views),
    'uniformity': sum(_uniformity(view, view, **options) for view in views) / 2,
    'effective_rank': effective_rank(first),
    'collapsed_dimensions': collapsed_dimensions(first),
    'effective_rank_features': effective_rank(features),
  }
  for field, labels in _tolerated(classes, rows).items():
    metrics[f'tolerance_{field}'] = tolerance(first, labels)
  return {name: float(value) for name, value in metrics.items()}


_alignment = jax.jit(losses.alignment)
# Uniformity of one modality; `losses.uniformity` averages two.
_uniformity = jax.jit(losses.cross_uniformity, static_argnames='mesh')


def modality_gap(image: np.ndarray, text: np.ndarray) -> float:
  """The distance between the mean image and the mean text [1], from 0 to 2.

  Args:
    image: [N, D] unit vectors.
    text: [M, D] unit vectors.

  References:
    [1] Liang et al., Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive
      Representation Learning, 2022.

  >>> modality_gap(np.eye(2), -np.eye(2)) == 2**0.5
  True
  """
  return float(np.linalg.norm(image.mean(0, np.float64) - text.mean(0, np.float64)))


def separability(image: np.ndarray, text: np.ndarray, *, mesh: Mesh | None = None) -> float:
  """Linear separability of images and texts [1]: accuracy of a linear classifier on unseen pairs.

  Logistic regression is fitted to every other pair and tested on the rest.

  Args:
    image: [N, D] unit vectors, row i paired with row i of `text`.
    text: [N, D] unit vectors.
    mesh: mesh over which the examples are sharded; None for one device.

  Returns:
    About 0.5 if the modalities overlap, 1 if a hyperplane separates them.

  Raises:
    ValueError: if the shapes differ, or there are fewer than two pairs.

  References:
    [1] Fahim et al., It's Not a Modality Gap: Characterizing and Addressing the Contrastive Gap,
      2024. The classifier and the split are our reading; we had no access to its code.
  """
  if image.shape != text.shape or len(image) < 2:
    raise ValueError(f'image {image.shape} and text {text.shape}; give two [N, D] with N of 2 up')
  train, test = (
    (np.concatenate([image[part], text[part]]), np.repeat([0, 1], len(image[part])))
    for part in (slice(0, None, 2), slice(1, None, 2))
  )
  weights, bias = logistic_regression(*train, 2, 1.0, mesh=mesh)
  return float(np.mean(np.argmax(test[0] @ weights + bias, axis=1) == test[1]))


def spectrum(embeddings: np.ndarray) -> np.ndarray:
  """The variance along each principal direction, [D] in descending order.

  A spectrum that falls to zero is dimensional collapse [1]. N embeddings span at most N − 1
  directions.

  Args:
    embeddings: [N, D]

  References:
    [1] Jing et al., Understanding Dimensional Collapse in Contrastive Self-supervised Learning,
      2022.

  >>> spectrum(np.array([[1.0, 0.0], [-1.0, 0.0]]))
  array([1., 0.])
  """
  centered = embeddings - embeddings.mean(0, np.float64)
  return np.maximum(np.linalg.eigvalsh(centered.T @ centered / len(centered))[::-1], 0.0)


def effective_rank(embeddings: np.ndarray) -> float:
  """Effective rank [1]: exp of the entropy of the shares σₖ / Σ σ.

  σ are the singular values of the centered embeddings; without centering it is RankMe [2].

  Args:
    embeddings: [N, D]

  Returns:
    From 1, all on a line, to D, equal variance in every direction; 0 if all embeddings are equal.

  References:
    [1] Roy and Vetterli, The Effective Rank: A Measure of Effective Dimensionality, 2007.
    [2] Garrido et al., RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
      Representations by Their Rank, 2023.

  >>> round(effective_rank(np.concatenate([np.eye(4), -np.eye(4)])), 4)
  4.0
  """
  values = np.sqrt(spectrum(embeddings))
  shares = values[values > 1e-7 * max(values[0], 1e-7)]  # smaller ones are rounding errors
  shares = shares / shares.sum()
  return float(np.exp(-np.sum(shares * np.log(shares)))) if len(shares) else 0.0


def collapsed_dimensions(embeddings: np.ndarray, *, below: float = 1e-3) -> int:
  """The number of directions whose variance is at most `below` times the mean over directions.

  Args:
    embeddings: [N, D]; with N ≤ D, D + 1 − N directions have no variance.
    below: threshold of collapse.

  >>> collapsed_dimensions(np.array([[1.0, 0.0], [-1.0, 0.0]]))
  1
  """
  variances = spectrum(embeddings)
  return int(np.sum(variances <= below * variances.mean()))


def tolerance(embeddings: np.ndarray, labels: Sequence) -> float:
  """The mean cosine of different examples of one class [1], over pairs of examples.

  Args:
    embeddings: [N, D] unit vectors.
    labels: N of any type that sorts.

  Returns:
    From −1 to 1. A low value means that classes are spread out, the price of uniformity.

  Raises:
    ValueError: if no two examples share a label.

  References:
    [1] Wang and Liu, Understanding the Behaviour of Contrastive Loss, 2021.

  >>> tolerance(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), ['a', 'b', 'a'])
  1.0
  """
  _, codes, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
  pairs = np.sum(counts * (counts - 1))
  if not pairs:
    raise ValueError(f'no two of the {len(counts)} labels are equal, so that no class has a pair')
  sums = np.zeros((len(counts), embeddings.shape[1]))
  np.add.at(sums, codes, embeddings)
  # ‖Σ x‖² counts every pair of a class twice, and each example with itself.
  return float((np.sum(sums**2) - np.sum(np.square(embeddings, dtype=np.float64))) / pairs)


@partial(jax.jit, static_argnames=('hardest', 'block_size', 'mesh'))
def hard_negative_shares(
  image: jax.Array,
  text: jax.Array,
  *,
  scales: jax.Array,
  hardest: tuple[int, ...],
  same: jax.Array | None = None,
  block_size: int | None = None,
  mesh: Mesh | None = None,
) -> jax.Array:
  """The hardest negatives' share of InfoNCE's gradient on all negatives, per image.

  The gradient of image i's loss on text j is proportional to exp(scale · sᵢⱼ), so j's share is
  rᵢ(j) = exp(scale · sᵢⱼ) / Σ_{k ≠ i} exp(scale · sᵢₖ) [1]. A lower temperature, 1 / scale,
  concentrates it on the hardest negatives.

  Args:
    image: [N, D] unit vectors, row i paired with row i of `text`.
    text: [N, D] unit vectors.
    scales: [S] inverse temperatures.
    hardest: H numbers of hardest negatives.
    same: [N] integers; pairs of the same integer are not negatives of each other.
    block_size: rows and columns visited at a time; chosen from a memory budget by default.
    mesh: the mesh over which the pairs are sharded, by its axes named 'data' and 'fsdp'; None for
      one device.

  Returns:
    [S, H], means over the images that have negatives; NaN if there are none.

  Raises:
    ValueError: if the shapes do not match, or N does not divide over the mesh.

  References:
    [1] Wang and Liu, Understanding the Behaviour of Contrastive Loss, 2021.

  >>> hard_negative_shares(jnp.eye(5), jnp.eye(5), scales=jnp.array([9.0]), hardest=(1, 2))
  Array([[0.25, 0.5 ]], dtype=float32)
  """
  options = {'exclude': same, 'diagonal': False, 'block_size': block_size, 'mesh': mesh}
  similarities, _ = pairwise.top_k(image, text, max(hardest), **options)

  def at(scale):
    total, _ = pairwise.logsumexp(image, text, scale=scale, **options)
    has_negatives = jnp.isfinite(total)
    taken = [jax.nn.logsumexp(scale * similarities[:, :count], axis=1) for count in hardest]
    shares = [jnp.exp(jnp.where(has_negatives, part - total, 0.0)) for part in taken]
    return jnp.stack([jnp.mean(share, where=has_negatives) for share in shares])

  return jax.lax.map(at, jnp.asarray(scales, jnp.float32))
