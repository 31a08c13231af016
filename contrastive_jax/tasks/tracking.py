"""Association of instances over the frames of a video, trained by a memory bank or by pairs."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from PIL import Image
from scipy import optimize

from contrastive_jax import losses
from contrastive_jax.data.images import normalize
from contrastive_jax.data.videos import Video, compose_video
from contrastive_jax.losses.labels.tracks import momentum_bank
from contrastive_jax.models.definition import Definition, define
from contrastive_jax.tasks.fields import check_choices, check_ranges, fit_by
from contrastive_jax.tasks.labeled import LabeledImages, read_labeled
from contrastive_jax.tasks.pictures import grid, outline
from contrastive_jax.training.fit import Fit, learn
from contrastive_jax.training.rules import COUNT, POSITIVE, Rule

PICTURE = 'tracks.png'  # in the workdir of a finished run
REFERENCES = ('bank', 'frame')
Results = dict[str, float]
_RULES = {
  'total_steps': COUNT,
  'batch_size': COUNT,
  'momentum': Rule(0, 1),
  'video.frames': COUNT._replace(low=2),
  'video.instances': COUNT._replace(low=2),
  'video.size': COUNT._replace(low=16),
  'evaluation.videos': COUNT,
  'optimizer.learning_rate': POSITIVE,
}


def open_tracking(config: ConfigDict) -> Callable[[pathlib.Path], Results]:
  """The task 'tracking': an image tower embeds the instances of pseudo-videos, see `data.videos`.

  The instances of a video are distinct classes of `config.data.labels`, whose drawings change from
  frame to frame. `config.reference` says what an instance is compared with:

  - 'bank', as CTVIS: its momentum embedding before this frame or, with probability
    `1 − config.momentum`, the last one; before it is seen, its first later one. Negatives are the
    other instances of the previous frame.
  - 'frame': its embedding in one other frame at random, whose other instances are the negatives.

  `association_accuracy` is the share of seen instances that are assigned to their own track, frame
  by frame, among the momentum embeddings of the tracks so far, in videos of the test split. The run
  draws the first one to tracks.png.

  Raises:
    ValueError: if a choice is unknown, or a number does not fit.
  """
  check_choices(config, {'reference': REFERENCES})
  check_ranges(config, _RULES)
  given, image = config.data, config.model.image.to_dict()
  definition = define('encoder', embed=config.model.embed, image=image, projector=(image['width'],))
  names = given.name, given.labels, config.video.size, given.folder
  train = _drawings(*names, given.split, config.video.instances)
  test = _drawings(*names, given.test_split, config.video.instances)

  def run(folder: pathlib.Path) -> Results:
    init, step = learn(
      definition,
      optax.adamw(config.optimizer.learning_rate, weight_decay=config.optimizer.weight_decay),
      functools.partial(videos_loss, config),
    )
    task = Fit(init, step, lambda n: draw(config, train, (config.seed, 0, n), config.batch_size))
    state = fit_by(config, task, folder)
    embed = embedder(definition, state.evaluated)
    shares = []
    for number in range(config.evaluation.videos):
      video = draw_video(config, test, (config.evaluation.seed, 1, number))
      assigned = associate(embed(video.crops), video.seen)
      shares.append(accuracy(assigned))
      if number == 0:
        draw_tracks(video, assigned).save(folder / PICTURE)
    return {'association_accuracy': float(np.mean(shares))}

  return run


def draw_video(config: ConfigDict, drawings: Sequence[np.ndarray], seed: Sequence[int]) -> Video:
  """A video of distinct instances, a function of the seed."""
  random = np.random.default_rng(seed)
  chosen = random.choice(len(drawings), config.video.instances, replace=False)
  fields = {'frames': config.video.frames, 'size': config.video.size}
  own = [drawings[row] for row in chosen]
  return compose_video(own, **fields, crop=config.model.image.size, random=random)


def draw(
  config: ConfigDict, drawings: Sequence[np.ndarray], seed: Sequence[int], count: int
) -> dict[str, np.ndarray]:
  """A batch of videos: `crops` [V, T, N, C, C, 3] and `seen` [V, T, N]."""
  videos = [draw_video(config, drawings, (*seed, number)) for number in range(count)]
  return {name: np.stack([getattr(v, name) for v in videos]) for name in ('crops', 'seen')}


def videos_loss(
  config: ConfigDict, module: Any, batch: Mapping[str, jax.Array], key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The mean loss of the contrastive items of all videos of a batch."""
  V, T, N = batch['seen'].shape
  features = _embed(module, batch['crops']).reshape(V, T, N, -1)
  items = {'bank': _items_of_bank, 'frame': _items_of_frame}[config.reference]
  own = functools.partial(items, momentum=config.momentum)
  found = jax.vmap(own)(jax.random.split(key, V), features, batch['seen'])
  anchors, positives, negatives, *valid = (x.reshape(-1, *x.shape[3:]) for x in found)
  valid = dict(zip(('positive_valid', 'negative_valid'), valid, strict=True))
  return losses.tracks(anchors, positives, negatives, **valid), {}


