"""Online continual learning: one pass over a stream of classes, with a replay buffer.

Each step sees a batch of the stream and one of the buffer, both as they are and augmented.
`config.loss.name` selects experience replay, the cross-entropy over all classes [1]; a supervised
contrastive loss, with nearest class means as the classifier [2]; or `losses.pcr`. The components of
HPCR are options: pairs of examples, see `losses.hpcr`, a periodic temperature, and two
distillations of the outputs that the buffer stores with its images.

The state has the model after each task, so that a resumed run reports the same forgetting.

References:
  [1] Chaudhry et al., On Tiny Episodic Memories in Continual Learning, 2019,
    https://arxiv.org/abs/1902.10486.
  [2] Mai et al., Supervised Contrastive Replay, 2021, https://arxiv.org/abs/2103.13885.
"""

import pathlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from contrastive_jax import losses
from contrastive_jax.data import replay
from contrastive_jax.data.augmentation import augment, check_strengths
from contrastive_jax.data.class_stream import ClassStream, order_stream
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.batches import in_batches, jit_batched, one_device
from contrastive_jax.losses.labels import proxy_replay
from contrastive_jax.models import towers
from contrastive_jax.models.definition import Definition, define_from
from contrastive_jax.models.heads import Prototypes
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.models.transformer import unit
from contrastive_jax.tasks.fields import check_choices, check_ranges, fit_by
from contrastive_jax.tasks.labeled import LabeledImages, read_labeled
from contrastive_jax.training.fit import Fit, learn
from contrastive_jax.training.optimizer import make_optimizer
from contrastive_jax.training.rules import COUNT, NOT_NEGATIVE, POSITIVE

LOSSES = ('cross_entropy', 'pcr', 'supervised')

_RULES = {
  'tasks': COUNT,
  'batch_size': COUNT,
  'replay.capacity': COUNT,
  'replay.batch_size': COUNT,
  'loss.scale': POSITIVE,
  'loss.min_batch_for_pairs': COUNT._replace(low=0),
  'loss.low': POSITIVE,
  'loss.high': POSITIVE,
  'loss.period': COUNT,
  'loss.logits': NOT_NEGATIVE,
  'loss.structure': NOT_NEGATIVE,
  'optimizer.learning_rate': NOT_NEGATIVE,
  'evaluation.batch_size': COUNT,
}


class CosineClassifier(nnx.Module):
  """Classifies images by the cosines of their features with a proxy per class.

  Args:
    image: arguments of the image tower, see `towers.image_tower`.
    classes: C, the number of classes.
    rngs: draws the parameters.
  """

  def __init__(self, image: Mapping[str, Any], classes: int, *, rngs):
    self.image = towers.image_tower(image, dtype=jnp.dtype('float32'), rngs=rngs)
    self.proxies = Prototypes(self.image.width, classes, rngs=rngs)

  def __call__(self, images):
    """Unit vectors [B, D] of normalized images [B, S, S, 3], and the proxies [C, D]."""
    return unit(self.image(images)[0]), self.proxies()


def define_classifier(image: Mapping[str, Any], classes: int) -> Definition:
  """Defines a `CosineClassifier`."""
  return define_from(lambda key: CosineClassifier(image, classes, rngs=ParameterKeys(key)))


def open_stream(config) -> Callable[[pathlib.Path], dict[str, float]]:
  """Opens the data of a config; returns its run, which trains on the stream and evaluates.

  The run returns the final `accuracy` on the held-out examples of all classes, that of each task,
  `task_1_accuracy` and so on, their mean, `mean_task_accuracy`, and `forgetting`: how much
  the accuracy of the tasks but the last has fallen, on average, from its highest value.

  Raises:
    ValueError: for whatever in the config cannot work.
  """
  check(config)
  shared = {'field': config.data.labels, 'size': config.model.image.size}
  shared['folder'] = config.data.folder or None
  train = read_labeled(config.data.name, config.data.split, **shared)
  heldout = read_labeled(config.data.name, config.evaluation.split, classes=train.classes, **shared)
  options = {'tasks': config.tasks, 'batch_size': config.batch_size, 'seed': config.seed}
  stream = order_stream(train.labels, **options)
  if empty := [n for n, own in enumerate(stream.classes) if not np.isin(own, heldout.labels).any()]:
    raise ValueError(
      f'config.evaluation.split = {config.evaluation.split!r} has no example of task {empty[0]}, '
      f'the classes {[train.classes[c] for c in stream.classes[empty[0]]]}; select some'
    )
  model = define_classifier(config.model.image.to_dict(), len(train.classes))
  task = make_fit(config, model, train, stream)

  def run(folder: pathlib.Path) -> dict[str, float]:
    state = fit_by(config, task, folder, len(stream.tasks))
    predict = make_predict(config, model, train)
    seen = np.minimum(stream.ends * config.batch_size, config.replay.capacity)
    right = np.stack(
      [
        predict(jax.tree.map(lambda table, n=number: table[n], state['after']), count, heldout)
        for number, count in enumerate(seen)
      ]
    )
    return summarize(right, [np.isin(heldout.labels, own) for own in stream.classes])

  return run


