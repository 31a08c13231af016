"""Few-shot classification in episodes, on classes that training never sees."""

import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from contrastive_jax import data, losses
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

  The values of `config.data.parted_by`, the classes or what several of them share, are dealt to
  `config.data.folds` folds in order of their names. Classes of `config.data.test_fold` are never
  trained on; episodes of them test the tower.

  References:
    [1] Snell et al., Prototypical Networks for Few-shot Learning, 2017,
      https://arxiv.org/abs/1703.05175.

  Raises:
    ValueError: if a loss is unknown, a class is of two folds, or an episode has more classes or
      images than there are.
  """
  check_ranges(config, _RULES)
  if not config.objective or {*config.objective} - {*LOSSES}:
    raise ValueError(f'config.objective = {tuple(config.objective)}; use some of {LOSSES}')
  definition = define('encoder', **_encoder(config))
  given = config.data

  def read(size: int) -> LabeledImages:
    names = given.name, given.split, given.labels
    return read_labeled(*names, size=size, folder=given.folder or None)

  folds = given.folds, given.train_folds, given.test_fold, _groups(given)
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
  found: LabeledImages,
  folds: int,
  train: Sequence[int],
  test: int,
  groups: Mapping[str, str] = MappingProxyType({}),
) -> tuple[LabeledImages, LabeledImages]:
  """The images of the classes to train on, and of those to test with.

  Args:
    found: images of all classes.
    folds: number of folds, to which groups are dealt in turn, in order of their names.
    train: the folds to train on.
    test: the fold to test with.
    groups: that of each class; a class that is not in it is one of its own.

  Raises:
    ValueError: if a fold is out of range, or is for both.
  """
  if not train or test in train or not {*train, test} <= {*range(folds)}:
    raise ValueError(
      f'config.data.train_folds = {tuple(train)} and test_fold = {test} of {folds} folds; use '
      f'different ones from 0 to {folds - 1}'
    )
  own = [groups.get(name, name) for name in found.classes]
  fold = {group: n % folds for n, group in enumerate(sorted(set(own)))}
  dealt = {name: fold[group] for name, group in zip(found.classes, own, strict=True)}
  trained = [name for name in found.classes if dealt[name] in train]
  return found.of(trained), found.of([name for name in found.classes if dealt[name] == test])


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


def _groups(given: ConfigDict) -> dict[str, str]:
  """The value of `config.data.parted_by` of each class; {} where it is the class.

  Raises:
    ValueError: if a class has two.
  """
  if given.parted_by == given.labels:
    return {}
  source = data.open_source(given.name, given.split, given.folder or None)
  groups: dict[str, str] = {}
  fields = (map(str, source.values(field)) for field in (given.labels, given.parted_by))
  for name, group in zip(*fields, strict=True):
    if groups.setdefault(name, group) != group:
      raise ValueError(
        f'config.data.parted_by = {given.parted_by!r}: the {given.labels} {name!r} has '
        f'{groups[name]!r} and {group!r}; use a field with one value per class, or '
        f'{given.labels!r}'
      )
  return groups


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