def _items_of_bank(key, features, seen, momentum):
  """Contrastive items of the frames after the first, [T − 1, N, …] each."""
  T, N, _ = features.shape
  bank = momentum_bank(features, seen)
  last, known = [features[0]], [seen[0]]
  for now, here in zip(features[1:-1], seen[1:-1], strict=True):
    last.append(jnp.where(here[:, None], now, last[-1]))
    known.append(known[-1] | here)
  last, known = jnp.stack(last), jnp.stack(known)
  moving = jax.random.bernoulli(key, momentum, (T - 1, N, 1))
  before = jnp.where(moving, bank[:-1], last)
  # The first later occurrence of an instance that was not seen before
  later, found = features[-1], jnp.zeros(N, bool)
  following: list[Any] = [None] * (T - 1)
  for t in reversed(range(1, T)):
    following[t - 1] = later, found
    later = jnp.where(seen[t][:, None], features[t], later)
    found |= seen[t]
  after, follows = (jnp.stack(parts) for parts in zip(*following, strict=True))
  positives = jnp.where(known[..., None], before, after)
  valid = seen[1:] & (known | follows)
  return _with_negatives(features[1:], positives, valid, features[:-1], seen[:-1])


def _items_of_frame(key, features, seen, momentum):
  """Contrastive items of pairs of frames, likewise."""
  T = len(features)
  offsets = jax.random.randint(key, (T - 1,), 1, T)
  other = (jnp.arange(1, T) + offsets) % T
  valid = seen[1:] & seen[other]
  return _with_negatives(features[1:], features[other], valid, features[other], seen[other])


def _with_negatives(anchors, positives, valid, others, others_seen):
  """Items whose negatives are the other instances of a frame per anchor's frame."""
  T, N, D = anchors.shape
  apart = ~jnp.eye(N, dtype=bool)
  negatives = jnp.broadcast_to(others[:, None], (T, N, N, D))
  negative_valid = others_seen[:, None] & apart & valid[..., None]
  return anchors, positives[:, :, None], negatives, valid[..., None], negative_valid


def embedder(definition: Definition, parameters) -> Callable[[np.ndarray], np.ndarray]:
  """Crops [T, N, C, C, 3] -> embeddings [T, N, D]."""
  embed = jax.jit(lambda crops: _embed(definition.bind(parameters), crops))
  return lambda crops: np.asarray(embed(crops)).reshape(*crops.shape[:2], -1)


def associate(features: np.ndarray, seen: np.ndarray) -> np.ndarray:
  """The track of each instance, [T, N]; −1 where it is not seen, or was not before.

  In each frame the instances that were seen before are assigned to as many tracks by the Hungarian
  algorithm, by the mean of the softmax over tracks and that over instances. The momentum embeddings
  of the tracks then follow the truth, so that an error does not cause others.

  Args:
    features: [T, N, D]; the own track of an instance has its number.
    seen: [T, N].
  """
  bank = np.asarray(momentum_bank(jnp.asarray(features), jnp.asarray(seen)))
  assigned, known = np.full(seen.shape, -1), seen[0].copy()
  for t in range(1, len(seen)):
    rows, own = np.flatnonzero(seen[t] & known), np.flatnonzero(known)
    if len(rows):
      scores = features[t, rows] @ bank[t - 1, own].T
      both = jax.nn.softmax(scores, 0) + jax.nn.softmax(scores, 1)
      found, chosen = optimize.linear_sum_assignment(-np.asarray(both))
      assigned[t, rows[found]] = own[chosen]
    known |= seen[t]
  return assigned


def accuracy(assigned: np.ndarray) -> float:
  """The share of assigned instances that are assigned to their own track; see `associate`."""
  right = assigned == np.arange(assigned.shape[1])
  return float(np.sum(right) / max(np.sum(assigned >= 0), 1))


def draw_tracks(video: Video, assigned: np.ndarray) -> Image.Image:
  """The frames of a video in two rows, with boxes in the colors of their tracks."""
  own = np.arange(assigned.shape[1])
  tracks = np.where(assigned >= 0, assigned, np.where(video.seen, own, -1))
  frames = [
    outline(*each) for each in zip(video.frames, video.boxes, tracks, tracks != own, strict=True)
  ]
  half = len(frames) // 2
  return grid([frames[:half], frames[half : 2 * half]])


def _embed(module, crops: jax.Array) -> jax.Array:
  """Vectors [M, D], of any length, of crops [..., C, C, 3]."""
  features, _ = module.image(normalize(crops.reshape(-1, *crops.shape[-3:])))
  hidden, last = module.projector
  return last(jax.nn.relu(hidden(features))).astype(jnp.float32)


def _drawings(
  name: str, field: str, size: int, folder: str, split: str, instances: int
) -> list[Any]:
  """The drawings of each class, of those with two or more; decoded when they are drawn.

  Raises:
    ValueError: if these are fewer than the instances of a video.
  """
  found: LabeledImages = read_labeled(name, split, field, size=size // 2, folder=folder or None)
  kept = [own for own in found.by_class() if len(own) > 1]
  if not 2 <= instances <= len(kept):
    raise ValueError(
      f'config.video.instances = {instances}, and split {split!r} of {name!r} has {len(kept)} '
      f'values of {field!r} with two images or more; use 2 to {len(kept)}'
    )
  return kept
