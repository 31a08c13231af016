"""Pretext tasks: to tell how a view of an image was rotated, or its tiles permuted."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.methods.method import Method, Result
from contrastive_jax.models.heads import define_head, head_flops

TASKS = ('rotation', 'jigsaw')
# Tiles per side of a jigsaw.
_SIDE = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretext(Method):
  """The pretext tasks of ScatSimCLR [1]: the cross entropy of a view's transformation.

      L = mean( log Σ_c exp h(v)_c − h(v)_t )

  h maps the pooled image features of a view v, transformed by t, to the classes. Rotations are by
  0, 90, 180 and 270 degrees, as in [2]; a jigsaw, as in [3], permutes nine tiles. Pixels beyond the
  tiles get the mean color. The view is one of its own, after those that a contrastive loss
  compares: [1] adds 0.3 of this to NT-Xent.

  For a jigsaw [1] encodes the nine tiles one by one, each resized to an image, and its head maps
  all of them; here the encoder sees the permuted image, for a ninth of the cost. Permutations agree
  pairwise in at most one tile. [1] reads its 35 from a file, and has dropout in the head.

  Attributes:
    task: 'rotation' or 'jigsaw'.
    view: number of the view.
    widths: of the hidden layers of h, without norm. [1] has (512, 128) for rotations, and
      512 per tile and 4096 for a jigsaw.
    permutations: number of the jigsaw's classes, at most 72.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: if the task is unknown, or there are not as many permutations.

  References:
    [1] Kinakh et al., https://arxiv.org/abs/2108.13939; as in vkinakh/scatsimclr:
      src/trainer/pretext_task_trainer.py, src/data/jigsaw_dataset.py, config_pretext.yaml
    [2] Gidaris et al., https://arxiv.org/abs/1803.07728
    [3] Noroozi and Favaro, https://arxiv.org/abs/1603.09246
  """

  task: str = 'rotation'
  view: int = 2
  widths: tuple[int, ...] = (512, 128)
  permutations: int = 35
  mesh: jax.sharding.Mesh | None = None

  def __post_init__(self):
    if self.task not in TASKS:
      raise ValueError(f'task = {self.task!r} is unknown; use one of {TASKS}')
    if not 2 <= self.permutations <= len(jigsaws()):
      raise ValueError(f'permutations = {self.permutations}; use 2 to {len(jigsaws())}')

  @property
  def reads(self) -> tuple[str, ...]:
    """Features of the view, and how it was transformed."""
    return (f'features_of_view.{self.view}', 'transformed?', 'batch_size')

  @property
  def classes(self) -> int:
    """The number of transformations."""
    return 4 if self.task == 'rotation' else self.permutations

  def heads(self, sizes):
    """The classifier."""
    return {'classifier': define_head(*self._layers(sizes), norm='none')}

  def _layers(self, sizes) -> tuple[int, tuple[int, ...], int]:
    return sizes.image_features, self.widths, self.classes

  def transform(self, view, part, target, memory, keys):
    """The view transformed, with the indices [B] of its transformations."""
    if view != self.view:
      return part
    drawn = jax.vmap(lambda key: jax.random.randint(key, (), 0, self.classes))(keys)
    change = rotate if self.task == 'rotation' else permute_tiles
    return {**part, 'image': change(part['image'], drawn), 'transformed': drawn}

  def total(self, inputs):
    """B."""
    return inputs['batch_size']

  def partial(self, inputs, total, heads, memory):
    """The sum over the examples of a part, divided by B."""
    classes = inputs['transformed']
    logits = heads['classifier'](inputs[f'features_of_view.{self.view}'])
    of_class = jnp.take_along_axis(logits, classes[:, None], 1)[:, 0]
    entropy = jnp.sum(jax.nn.logsumexp(logits, 1) - of_class) / total
    correct = jnp.sum(jnp.argmax(logits, 1) == classes) / total
    return Result(entropy, metrics={'accuracy': correct})

  def flops(self, sizes):
    """The classifier."""
    return head_flops(*self._layers(sizes), sizes.batch)


def rotate(images: jax.Array, turns: jax.Array) -> jax.Array:
  """Rotates images [B, S, S, 3] by quarter turns [B], from 0 to 3, counterclockwise."""
  is_turned = [(turns == number)[:, None, None, None] for number in range(1, 4)]
  turned = [jnp.rot90(images, number, (1, 2)) for number in range(1, 4)]
  return jnp.select(is_turned, turned, images)


def permute_tiles(images: jax.Array, classes: jax.Array) -> jax.Array:
  """Permutes the nine tiles of images [B, S, S, 3] by `jigsaws` [B]; a rest of pixels is 0."""
  B, S, _, C = images.shape
  size = S // _SIDE
  inner, rest = size * _SIDE, S - size * _SIDE
  tiles = images[:, :inner, :inner].reshape(B, _SIDE, size, _SIDE, size, C).swapaxes(2, 3)
  order = jnp.asarray(jigsaws())[classes]
  tiles = tiles.reshape(B, _SIDE**2, size, size, C)
  tiles = jnp.take_along_axis(tiles, order[:, :, None, None, None], 1)
  tiles = tiles.reshape(B, _SIDE, _SIDE, size, size, C).swapaxes(2, 3)
  return jnp.pad(tiles.reshape(B, inner, inner, C), ((0, 0), (0, rest), (0, rest), (0, 0)))


def jigsaws() -> np.ndarray:
  """Permutations [72, 9] that agree pairwise in at most one place.

  They are the maps x → a x + b, a ≠ 0, of the field with nine elements p + q i, where i² = −1 and
  p and q are integers modulo 3; the first is the identity.
  """
  numbers = np.array([complex(p, q) for p, q in itertools.product(range(3), repeat=2)])
  factors = [1, *(a for a in numbers if a not in (0, 1))]
  maps = np.array([a * numbers + b for a, b in itertools.product(factors, numbers)])
  return (maps.real % 3 * 3 + maps.imag % 3).astype(np.int32)
