"""The contract of a method: a loss with trainable heads, or with memory between steps."""

import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from contrastive_jax.models.definition import Definition

Arrays = Mapping[str, jax.Array]


class Sizes(NamedTuple):
  """Sizes that heads and memory are built from.

  Attributes:
    batch: B, examples per step over all devices.
    embed: D, the width of the embeddings.
    image_features: width of the pooled image features before the projection; 0 without images.
    text_features: width of the pooled text features before the projection; 0 without texts.
    patches: P, tokens of an image; 0 without images.
    image_tokens: their width.
    tokens: L - 1, predictions per caption; 0 without a captioner.
    hidden: C, width of the captioner's states.
    vocabulary: V, its ids.
    examples: N, rows of a table with one row per example of the data; 0 where no method reads 'id'.
    views: V, views of each image.
    texts: K, texts of each example.
    teacher: D', the width of the teacher's embeddings; 0 without a teacher.
    classes: number of the labels' classes, `config.data.classes`; 0 where they are not numbered.
    side: of the images of a batch, in pixels; 0 without square images.
  """

  batch: int
  embed: int
  image_features: int = 0
  text_features: int = 0
  patches: int = 0
  image_tokens: int = 0
  tokens: int = 0
  hidden: int = 0
  vocabulary: int = 0
  examples: int = 0
  views: int = 1
  texts: int = 1
  teacher: int = 0
  classes: int = 0
  side: int = 0


class Slot(NamedTuple):
  """One array of a method's memory.

  Attributes:
    shape: of the array.
    axes: a logical name per dimension. 'queue' and 'examples' lie on the batch axes of the mesh;
      None and other names are copied to all devices.
    init: key -> the array before the first step; None for zeros.
    dtype: of the array.
  """

  shape: tuple[int, ...]
  axes: tuple[str | None, ...] = ()
  init: Callable[[jax.Array], jax.Array] | None = None
  dtype: Any = jnp.float32


class Momentum(NamedTuple):
  """The decay of a target, a moving average of parameters and heads.

  Methods with equal momentum share one target.

  Attributes:
    start: decay at the first step; 1 freezes the target (a teacher).
    end: decay at the last step, reached along a half cosine; None for `start` throughout.
  """

  start: float
  end: float | None = None

  def __call__(self, step: jax.Array, total_steps: int) -> jax.Array:
    """The decay at a step, counted from 0."""
    if self.end is None:
      return jnp.float32(self.start)
    cosine = jnp.cos(jnp.pi * jnp.minimum(step / total_steps, 1.0))
    return self.end - (self.end - self.start) * (cosine + 1) / 2

  def __str__(self) -> str:
    """The key of the target in the training state."""
    return f'{self.start:g}' if self.end is None else f'{self.start:g}-{self.end:g}'


def fold_name(key: jax.Array, name: str) -> jax.Array:
  """A key of a name's own."""
  return jax.random.fold_in(key, zlib.crc32(name.encode()))


class Result(NamedTuple):
  """What `Method.loss` and `Method.partial` return; that of `partial` is summed over the parts.

  Attributes:
    loss: scalar.
    writes: arrays for `Method.update`.
    metrics: scalars by name, logged as METHOD/NAME.
  """

  loss: jax.Array
  writes: Arrays = MappingProxyType({})
  metrics: Arrays = MappingProxyType({})


class Method:
  """A term of the objective.

  A method is a frozen dataclass whose fields are its options. In `loss` the batch is whole on any
  mesh and in any number of micro-batches: its arrays are global. Every function is pure.

  Attributes:
    exempt: reason by name of each law over the registry that does not hold.
    several_teachers: whether what it reads of a teacher may be a tuple, of several teachers.
  """

  exempt: ClassVar[Mapping[str, str]] = MappingProxyType({})
  several_teachers: ClassVar[bool] = False

  @property
  def reads(self) -> tuple[str, ...]:
    """Names of what `loss`, `partial` or `total` takes as `inputs`, see `methods.inputs`."""
    return ()

  @property
  def target(self) -> Momentum | None:
    """The momentum of the target encoder whose outputs are read as 'target.NAME'."""
    return None

  def heads(self, sizes: Sizes) -> Mapping[str, Definition]:
    """The modules that are trained with the model."""
    return {}

  def memory(self, sizes: Sizes) -> Mapping[str, Slot]:
    """The arrays that live from step to step."""
    return {}

  def loss(
    self, inputs: Arrays, heads: Mapping[str, Any], memory: Arrays, key: jax.Array | None
  ) -> Result | None:
    """The term; None for a sum over micro-batches, see `partial`.

    Args:
      inputs: what the method reads, by name.
      heads: modules by name; with a target, 'target.NAME' is the same head with its parameters.
      memory: arrays by name.
      key: for methods that draw.
    """

  def update(
    self, memory: Arrays, writes: Arrays, heads: Mapping[str, Any], step: jax.Array
  ) -> Arrays:
    """The memory after a step, with the heads as the optimizer left them.

    A skipped step leaves memory as it was.
    """
    return memory

  def total(self, inputs: Arrays) -> jax.Array | None:
    """The number that `partial` divides by, of the whole batch."""

  def partial(
    self, inputs: Arrays, total: jax.Array | None, heads: Mapping[str, Any], memory: Arrays
  ) -> Result | None:
    """The term of one micro-batch, where the term is a sum over them.

    It may read values per token, and heads, whose norms then see the micro-batch alone.

    Args:
      inputs: what the method reads, by name.
      total: from `total`.
      heads: modules by name, as for `loss`.
      memory: arrays by name.
    """

  def transform(
    self, view: int, part: Arrays, target: Any, memory: Arrays, keys: jax.Array
  ) -> Arrays:
    """A view of a micro-batch as the towers see it, such as with masks or mixup.

    Args:
      view: its number, from 0.
      part: the view, preprocessed.
      target: the target's `Outputs` for all views as they were; None without a target.
      memory: arrays by name.
      keys: [B] a key per example.

    Returns:
      The view, also with arrays that `part` has not, which `partial` may read.
    """
    return part

  def flops(self, sizes: Sizes) -> float:
    """Floating point operations of a step outside of the towers."""
    return 0.0
