"""k-NN classification."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from contrastive_jax.evaluation.neighbors import nearest
from contrastive_jax.evaluation.zero_shot import classify


class KNN(NamedTuple):
  """k-NN classifier: the k nearest examples vote with weight exp(cosine / temperature) [1].

  Attributes:
    features: [N, D] unit vectors.
    labels: N labels.
    mesh: mesh over which queries and examples are sharded; None for one device.
    k: number of neighbors, at most N.
    temperature: temperature of the votes' weights.

  References:
    [1] Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018.
  """

  features: np.ndarray
  labels: Sequence
  mesh: Mesh | None = None
  k: int = 20
  temperature: float = 0.07

  def votes(self, features: np.ndarray) -> tuple[list, np.ndarray]:
    """Returns the K classes in order, and the votes [M, K] of features [M, D]."""
    classes = sorted(set(self.labels))
    codes = {label: code for code, label in enumerate(classes)}
    numbers = np.array([codes[label] for label in self.labels], np.int32)
    scores, rows = nearest(features, self.features, min(self.k, len(numbers)), mesh=self.mesh)
    with np.errstate(invalid='ignore'):  # NaN where an example has no neighbor
      # Weights are relative to that of the nearest example, which is 1 at any temperature.
      weights = np.exp((scores - scores[:, :1]) / self.temperature)
    votes = np.zeros((len(rows), len(classes)), np.float32)
    np.add.at(votes, (np.arange(len(rows))[:, None], numbers[rows]), weights)
    return classes, votes

  def metrics(self, features: np.ndarray, labels: Sequence) -> dict[str, float]:
    """Returns the accuracy of the class with most votes, and the mean per-class recall."""
    classes, votes = self.votes(features)
    own = classify(votes, np.eye(len(classes)), labels, classes, [1], mesh=self.mesh)
    return {
      'neighbours_accuracy': own['accuracy@1'],
      'neighbours_mean_per_class_recall': own['mean_per_class_recall'],
    }
