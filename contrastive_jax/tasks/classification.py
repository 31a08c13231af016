"""Classification of images, by cross-entropy or with mixtures of images, and its calibration.

Mixup [1] trains on mixtures alone; RankMixup [2] trains on the images, and ranks the confidences of
their mixtures, see `losses.mrl` and `losses.m_ndcg`.

References:
  [1] Zhang et al., mixup: Beyond Empirical Risk Minimization, 2018, https://arxiv.org/abs/1710.09412.
  [2] Noh et al., RankMixup: Ranking-Based Mixup Training for Network Calibration, 2023,
    https://arxiv.org/abs/2308.11990.
"""

import functools
import io
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from contrastive_jax import data, losses
from contrastive_jax.data.augmentation import augment, check_strengths
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation import calibration, finetuning
from contrastive_jax.evaluation.batches import one_device
from contrastive_jax.losses.labels.mixing import mix
from contrastive_jax.losses.labels.rank_mixup import largest_shares
from contrastive_jax.models import towers
from contrastive_jax.models.definition import Definition, define_from
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.tasks.fields import check_choices, check_ranges, fit_by
from contrastive_jax.tasks.labeled import read_labeled
from contrastive_jax.training.fit import Fit, learn
from contrastive_jax.training.optimizer import make_optimizer, make_schedule
from contrastive_jax.training.rules import COUNT, NOT_NEGATIVE, POSITIVE

LOSSES = ('cross_entropy', 'mixup', 'mrl', 'm_ndcg')
PREDICTIONS = 'predictions.npz'  # in the workdir of a finished run

_RULES = {
  'total_steps': COUNT,
  'batch_size': COUNT,
  'data.size': COUNT,
  'loss.weight': NOT_NEGATIVE,
  'loss.margin': NOT_NEGATIVE,
  'loss.alpha': POSITIVE,
  'loss.copies': COUNT,
  'evaluation.batch_size': COUNT,
  'evaluation.bins': COUNT,
}


def open_classification(config) -> Callable[[pathlib.Path], Mapping[str, float]]:
  """Opens the task of a config such as configs/methods/rankmixup.py, see `tasks.TASKS`.

  The run returns `calibration.metrics` of each split of `config.evaluation.splits`. It writes
  predictions.npz, with `SPLIT/confidence`, of the predicted classes, and `SPLIT/right`.

  Raises:
    ValueError: for whatever in the config cannot work.
  """
  check(config)
  classes = _classes(config)
  classifier = define_classifier(config.model.image.to_dict(), len(classes), config.model.dtype)
  fields = config.optimizer.to_dict()
  rate = {name: fields.pop(name) for name in ('learning_rate', 'warmup_fraction', 'decay')}
  schedule = make_schedule(**rate, total_steps=config.total_steps)
  optimizer = make_optimizer(schedule, **fields, max_scale=0)
  read = functools.partial(
    read_labeled,
    config.data.name,
    field=config.data.labels,
    folder=config.data.folder or None,
    classes=classes,
  )

  def run(workdir: pathlib.Path) -> dict[str, float]:
    trained = read(split=config.data.split, size=config.data.size)
    task = Fit(*learn(classifier, optimizer, make_loss(config)), make_batches(config, trained))
    state = fit_by(config, task, workdir)
    results: dict[str, float] = {}
    predictions: dict[str, np.ndarray] = {}
    for split in config.evaluation.splits:
      tested = read(split=split, size=config.model.image.size)
      size, mesh = config.evaluation.batch_size, one_device()
      options: dict[str, Any] = {'batch_size': size, 'mesh': mesh}
      found = finetuning.probabilities(classifier, state.evaluated, tested.images, **options)
      measured = calibration.metrics(found, tested.labels, config.evaluation.bins)
      results |= {f'{split}/{name}': value for name, value in measured.items()}
      confidence, right = calibration.predictions(found, tested.labels)
      predictions |= {f'{split}/confidence': confidence, f'{split}/right': right}
    content = io.BytesIO()
    np.savez_compressed(content, **predictions)
    (workdir / PREDICTIONS).write_bytes(content.getvalue())  # NumPy writes to disks alone
    return results | {'classes': len(classes), 'examples': len(trained.labels)}

  return run


def check(config) -> None:
  """Checks the fields of a config that name or count something.

  Raises:
    ValueError: names the field, its value and what works.
  """
  check_choices(config, {'loss.name': LOSSES})
  check_ranges(config, _RULES)
  if not config.evaluation.splits:
    raise ValueError("config.evaluation.splits = () names no split; use ('heldout_style',)")
  check_strengths(config.augmentation.to_dict())


def define_classifier(image: Mapping[str, Any], classes: int, dtype: str) -> Definition:
  """Defines a linear classifier of the pooled vectors of an image tower.

  Args:
    image: the tower and its arguments, as in `config.model.image`.
    classes: K; the module maps normalized images [B, S, S, 3] to logits [B, K].
    dtype: of the tower's activations.
  """

  def create(key):
    tower_key, head_key = map(ParameterKeys, jax.random.split(key))
    tower = towers.image_tower(image, dtype=jnp.dtype(dtype), rngs=tower_key)
    return finetuning.Classifier(tower, classes, 0, rngs=head_key)

  return define_from(create)


