"""Segmentation of composed scenes: a linear head on the frozen tokens of an image tower."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from contrastive_jax.data.images import normalize
from contrastive_jax.data.scenes import background, paste
from contrastive_jax.evaluation.batches import in_batches, jit_batched
from contrastive_jax.evaluation.probes import logistic_regression
from contrastive_jax.evaluation.splits import Split
from contrastive_jax.models.definition import Definition

# Scenes to which the head is fitted, and those of each split that it is tested on.
TRAINING, TESTED = 512, 256
# Drawings in a scene, and their minimum and maximum side as a share of the scene's.
_OBJECTS, _SIDE = 2, (0.5, 0.8)
_L2 = 1e-3  # strength of the penalty per token
_FIELD = "config.evaluation.probes: 'segmentation'"
_AT_ONCE = 64  # scenes whose logits of all pixels are in memory


class Scenes(NamedTuple):
  """N composed scenes.

  Attributes:
    images: [N, S, S, 3] uint8.
    masks: [N, S, S] the class of the drawing at each pixel, from 1; 0 for the background.
  """

  images: np.ndarray
  masks: np.ndarray


def compose(images: np.ndarray, labels: np.ndarray, number: int, seed: int = 0) -> Scenes:
  """Scenes of two drawings on a smooth background, the second over the first.

  A pixel belongs to a drawing or to the background, so the masks are exact for what was pasted.
  The drawings have no transparency: what to paste is their `silhouette`, whose edge is light.

  Args:
    images: [M, S, S, 3] uint8 drawings on white, an array or `data.DecodedImages`.
    labels: [M] classes from 0, each with the same probability; drawings of −1 are left out.
    number: N.
    seed: of the scenes, of which the first are the same for any number.
  """
  known = np.unique(labels[labels >= 0])
  S, rows = images.shape[1], [np.flatnonzero(labels == k) for k in known]
  scenes = Scenes(np.empty((number, S, S, 3), np.uint8), np.zeros((number, S, S), np.int32))
  for n, (scene, mask) in enumerate(zip(*scenes, strict=True)):
    random = np.random.default_rng([seed, n])
    scene[:] = background(random, S)
    for _ in range(_OBJECTS):
      row = random.choice(rows[random.integers(len(rows))])
      side = round(S * random.uniform(*_SIDE))
      y, x = random.integers(0, S - side + 1, 2)
      covered = paste(scene, images[int(row)], y, x, side)
      mask[y : y + side, x : x + side][covered] = 1 + labels[row]
  return scenes


class Segmentation:
  """Fits and tests the head on scenes of the drawings of some splits.

  Args:
    definition: the model, whose image tower has a square of tokens.
    mesh: over which batches are sharded.
    image_size: S, the side of its images; None for a model without.
    batch_size: images per batch.
    normalize: pixels from 0 to 255 -> what the model takes.

  Raises:
    ValueError: if the tower has no square of tokens.
  """

  def __init__(
    self,
    definition: Definition,
    mesh: Mesh,
    image_size: int | None,
    batch_size: int,
    normalize: Callable = normalize,
  ):
    if image_size is None:
      raise ValueError(f"{_FIELD} takes a model of square images; leave 'segmentation' out")

    def tokens(parameters, images):
      return definition.bind(parameters).image_embedding(normalize(images))[2]

    shape = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.uint8)
    _, P, _ = jax.eval_shape(tokens, definition.shapes, shape).shape
    if (side := math.isqrt(P)) ** 2 != P or side < 2:
      raise ValueError(
        f'{_FIELD} takes a square of tokens, of 4 or more, and the image tower has {P}; leave '
        "'segmentation' out, or use a tower without a class token"
      )
    self._side, self._mesh, self._encode = side, mesh, jit_batched(tokens, mesh)
    self._batch_size = batch_size

  def __call__(
    self,
    parameters,
    probed: Split,
    splits: Mapping[str, Split],
    classes: Mapping[str, Mapping[str, str]],
  ) -> dict[str, float]:
    """Returns the mean IoU of every split: of drawings and background, and by fields of classes.

    Args:
      parameters: the model's.
      probed: drawings of the scenes to which the head is fitted.
      splits: those of the scenes that it is tested on, by name.
      classes: names by label, by field; splits without the field are left out.
    """
    metrics = {}
    for field in ('', *(field for field in classes if field in probed.fields)):
      numbers = {label: number for number, label in enumerate(classes[field] if field else ('',))}
      fitted = self._fit(parameters, _scenes(probed, field, numbers, TRAINING), len(numbers))
      for seed, (name, split) in enumerate(splits.items(), 1):
        if not field or field in split.fields:
          scenes = _scenes(split, field, numbers, TESTED, seed)
          found = segment(fitted(scenes.images), scenes.masks, len(numbers) + 1)
          metrics[f'{name}/{field and field + "_"}segmentation_mean_iou'] = found
    return metrics

  def _fit(self, parameters, scenes: Scenes, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Images -> logits of the tokens [N, side, side, K + 1], of a head fitted to scenes."""
    encode = partial(self._encode, parameters)

    def tokens(images):
      found = in_batches(encode, images, self._batch_size, self._mesh)
      return found.reshape(-1, found.shape[-1]).astype(np.float32)

    x, labels = tokens(scenes.images), cell_classes(scenes.masks, self._side, classes + 1).ravel()
    mean, std = x.mean(0), x.std(0) + 1e-6
    if classes > 1:
      labels = balance(labels)
    weights, bias = logistic_regression(
      *((x - mean) / std, labels, classes + 1, _L2 * np.sum(labels >= 0)), mesh=self._mesh
    )

    def logits(images):
      scores = (tokens(images) - mean) / std @ weights + bias
      return scores.reshape(len(images), self._side, self._side, -1)

    return logits


