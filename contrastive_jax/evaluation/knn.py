"""k-NN classification."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from contrastive_jax.evaluation.batches import compare, jit_batched, one_device
from contrastive_jax.evaluation.zero_shot import classify


class KNN(NamedTuple):
  """k-NN classifier: the k nearest examples vote with weight exp(cosine / temperature) [1].

  Attributes:
    features: [N, D] unit vectors.
    labels: N labels.
    mesh: mesh over which queries are sharded; None for one device.
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
    mesh = self.mesh or one_device()
    k = min(self.k, len(numbers))
    examples = np.asarray(self.features, np.float32), numbers
    vote = _voter(mesh, k, self.temperature, len(classes))
    return classes, compare(vote, examples, np.asarray(features, np.float32), mesh)

  def metrics(self, features: np.ndarray, labels: Sequence) -> dict[str, float]:
    """Returns the accuracy of the class with most votes, and the mean per-class recall."""
    classes, votes = self.votes(features)
    own = classify(votes, np.eye(len(classes)), labels, classes, [1], mesh=self.mesh)
    return {
      'neighbours_accuracy': own['accuracy@1'],
      'neighbours_mean_per_class_recall': own['mean_per_class_recall'],
    }


@functools.cache
def _voter(mesh: Mesh, k: int, temperature: float, classes: int) -> Callable:
  def vote(examples, features):
    vectors, numbers = examples
    scores, rows = lax.top_k(jnp.dot(features, vectors.T, precision='highest'), k)
    # Weights are relative to that of the nearest example, which is 1 at any temperature.
    weights = jnp.exp((scores - scores[:, :1]) / temperature)
    return jnp.einsum('bn,bnk->bk', weights, jax.nn.one_hot(numbers[rows], classes))

  return jit_batched(vote, mesh)
