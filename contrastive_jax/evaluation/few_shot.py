"""Few-shot classification by prototypes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from contrastive_jax.evaluation.zero_shot import classify, unit


class FewShot(NamedTuple):
  """Few-shot classifier: the prototype of a class is the mean of a few random examples [1].

  Attributes:
    features: [N, D] unit vectors.
    labels: N labels.
    mesh: mesh over which queries and candidates are sharded; None for one device.
    shots: numbers of examples per class; a smaller class contributes all of its examples.
    draws: number of random draws over which the accuracy is averaged.
    seed: seed of the draws.

  References:
    [1] Snell et al., Prototypical Networks for Few-shot Learning, 2017.
  """

  features: np.ndarray
  labels: Sequence
  mesh: Mesh | None = None
  shots: Sequence[int] = (1, 4, 16)
  draws: int = 10
  seed: int = 0

  def draw(self, shots: int, number: int) -> tuple[list, np.ndarray]:
    """Returns the K classes in order, and the unit prototypes of one draw, [K, D]."""
    labels = np.array(self.labels)
    order = np.random.default_rng([self.seed, number]).permutation(len(labels))
    classes = sorted(set(self.labels))
    rows = [order[labels[order] == label][:shots] for label in classes]
    return classes, unit(np.stack([self.features[own].mean(axis=0) for own in rows]))

  def metrics(self, features: np.ndarray, labels: Sequence) -> dict[str, float]:
    """Returns the accuracy of the nearest prototype for each number of shots."""

    def accuracy(shots, number):
      classes, prototypes = self.draw(shots, number)
      return classify(features, prototypes, labels, classes, [1], mesh=self.mesh)['accuracy@1']

    return {
      f'{shots}_shot_accuracy': float(np.mean([accuracy(shots, n) for n in range(self.draws)]))
      for shots in self.shots
    }
