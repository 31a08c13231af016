"""Few-shot classification in episodes, on classes that training never sees."""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from contrastive_jax import losses
from contrastive_jax.data.augmentation import augment
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.batches import in_batches, jit_batched
from contrastive_jax.losses.labels.distancia import distance
from contrastive_jax.models.definition import define
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.tasks.fields import check_ranges, fit_by
from contrastive_jax.tasks.labeled import LabeledImages, read_labeled
from contrastive_jax.training.fit import Fit, learn
from contrastive_jax.training.rules import COUNT, NOT_NEGATIVE, POSITIVE

LOSSES = ('cross_entropy', 'proto_triplet', 'support_icnn', 'query_icnn', 'icnn')
Results = dict[str, float]
_SECOND = COUNT._replace(low=2)
_RULES = {
  'total_steps': COUNT,
  'neighbors': COUNT,
  'margin': NOT_NEGATIVE,
  'episodes.way': _SECOND,
  'episodes.shot': COUNT,
  'episodes.queries': COUNT,
  'evaluation.way': _SECOND,
  'evaluation.queries': COUNT,
  'evaluation.episodes': _SECOND,
  'evaluation.shots': COUNT._replace(each=True),
  'optimizer.learning_rate': POSITIVE,
}


def open_episodes(config: ConfigDict) -> Callable[[pathlib.Path], Results]:
  """The task 'episodes': an image tower trained by N-way K-shot episodes.

  The loss of an episode is the mean of `config.objective`, some of `LOSSES`: the cross entropy of
  queries by their squared distances to the prototypes [1], `losses.proto_triplet`, and
  `losses.icnn` of the support, of the queries among the support, and of both together.

  The classes, in order of their names, are dealt to `config.data.folds` folds. Those of
  `config.data.test_fold` are never trained on; episodes of them test the tower.

  References:
    [1] Snell et al., Prototypical Networks for Few-shot Learning, 2017,
      https://arxiv.org/abs/1703.05175.

  Raises:
    ValueError: if a loss is unknown, or there are too few classes or images for an episode.
  """
  check_ranges(config, _RULES)
  if not config.objective or {*config.objective} - {*LOSSES}:
    raise ValueError(f'config.objective = {tuple(config.objective)}; use some of {LOSSES}')
  definition = define('encoder', **_encoder(config))
  given = config.data

  def read(size: int) -> LabeledImages:
    names = given.name, given.split, given.labels
    return read_labeled(*names, size=size, folder=given.folder or None)

  folds = given.folds, given.train_folds, given.test_fold
  train, _ = part_classes(read(given.size), *folds)
  _, test = part_classes(read(config.model.image.size), *folds)
  size = config.episodes.way, config.episodes.shot + config.episodes.queries
  of_test = config.evaluation.way, max(config.evaluation.shots) + config.evaluation.queries
  train = _enough(train, *size, 'config.episodes')
  test = _enough(test, *of_test, 'config.evaluation')

  def run(folder: pathlib.Path) -> Results:
    init, step = learn(definition, _optimizer(config), functools.partial(episode_loss, config))
    task = Fit(init, step, lambda n: {'images': draw(train, *size, (config.seed, n)).images})
    state = fit_by(config, task, folder)
    mesh = make_mesh('data:-1')
    features = embed(definition, state.evaluated, test.images, mesh)
    found = {}
    for shot in config.evaluation.shots:
      found |= accuracy(features, test.labels, shot, config.evaluation)
    return found

  return run


def part_classes(
  found: LabeledImages, folds: int, train: Sequence[int], test: int
) -> tuple[LabeledImages, LabeledImages]:
  """The images of the classes to train on, and of those to test with.

  Args:
    found: images of all classes, which are dealt to the folds in turn.
    folds: number of folds.
    train: the folds to train on.
    test: the fold to test with.

  Raises:
    ValueError: if a fold is out of range, or is for both.
  """
  if not train or test in train or not {*train, test} <= {*range(folds)}:
    raise ValueError(
      f'config.data.train_folds = {tuple(train)} and test_fold = {test} of {folds} folds; use '
      f'different ones from 0 to {folds - 1}'
    )
  dealt = [name for n, name in enumerate(found.classes) if n % folds in train]
  return found.of(dealt), found.of(found.classes[test::folds])


def draw(found: LabeledImages, way: int, count: int, seed: tuple[int, ...]) -> LabeledImages:
  """An episode: `count` images of each of `way` classes, numbered from 0, class by class."""
  random = np.random.default_rng(seed)
  classes = random.choice(len(found.classes), way, replace=False)
  rows = [
    random.choice(np.flatnonzero(found.labels == label), count, replace=False) for label in classes
  ]
  names = tuple(found.classes[label] for label in classes)
  labels = np.arange(way, dtype=np.int32).repeat(count)
  return LabeledImages(found.images[np.concatenate(rows)], labels, names)