def _scenes(
  split: Split, field: str, numbers: Mapping[str, int], count: int, seed: int = 0
) -> Scenes:
  """Scenes of the drawings of a split whose label is known; of all as one class without a field."""
  given = split.fields[field] if field else [''] * len(split.images)
  labels = np.array([numbers.get(str(label), -1) for label in given])
  return compose(split.images, labels, count, seed)


def balance(labels: np.ndarray) -> np.ndarray:
  """Labels [N] with −1 for some of class 0, of which as many stay as of the others on average.

  >>> balance(np.array([0, 0, 0, 0, 1, 2]))
  array([-1, -1,  0, -1,  1,  2])
  """
  background = np.flatnonzero(labels == 0)
  count = np.sum(labels > 0) // max(1, len(np.unique(labels[labels > 0])))
  left_out = np.random.default_rng(0).permutation(background)[count:]
  labels = labels.copy()
  labels[left_out] = -1
  return labels


def cell_classes(masks: np.ndarray, side: int, classes: int) -> np.ndarray:
  """The class [N, side, side] of most pixels of each cell of masks [N, S, S]; of a tie the lowest.

  >>> cell_classes(np.array([[[1, 1, 0, 2], [1, 0, 0, 2]] * 2]), 2, 3)
  array([[[1, 0],
          [1, 0]]])
  """
  N, S, _ = masks.shape
  # A cell has whole pixels: those past the last multiple are left out, as for patches.
  cut = masks[:, : S - S % side, : S - S % side].reshape(N, side, S // side, side, S // side)
  counts = [np.sum(cut == k, axis=(2, 4)) for k in range(classes)]
  return np.argmax(np.stack(counts, -1), -1)


def segment(logits: np.ndarray, masks: np.ndarray, classes: int) -> float:
  """The mean intersection over union of predicted and true masks, over the classes that occur.

  Args:
    logits: [N, side, side, K] of the tokens, resized to the masks bilinearly.
    masks: [N, S, S] classes.
    classes: K.
  """
  pairs = np.zeros((classes, classes), np.int64)
  for start in range(0, len(masks), _AT_ONCE):
    part, true = logits[start : start + _AT_ONCE], masks[start : start + _AT_ONCE]
    found = np.asarray(jax.image.resize(part, (*true.shape, classes), 'bilinear')).argmax(-1)
    pairs += np.bincount((true * classes + found).ravel(), minlength=classes**2).reshape(
      pairs.shape
    )
  return mean_iou(pairs)


def mean_iou(pairs: Sequence[Sequence[int]] | np.ndarray) -> float:
  """The mean IoU over the classes that occur, of counts [K, K] of pixels by true and found class.

  >>> mean_iou([[3, 1, 0], [1, 3, 0], [0, 0, 0]])
  0.6
  """
  counts = np.asarray(pairs)
  both = np.diagonal(counts)
  union = counts.sum(0) + counts.sum(1) - both
  return float(np.mean(both[union > 0] / union[union > 0]))