def check(config) -> None:
  """Checks the fields that count or name something.

  Raises:
    ValueError: names the field, its value and what works.
  """
  check_ranges(config, _RULES)
  check_choices(config, {'loss.name': LOSSES})
  name = config.loss.name
  if (pairs := config.loss.min_batch_for_pairs) and name != 'pcr':
    raise ValueError(
      f'config.loss.min_batch_for_pairs = {pairs} needs config.loss.name = '
      f"'pcr', not {name!r}; use 0"
    )
  if config.replay.batch_size > config.replay.capacity:
    raise ValueError(
      f'config.replay.batch_size = {config.replay.batch_size} exceeds config.replay.capacity = '
      f'{config.replay.capacity}; use at most this'
    )
  check_strengths(config.augmentation.to_dict())


def make_fit(config, model: Definition, train: LabeledImages, stream: ClassStream) -> Fit:
  """The loop over a stream.

  Its state has the `learner`, see `learn`, the replay `buffer`, and what is evaluated `after` each
  task: the parameters, and the rows of the training data that the buffer holds. The first batch
  fills the buffer alone, without an update.
  """
  fields = config.optimizer.to_dict()
  schedule = optax.constant_schedule(fields.pop('learning_rate'))
  optimizer = make_optimizer(schedule, **fields, max_scale=0)
  begin, advance = learn(model, optimizer, make_loss(config))
  run = lambda parameters, images: model.bind(parameters)(images)  # noqa: E731
  embedding, _ = jax.eval_shape(run, model.shapes, train.images[:1].astype(np.float32))

  def init(key):
    learner = begin(key)
    row = {
      'image': jax.ShapeDtypeStruct(train.images.shape[1:], jnp.uint8),
      'label': jax.ShapeDtypeStruct((), jnp.int32),
      'number': jax.ShapeDtypeStruct((), jnp.int32),
      'embedding': jax.ShapeDtypeStruct(embedding.shape[1:], jnp.float32),
      'logits': jax.ShapeDtypeStruct((len(train.classes),), jnp.float32),
    }
    buffer = replay.init(config.replay.capacity, row)
    after = {'parameters': learner.evaluated, 'numbers': buffer.rows['number']}
    empty = lambda leaf: jnp.zeros((config.tasks, *leaf.shape), leaf.dtype)  # noqa: E731
    return {'learner': learner, 'buffer': buffer, 'after': jax.tree.map(empty, after)}

  def step(state, batch, key):
    draw_key, loss_key, add_key = jax.random.split(key, 3)
    replayed = replay.sample(state['buffer'], draw_key, config.replay.batch_size)
    both = {'new': batch, 'replayed': replayed, 'started': state['buffer'].seen > 0}
    learner, metrics = advance(state['learner'], both, loss_key)
    new = {name: batch[name] for name in ('image', 'label', 'number')} | metrics.pop('outputs')
    buffer = replay.add(state['buffer'], new, add_key)
    after = {'parameters': learner.evaluated, 'numbers': buffer.rows['number']}
    write = lambda table, leaf: table.at[batch['task']].set(leaf)  # noqa: E731
    after = jax.tree.map(write, state['after'], after)
    return {'learner': learner, 'buffer': buffer, 'after': after}, metrics

  def batch(step):
    own = stream.numbers[step]
    found = {'image': train.images[own], 'label': train.labels[own], 'number': own.astype(np.int32)}
    return found | {'task': stream.tasks[step], 'position': stream.positions[step]}

  return Fit(init, step, batch)


