"""The task 'metric_learning': an encoder that is tested on classes that training never sees."""

import functools
import pathlib
from collections.abc import Callable

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from contrastive_jax.data.augmentation import check_strengths
from contrastive_jax.data.class_balanced import ClassBalanced
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation import metric_learning as metrics
from contrastive_jax.evaluation.batches import in_batches, jit_batched, one_device
from contrastive_jax.models.definition import Definition, define_from
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.tasks.fields import check_choices, check_ranges, fit_by
from contrastive_jax.tasks.labeled import LabeledImages, read_labeled
from contrastive_jax.tasks.metrix import LEVELS, LOSSES, Embedder, embed_mixtures, metrix_loss
from contrastive_jax.training.fit import Fit, learn
from contrastive_jax.training.optimizer import make_schedule
from contrastive_jax.training.rules import COUNT, NOT_NEGATIVE, POSITIVE

_RULES = {
  'batch.classes': COUNT._replace(low=2),
  'batch.examples': COUNT._replace(low=2),
  'mixup.weight': NOT_NEGATIVE,
  'mixup.anchor_weight': NOT_NEGATIVE,
  'mixup.alpha': POSITIVE,
  'optimizer.learning_rate': POSITIVE,
  'optimizer.weight_decay': NOT_NEGATIVE,
  'model.embed': COUNT,
  'model.image.size': COUNT,
  'total_steps': COUNT,
}
_PART = 256  # images that are embedded at once
_MIXED_BATCHES = 16  # whose mixtures are embedded for the utilization


def open_metric_learning(config: ConfigDict) -> Callable[[pathlib.Path], dict[str, float]]:
  """Opens the task, see `tasks.TASKS`.

  Raises:
    ValueError: if a field cannot work, or a class is in both splits.
  """
  _check(config)
  read = functools.partial(read_labeled, config.data.name, field=config.data.labels)
  size, folder = config.model.image.size, config.data.folder or None
  train = read(config.data.split, size=size, folder=folder)
  test = read(config.data.test_split, size=size, folder=folder)
  if shared := sorted({*train.classes} & {*test.classes}):
    raise ValueError(
      f'config.data.test_split = {config.data.test_split!r} has the {config.data.labels} '
      f'{shared[0]!r} of config.data.split; select other classes, such as SPLIT[FIELD%2=0]'
    )
  try:
    sample = ClassBalanced(train.labels, **config.batch.to_dict(), seed=config.seed)
  except ValueError as error:
    raise ValueError(f'config.batch: {error}') from error
  definition = _define(config, len(train.classes))
  schedule = make_schedule(
    learning_rate=config.optimizer.learning_rate,
    warmup_fraction=config.optimizer.warmup_fraction,
    total_steps=config.total_steps,
  )
  optimizer = optax.adamw(schedule, weight_decay=config.optimizer.weight_decay)
  init, step = learn(definition, optimizer, functools.partial(metrix_loss, config=config))

  def batch(number: int) -> dict[str, np.ndarray]:
    rows = sample(number)
    return {'image': train.images[rows], 'label': train.labels[rows]}

  def run(workdir: pathlib.Path) -> dict[str, float]:
    state = fit_by(config, Fit(init, step, batch), workdir)
    mixed = [batch(config.total_steps + number) for number in range(_MIXED_BATCHES)]
    return evaluate(definition, state.evaluated, train, test, mixed, config)

  return run


def _define(config: ConfigDict, classes: int) -> Definition:
  """Defines an `Embedder`; raises ValueError for a field that its encoder does not take."""
  model, proxies = config.model.to_dict(), classes if config.loss == 'proxy_anchor' else 0
  try:
    return define_from(lambda key: Embedder(model, proxies, rngs=ParameterKeys(key)))
  except TypeError as error:
    raise ValueError(f'config.model does not fit Encoder: {error}') from error


def evaluate(
  definition: Definition, parameters, train: LabeledImages, test: LabeledImages, batches, config
) -> dict[str, float]:
  """Recall, NMI and utilization on the test classes.

  Args:
    definition: of an `Embedder`.
    parameters: its parameters.
    train: images whose embeddings the utilization is of.
    test: images of other classes.
    batches: class-balanced batches of training images, whose mixtures join them.
    config: the config.
  """
  mesh = one_device()
  embed = functools.partial(
    jit_batched(lambda given, x: definition.bind(given)(normalize(x))['embedding'], mesh),
    parameters,
  )

  @jax.jit
  def embed_mixed(parameters, images, key):
    module = definition.bind(parameters)
    return embed_mixtures(key, module, module(normalize(images)), config)[0]

  found, reference = (in_batches(embed, each.images, _PART, mesh) for each in (test, train))
  clusters = metrics.k_means(found, len(test.classes), seed=config.seed)
  results = metrics.recall_by_class(found, test.labels) | {
    'nmi': metrics.normalized_mutual_information(clusters, test.labels),
    'utilization': metrics.utilization(found, reference),
  }
  if config.mixup.level != 'none':
    keys = jax.random.split(jax.random.key(config.seed), len(batches))
    mixed = [
      embed_mixed(parameters, batch['image'], key) for batch, key in zip(batches, keys, strict=True)
    ]
    joined = np.concatenate([reference, *mixed])
    results['utilization_with_mixtures'] = metrics.utilization(found, joined)
  return {f'test/{name}': value for name, value in results.items()}


def _check(config: ConfigDict) -> None:
  """Raises ValueError for a value that cannot work."""
  check_choices(config, {'loss': sorted(LOSSES), 'mixup.level': LEVELS})
  check_ranges(config, _RULES)
  check_strengths(config.augmentation.to_dict())