def episode_loss(
  config: ConfigDict, module: Any, batch: Mapping[str, jax.Array], key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of an episode, and its terms with the accuracy of the queries."""
  way, shot = config.episodes.way, config.episodes.shot
  keys = jax.random.split(key, len(batch['images']))
  strengths = config.augmentation.to_dict()
  images = augment(keys, batch['images'], config.model.image.size, strengths)
  features = module.image(normalize(images))[0].astype(jnp.float32)
  by_class = features.reshape(way, -1, features.shape[1])
  support, queries = by_class[:, :shot], by_class[:, shot:]
  prototypes = jnp.mean(support, 1)
  support, queries = (part.reshape(-1, part.shape[-1]) for part in (support, queries))
  of_support, of_queries = (jnp.arange(way).repeat(len(x) // way) for x in (support, queries))
  logits = -(distance(queries[:, None], prototypes) ** 2)
  everything = jnp.arange(way).repeat(len(features) // way)
  k = config.neighbors
  terms: dict[str, Callable[[], jax.Array]] = {
    'cross_entropy': lambda: jnp.mean(
      optax.softmax_cross_entropy_with_integer_labels(logits, of_queries)
    ),
    'proto_triplet': lambda: losses.proto_triplet(
      queries, of_queries, prototypes, margin=config.margin
    ),
    'support_icnn': lambda: losses.icnn(support, of_support, neighbors=k),
    'query_icnn': lambda: losses.icnn(queries, of_queries, support, of_support, neighbors=k),
    'icnn': lambda: losses.icnn(
      features, everything, neighbors=k, candidates=max(k + 1, len(features) // way)
    ),
  }
  metrics = {name: terms[name]() for name in config.objective}
  loss = sum(metrics.values()) / len(metrics)
  return loss, metrics | {'accuracy': jnp.mean(jnp.argmax(logits, 1) == of_queries)}


def embed(definition, parameters, images: np.ndarray, mesh: Mesh) -> np.ndarray:
  """Features [N, W] of images [N, S, S, 3] with pixels from 0 to 255."""

  def features(parameters, pixels):
    return definition.bind(parameters).image(normalize(pixels))[0].astype(jnp.float32)

  return in_batches(functools.partial(jit_batched(features, mesh), parameters), images, 256, mesh)


def accuracy(features: np.ndarray, labels: np.ndarray, shot: int, fields: ConfigDict) -> Results:
  """The accuracy of the nearest prototype over random episodes, and its 95% interval's half.

  Args:
    features: [N, W].
    labels: [N].
    shot: examples per prototype.
    fields: `config.evaluation`, with `way`, `queries`, `episodes` and `seed`.
  """
  rows = LabeledImages(np.arange(len(labels)), labels, tuple(map(str, range(labels.max() + 1))))
  found = []
  for number in range(fields.episodes):
    chosen = draw(rows, fields.way, shot + fields.queries, (fields.seed, number)).images
    episode = features[chosen].reshape(fields.way, -1, features.shape[1])
    prototypes, queries = episode[:, :shot].mean(1), episode[:, shot:]
    distances = ((queries[:, :, None] - prototypes) ** 2).sum(-1)
    found.append(np.mean(distances.argmin(-1) == np.arange(fields.way)[:, None]))
  half = 1.96 * np.std(found) / math.sqrt(len(found))
  name = f'{fields.way}_way_{shot}_shot_accuracy'
  return {name: float(np.mean(found)), f'{name}_interval': float(half)}


def _encoder(config: ConfigDict) -> dict[str, Any]:
  """The fields of an encoder without projector, whose tower the task trains."""
  image = config.model.image.to_dict()
  width = 32 * image['width'] if image.get('tower') == 'resnet' else image['width']
  return {'embed': width, 'image': image}


def _optimizer(config: ConfigDict) -> optax.GradientTransformation:
  fields = config.optimizer
  schedule = optax.cosine_decay_schedule(fields.learning_rate, config.total_steps)
  return optax.adamw(schedule, weight_decay=fields.weight_decay)


def _enough(found: LabeledImages, way: int, count: int, field: str) -> LabeledImages:
  """The classes with enough images for an episode.

  Raises:
    ValueError: if these are fewer than an episode has.
  """
  counts = np.bincount(found.labels, minlength=len(found.classes))
  kept = [name for name, number in zip(found.classes, counts, strict=True) if number >= count]
  if not 2 <= way <= len(kept):
    raise ValueError(
      f'{field}.way = {way}: {len(kept)} classes have the {count} images of an episode; use 2 to '
      f'{len(kept)}, or fewer shots and queries'
    )
  return found.of(kept)
