"""Classifiers over an image tower: the attentional-pooler probe, and finetuning.

Both use one model, CoCa's: a pooler with one learned query over the tower's tokens, and a linear
layer. The optimizer's rates and `training.rates.frozen` freeze the tower for the probe, and nothing
for finetuning.

Source: Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.batches import in_batches, jit_batched
from contrastive_jax.models.definition import Definition, define_from, join_statistics
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.pooler import AttentionalPooler
from contrastive_jax.sharding.mesh import batch_sharding, batch_shards, on_mesh


class Classifier(nnx.Module):
  """Classifies images into K classes by the tokens of an image tower.

  Args:
    image: the image tower.
    classes: number of classes, K.
    heads: number of heads of the pooler; 0 for the tower's own pooled vectors.
    rngs: initializes the pooler; the linear layer starts at zero.
  """

  def __init__(self, image: nnx.Module, classes: int, heads: int, *, rngs: nnx.Rngs):
    width = image.width
    make = {'dtype': jnp.float32, 'rngs': rngs}
    self.image = image
    self.pooler = AttentionalPooler(1, width, width, heads, **make) if heads else None
    self.head = Linear(width, classes, ('embed', None), 0.0, **make)

  def __call__(self, images):
    """Maps images [B, H, W, 3] to logits [B, K]."""
    pooled, tokens = self.image(images)
    return self.head(pooled if self.pooler is None else self.pooler(tokens)[:, 0])


def define_classifier(definition: Definition, classes: int, heads: int) -> Definition:
  """Defines a `Classifier` over the image tower of a model."""

  def create(key):
    tower_key, pooler_key = jax.random.split(key)
    image = definition.bind(definition.init(tower_key)).image
    return Classifier(image, classes, heads, rngs=ParameterKeys(pooler_key))

  return define_from(create)


def fit(
  classifier: Definition,
  parameters,
  optimizer: optax.GradientTransformation,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  steps: int,
  batch_size: int,
  mesh: Mesh,
  augment: Callable[[jax.Array, jax.Array], jax.Array] = lambda keys, images: images,
  normalize: Callable = normalize,
  seed: int = 0,
):
  """Trains a classifier by cross-entropy; batch norm keeps its running statistics.

  Args:
    classifier: from `define_classifier`, with frozen parts held by `training.rates.frozen`.
    parameters: initial parameters; not modified.
    optimizer: an optax transformation.
    images: [N, H, H, 3] pixels from 0 to 255.
    labels: [N] integers from 0 to K - 1.
    steps: number of updates.
    batch_size: number of examples, B.
    mesh: mesh over which batches are sharded.
    augment: (keys [B], images [B, H, H, 3]) -> images [B, S, S, 3], pixels.
    normalize: pixels from 0 to 255 -> what the tower takes; default CLIP's.
    seed: seed of the order and of the augmentation.

  Returns:
    The trained parameters.

  Raises:
    ValueError: if the mesh does not divide a batch, or a batch exceeds the examples.
    FloatingPointError: if the last loss is not finite.
  """
  if batch_size % batch_shards(mesh) or batch_size > len(images):
    raise ValueError(
      f'batch_size = {batch_size} does not suit {len(images)} examples on {batch_shards(mesh)} '
      'data shards; use a multiple of the latter, up to the former'
    )

  trained, statistics = classifier.part(parameters)

  def step(trained, state, key, pixels, labels):
    batch = normalize(augment(jax.random.split(key, len(pixels)), pixels))

    def loss(trained):
      logits = classifier.bind(join_statistics(trained, statistics))(batch)
      return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, gradients = jax.value_and_grad(loss)(trained)
    updates, state = optimizer.update(gradients, state, trained)
    return optax.apply_updates(trained, updates), state, value

  step = jax.jit(on_mesh(step, mesh))
  key, sharding = jax.random.key(seed), batch_sharding(mesh)
  state = optimizer.init(trained)
  for number, rows in zip(range(steps), _rows(len(images), batch_size, seed), strict=False):
    batch = jax.device_put((images[rows], labels[rows]), sharding)
    trained, state, loss = step(trained, state, jax.random.fold_in(key, number), *batch)
  if not np.isfinite(loss):
    raise FloatingPointError(f'the loss of step {steps} is {loss}; try a lower learning rate')
  return join_statistics(trained, statistics)


def classify(
  classifier: Definition,
  parameters,
  images: np.ndarray,
  *,
  batch_size: int,
  mesh: Mesh,
  normalize: Callable = normalize,
) -> np.ndarray:
  """Returns the most likely class of each image [N, S, S, 3], integers [N]; see `fit`."""
  options = {'batch_size': batch_size, 'mesh': mesh, 'normalize': normalize}
  return _apply(partial(jnp.argmax, axis=-1), classifier, parameters, images, **options)


def probabilities(
  classifier: Definition,
  parameters,
  images: np.ndarray,
  *,
  batch_size: int,
  mesh: Mesh,
  normalize: Callable = normalize,
) -> np.ndarray:
  """Returns the probabilities [N, K] of the classes of images [N, S, S, 3]; see `fit`."""
  options = {'batch_size': batch_size, 'mesh': mesh, 'normalize': normalize}
  return _apply(jax.nn.softmax, classifier, parameters, images, **options)


def _apply(function, classifier, parameters, images, *, batch_size, mesh, normalize):
  """Applies a function to the logits of images, batch by batch."""

  def applied(parameters, pixels):
    return function(classifier.bind(parameters)(normalize(pixels)))

  return in_batches(partial(jit_batched(applied, mesh), parameters), images, batch_size, mesh)


def _rows(number: int, batch_size: int, seed: int):
  """Yields the rows of batches, in a new order each epoch; the remainder of an epoch is dropped."""
  random = np.random.default_rng(seed)
  while True:
    order = random.permutation(number)
    for start in range(0, number - batch_size + 1, batch_size):
      yield order[start : start + batch_size]