def make_batches(config, trained) -> Callable[[int], dict[str, np.ndarray]]:
  """Step -> batch: a new order of the examples each epoch, whose remainder is dropped."""
  number, size = len(trained.labels), config.batch_size

  @functools.lru_cache(maxsize=1)
  def order(epoch):
    return np.random.default_rng((config.seed, epoch)).permutation(number)

  def batch(step):
    epoch, position = divmod(step, number // size)
    rows = order(epoch)[position * size : (position + 1) * size]
    return {'image': trained.images[rows], 'labels': trained.labels[rows]}

  return batch


def make_loss(config) -> Callable[..., tuple[jax.Array, dict[str, jax.Array]]]:
  """The loss of a config for `training.fit.learn`: `objective` of augmented images."""
  size, strengths = config.model.image.size, config.augmentation.to_dict()

  def loss(classify, batch, key):
    augment_key, mixture_key = jax.random.split(key)
    keys = jax.random.split(augment_key, len(batch['labels']))
    images = normalize(augment(keys, batch['image'], size, strengths))
    return objective(classify, images, batch['labels'], mixture_key, **config.loss)

  return loss


def objective(
  classify: Callable[[jax.Array], jax.Array],
  images: jax.Array,
  labels: jax.Array,
  key: jax.Array,
  *,
  name: str,
  weight: float = 0.1,
  margin: float = 2.0,
  alpha: float = 2.0,
  copies: int = 3,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss `name` of `LOSSES`, and its parts.

  'mixup' is the cross-entropy of a mixture of each image with another one; 'mrl' and 'm_ndcg' add
  the ranking loss of mixtures to the cross-entropy of the images.

  Args:
    classify: images [B, S, S, 3] to logits [B, K].
    images: [B, S, S, 3]
    labels: [B] integers below K.
    key: draws partners and shares.
    name: of the loss.
    weight: of the ranking loss.
    margin: of 'mrl'.
    alpha: α of Beta(α, α), from which the share of the images is drawn, one per copy of the batch.
    copies: mixtures of each image in 'm_ndcg'; the others have one.
  """
  if name == 'cross_entropy':
    return _cross_entropy(classify(images), labels), {}
  copies = copies if name == 'm_ndcg' else 1
  share_key, *keys = jax.random.split(key, 1 + copies)
  shares = jax.random.beta(share_key, alpha, alpha, (copies,))
  partners = jnp.stack([jax.random.permutation(each, len(labels)) for each in keys])
  mixtures = jnp.stack([mix(images, *each) for each in zip(partners, shares[:, None], strict=True)])
  mixed = classify(mixtures.reshape(-1, *images.shape[1:]))
  if name == 'mixup':
    share, others = shares[0], labels[partners[0]]
    return share * _cross_entropy(mixed, labels) + (1 - share) * _cross_entropy(mixed, others), {}
  logits = classify(images)
  mixed = mixed.reshape(copies, *logits.shape)
  ranking = functools.partial(losses.mrl, margin=margin) if name == 'mrl' else losses.m_ndcg
  ranked = ranking(logits, mixed, largest_shares(labels, labels[partners], shares[:, None]))
  entropy = _cross_entropy(logits, labels)
  return entropy + weight * ranked, {'cross_entropy': entropy, name: ranked}


def _cross_entropy(logits, labels):
  logits = logits.astype(jnp.float32)
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _classes(config) -> tuple[str, ...]:
  """The classes of the training split, which those of the others are some of.

  Raises:
    ValueError: if a split lacks the field, has another class, or is smaller than a batch.
  """
  field = config.data.labels
  classes: dict[str, None] = {}
  for split in (config.data.split, *config.evaluation.splits):
    source = data.open_source(config.data.name, split, config.data.folder or None)
    try:
      values = [str(value) for value in source.values(field)]
    except ValueError as error:
      raise ValueError(
        f'config.data.labels = {field!r} does not suit {split!r}: {error}'
      ) from error
    if not classes and len(values) < config.batch_size:
      raise ValueError(
        f'config.batch_size = {config.batch_size} exceeds the {len(values)} examples of '
        f'config.data.split = {split!r}; use at most these'
      )
    classes = classes or dict.fromkeys(sorted(values))
    if unknown := sorted(set(values) - classes.keys()):
      raise ValueError(
        f'config.evaluation.splits has {split!r}, with the classes {unknown} that '
        'config.data.split lacks; select others, as in SPLIT[FIELD=VALUE]'
      )
  if len(classes) < 2:
    raise ValueError(
      f'config.data.labels = {field!r} has the one value {[*classes]} in config.data.split; use a '
      'field with two or more'
    )
  return tuple(classes)