def make_loss(config):
  """The loss of a new and a replayed batch, for `learn`; its metrics have `outputs` to store."""
  options, strengths = config.loss, config.augmentation.to_dict()

  def loss(module, batch, key):
    new, old = batch['new'], batch['replayed']
    M = len(old['label'])
    images, labels = (jnp.concatenate([old[name], new[name]]) for name in ('image', 'label'))
    keys = jax.random.split(key, len(images))
    changed = augment(keys, images, images.shape[1], strengths)
    z, proxies = module(normalize(jnp.concatenate([images.astype(jnp.float32), changed])))
    logits = options.scale * z @ proxies.T
    classes = jnp.concatenate([labels, labels])
    scaled = {'scale': options.scale}
    if options.name == 'pcr':
      least = options.min_batch_for_pairs
      contrast = losses.hpcr(z, classes, proxies, **scaled, min_batch_for_pairs=least)
    elif options.name == 'supervised':
      contrast = losses.supervised(z, classes, **scaled)
    else:
      contrast = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, classes))
    cycle = {name: options[name] for name in ('low', 'high', 'period')}
    value = proxy_replay.periodic_temperature(new['position'], **cycle) * contrast
    metrics = {'contrast': contrast}
    # Replayed examples as they are, and augmented.
    rows = np.concatenate([np.arange(M), len(images) + np.arange(M)])
    stored = {name: jnp.concatenate([old[name]] * 2) for name in ('logits', 'embedding')}
    if options.logits:
      kept = proxy_replay.logit_distillation(logits[rows], stored['logits'], classes)
      metrics['logits'] = kept
      value += jnp.where(new['task'] > 0, options.logits * kept, 0.0)
    if options.structure:
      kept = proxy_replay.structure_distillation(z[rows], stored['embedding'], **scaled)
      metrics['structure'] = kept
      value += jnp.where(new['task'] > 0, options.structure * kept, 0.0)
    own = slice(M, len(images))
    metrics['outputs'] = {'embedding': z[own], 'logits': logits[own]}
    return jnp.where(batch['started'], value, 0.0), metrics

  return loss


def make_predict(config, model: Definition, train: LabeledImages):
  """(what is evaluated after a task, rows in the buffer, held-out images) -> which are right."""
  size, mesh = config.evaluation.batch_size, one_device()
  encode = jit_batched(lambda given, images: model.bind(given)(normalize(images))[0], mesh)

  def embed(parameters, images):
    return in_batches(partial(encode, parameters), images, size, mesh)

  def predict(after, count: int, heldout: LabeledImages) -> np.ndarray:
    parameters = after['parameters']
    if config.loss.name == 'supervised':
      kept = np.asarray(after['numbers'])[:count]
      held = embed(parameters, train.images[kept])
      centers = class_means(held, train.labels[kept], len(train.classes))
    else:
      centers = np.asarray(model.bind(parameters).proxies())
    scores = embed(parameters, heldout.images) @ centers.T
    return np.argmax(np.where(np.isnan(scores), -np.inf, scores), 1) == heldout.labels

  return predict


def class_means(embeddings: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
  """The directions [C, D] of the means of classes; NaN for one without an example."""
  sums = np.zeros((classes, embeddings.shape[1]), np.float32)
  np.add.at(sums, labels, embeddings)
  with np.errstate(invalid='ignore'):
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def summarize(right: np.ndarray, members: list[np.ndarray]) -> dict[str, float]:
  """The results of a stream.

  Args:
    right: [T, N] which held-out examples are right after each task.
    members: of each task, which held-out examples [N] are its.
  """
  table = np.array([[after[own].mean() for own in members] for after in right])
  fallen = [table[n:-1, n].max() - table[-1, n] for n in range(len(table) - 1)]
  results = {
    'accuracy': right[-1].mean(),
    'mean_task_accuracy': table[-1].mean(),
    'forgetting': np.mean(fallen) if fallen else 0.0,
  }
  results |= {f'task_{n + 1}_accuracy': value for n, value in enumerate(table[-1])}
  return {name: float(value) for name, value in results.items()}
