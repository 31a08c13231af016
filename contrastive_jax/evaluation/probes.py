"""The linear probe: logistic regression on the features of a frozen encoder."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from contrastive_jax.evaluation.zero_shot import mean_per_class
from contrastive_jax.sharding.mesh import batch_shards, place_whole

_MAX_STEPS = 1000
_GRADIENT_TOLERANCE = 1e-5  # on the largest gradient; float32 gains little beyond


class LinearProbe(NamedTuple):
  """A linear classifier.

  Attributes:
    classes: K labels.
    weights: [D, K]
    bias: [K]
    l2: strength of the L2 penalty of its fit.
  """

  classes: list
  weights: np.ndarray
  bias: np.ndarray
  l2: float

  def accuracy(self, features: np.ndarray, labels: Sequence) -> float:
    """Returns the accuracy on features [N, D]; a label outside `classes` counts as wrong."""
    return float(self._right(features, labels).mean())

  def metrics(self, features: np.ndarray, labels: Sequence) -> dict[str, float]:
    """Returns the accuracy and the mean per-class recall."""
    right = self._right(features, labels)
    return {
      'linear_probe_accuracy': float(right.mean()),
      'linear_probe_mean_per_class_recall': mean_per_class(right, labels),
    }

  def _right(self, features, labels):
    predicted = np.argmax(features @ self.weights + self.bias, axis=1)
    pairs = zip(predicted, labels, strict=True)
    return np.array([self.classes[k] == label for k, label in pairs])


def linear_probe(
  features: np.ndarray,
  labels: Sequence,
  *,
  validation: tuple[np.ndarray, Sequence] | None = None,
  seed: int = 0,
  mesh: Mesh | None = None,
) -> LinearProbe:
  """Fits a linear probe by CLIP's protocol [1].

  `search_l2` finds the L2 strength with the highest validation accuracy; the probe is then fitted
  to all examples, including the validation set.

  Args:
    features: [N, D]
    labels: N of any type that sorts.
    validation: features and labels; by default a random fifth of the examples is split off.
    seed: seed of that split.
    mesh: mesh over which the examples are sharded; None for one device.

  Raises:
    ValueError: if there are fewer than two classes, or features and labels differ in number.

  References:
    [1] Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
  """
  if len(features) != len(labels):
    raise ValueError(f'{len(features)} features do not go with {len(labels)} labels')
  if validation is None:
    order = np.random.default_rng(seed).permutation(len(labels))
    held = order[: max(1, len(labels) // 5)]
  else:
    held = len(labels) + np.arange(len(validation[1]))
    features, labels = np.concatenate([features, validation[0]]), [*labels, *validation[1]]
  classes = sorted(set(labels))
  if len(classes) < 2:
    raise ValueError(f'a probe tells classes apart, and the labels are all of {classes}')

  codes = {label: code for code, label in enumerate(classes)}
  numbers = np.array([codes[label] for label in labels], np.int32)
  training = numbers.copy()
  training[held] = -1  # masks the validation set without another shape to compile

  def fit(numbers, l2):
    weights, bias = logistic_regression(features, numbers, len(classes), l2, mesh=mesh)
    return LinearProbe(classes, weights, bias, l2)

  held_out = features[held], [labels[row] for row in held]
  return fit(numbers, search_l2(lambda l2: fit(training, l2).accuracy(*held_out)))


def search_l2(score: Callable[[float], float]) -> float:
  """Searches the L2 strength between 10^-6 and 10^6 with the highest score, as CLIP's authors do.

  Starting from every second power of ten, the interval around the best is halved, down to eight
  strengths per decade: 15 of the 97 are evaluated. Ties go to the first one evaluated.

  Args:
    score: strength -> score to maximize.
  """
  scores = {float(power): score(10.0**power) for power in range(-6, 7, 2)}
  step = 2.0
  while step > 1 / 8:
    step /= 2
    best = max(scores, key=scores.get)
    for power in (best - step, best + step):
      if -6 <= power <= 6 and power not in scores:
        scores[power] = score(10.0**power)
  return 10.0 ** max(scores, key=scores.get)


def logistic_regression(
  features: np.ndarray, labels: np.ndarray, classes: int, l2: float, *, mesh: Mesh | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Multinomial logistic regression, fitted by L-BFGS.

      minimize  Σᵢ −log softmax(xᵢ W + b)[yᵢ] + ½ l2 ‖W‖²,

  as scikit-learn's LogisticRegression(C=1 / l2). The bias is not penalized.

  Args:
    features: N rows x, [N, D].
    labels: [N] integers y from 0 to K - 1; rows of −1 are ignored.
    classes: number of classes, K.
    l2: strength.
    mesh: mesh over which the examples are sharded; None for one device.

  Returns:
    W [D, K] and b [K], float32.
  """
  features, labels = np.asarray(features, np.float32), np.asarray(labels, np.int32)
  if mesh is not None:
    missing = -len(labels) % batch_shards(mesh)
    features = np.pad(features, [(0, missing), (0, 0)])
    labels = np.pad(labels, (0, missing), constant_values=-1)
    features, labels = place_whole((features, labels), mesh)
  return jax.device_get(_minimize(features, labels, l2, classes))


@jax.jit(static_argnums=3)
def _minimize(features, labels, l2, classes):
  targets = jax.nn.one_hot(labels, classes)
  number = jnp.sum(labels >= 0)

  def objective(parameters):
    weights, bias = parameters
    logits = jnp.dot(features, weights, precision='highest') + bias
    entropy = -jnp.sum(targets * jax.nn.log_softmax(logits))
    return (entropy + 0.5 * l2 * jnp.sum(weights**2)) / number

  solver = optax.lbfgs()
  value_and_gradient = optax.value_and_grad_from_state(objective)

  def step(carry):
    parameters, state = carry
    value, gradient = value_and_gradient(parameters, state=state)
    updates, state = solver.update(
      gradient, state, parameters, value=value, grad=gradient, value_fn=objective
    )
    return optax.apply_updates(parameters, updates), state

  def unfinished(carry):
    _, state = carry
    count = optax.tree.get(state, 'count')
    largest = optax.tree.norm(optax.tree.get(state, 'grad'), ord=jnp.inf)
    return (count == 0) | ((count < _MAX_STEPS) & (largest > _GRADIENT_TOLERANCE))

  start = jnp.zeros((features.shape[1], classes)), jnp.zeros(classes)
  return jax.lax.while_loop(unfinished, step, (start, solver.init(start)))[0]
