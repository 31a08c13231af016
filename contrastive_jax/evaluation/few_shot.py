"""Few-shot classification: images against the means of a few labeled ones."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from contrastive_jax.evaluation.zero_shot import classify, unit


class Prototypes(NamedTuple):
  """Few shots: a class is the mean of a few of its examples, drawn at random [1].

  Attributes:
    features: [N, D] unit vectors.
    labels: N labels.
    mesh: over which what is classified is cut; None for one device.
    shots: examples a class; a class that has fewer gives all.
    draws: over which the accuracy is averaged.
    seed: of the draws.

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
    """The K classes in order, and the unit prototypes of one draw, [K, D]."""
    labels = np.array(self.labels)
    order = np.random.default_rng([self.seed, number]).permutation(len(labels))
    classes = sorted(set(self.labels))
    rows = [order[labels[order] == label][:shots] for label in classes]
    return classes, unit(np.stack([self.features[own].mean(axis=0) for own in rows]))

  def figures(self, features: np.ndarray, labels: Sequence) -> dict[str, float]:
    """The accuracy of the nearest prototype by the number of shots."""

    def accuracy(shots, number):
      classes, prototypes = self.draw(shots, number)
      return classify(features, prototypes, labels, classes, [1], mesh=self.mesh)['accuracy@1']

    return {
      f'{shots}_shot_accuracy': float(np.mean([accuracy(shots, n) for n in range(self.draws)]))
      for shots in self.shots
    }
