"""PixContrast: the pixels of two crops of an image tell those of one place from others."""

import dataclasses
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.losses.views.pixels import positive_pixels
from contrastive_jax.methods.method import Method, Momentum, Result
from contrastive_jax.models.definition import Definition
from contrastive_jax.models.heads import define_head, head_flops

VIEWS = range(2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels(Method):
  """A loss between the pixels of two crops: the tokens of the image tower.

  A projector, a multilayer perceptron with batch norm over all pixels of a view, maps each pixel;
  another of a target encoder maps those of the other view. The boxes of the crops in the image say
  which pixels show the same place. The metric `matched` is the share of the pixels that have a
  positive.
  """

  exempt: ClassVar[Mapping[str, str]] = MappingProxyType(
    {'parts': 'the projector of pixels normalizes over a micro-batch, as tokens are not kept'}
  )
  name: ClassVar[str]

  hidden: int = 4096
  outputs: int = 256
  pos_ratio: float = 0.7
  momentum: float = 0.99
  final_momentum: float | None = 1.0
  mesh: jax.sharding.Mesh | None = None

  @property
  def reads(self) -> tuple[str, ...]:
    """Tokens of two views, the model's and the target's, and the boxes of the crops."""
    tokens = [f'{encoder}tokens_of_view.{n}' for encoder in ('', 'target.') for n in VIEWS]
    return (*tokens, 'boxes:2', 'batch_size')

  @property
  def target(self) -> Momentum:
    """The encoder of the pixels that are compared with."""
    return Momentum(self.momentum, self.final_momentum)

  def heads(self, sizes):
    """The projector; raises ValueError for a tower whose tokens are no square of pixels."""
    if math.isqrt(sizes.patches) ** 2 != sizes.patches or sizes.patches < 4:
      raise ValueError(
        f'config.objective.{self.name} takes a square of pixels, and the image tower has '
        f'{sizes.patches} tokens; use one without config.model.image.class_token, of 4 or more'
      )
    return {'projector': self._head(sizes.image_tokens)}

  def _head(self, width: int) -> Definition:
    return define_head(width, (self.hidden,), self.outputs)

  def total(self, inputs):
    """B."""
    return inputs['batch_size']

  def loss(self, inputs, heads, memory, key):
    """None: the term is a sum over micro-batches, see `partial`."""

  def partial(self, inputs, total, heads, memory):
    """The sum over the examples of a part of both directions, divided by B."""
    boxes, (_, P, _) = inputs['boxes'], inputs['tokens_of_view.0'].shape
    positive = positive_pixels(boxes[:, 0], boxes[:, 1], math.isqrt(P), self.pos_ratio)
    own = [project(heads['projector'], inputs[f'tokens_of_view.{n}']) for n in VIEWS]
    aims = [project(heads['target.projector'], inputs[f'target.tokens_of_view.{n}']) for n in VIEWS]
    own = [self.predict(pixels, heads) for pixels in own]
    terms = self.compare(own[0], aims[1], positive)
    terms += self.compare(own[1], aims[0], positive.swapaxes(1, 2))
    matched = jnp.sum(jnp.any(positive, -1)) / (total * P)
    return Result(jnp.sum(terms) / total, metrics={'matched': matched})

  def predict(self, pixels: jax.Array, heads: Mapping[str, Any]) -> jax.Array:
    """What is compared of the projections [B, P, D] of a view, [B, P, D]."""
    return pixels

  def compare(self, pixels: jax.Array, target: jax.Array, positive: jax.Array) -> jax.Array:
    """The loss of each image in one direction, [B]."""
    raise NotImplementedError

  def flops(self, sizes):
    """The projector, the target's forward alone, and the cosines, of both views."""
    rows, pairs = (len(VIEWS) * sizes.batch * sizes.patches**n for n in (1, 2))
    head = head_flops(sizes.image_tokens, (self.hidden,), self.outputs, rows)
    return 4 / 3 * head + 4.0 * pairs * self.outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixContrast(Pixels):
  """PixContrast [1]: each pixel tells its positives in the other view from the other pixels of it.

      L = ½ (ℓ(x₁, x'₂) + ℓ(x₂, x'₁)),   ℓ = `losses.pix_contrast`

  x are the projections of the tokens of the image tower, x' those by the target encoder and its
  projector, moving averages that start as copies and have no gradient. Pixels of other images are
  no negatives here.

  Batch norm in the projector is over all pixels of a view, of one micro-batch.

  Attributes:
    scale: the inverse temperature.
    hidden: width of the hidden layer of the projector.
    outputs: D, width of the projections.
    pos_ratio: largest distance of positives, in diagonals of a bin, see
      `losses.views.pixels.positive_pixels`.
    momentum: decay of the target encoder.
    final_momentum: decay at the last step, reached along a half cosine; None for `momentum`
      throughout.

  References:
    [1] Xie et al., https://arxiv.org/abs/2011.10043
  """

  name: ClassVar[str] = 'pix_contrast'

  scale: float = 1 / 0.3

  def compare(self, pixels, target, positive):
    """The mean of each image's pixels, halved: `partial` adds the directions."""
    return losses.pix_contrast_per_example(pixels, target, positive, scale=self.scale) / 2


def project(head: Any, tokens: jax.Array) -> jax.Array:
  """A head of each pixel, [B, P, W] to [B, P, D]."""
  B, P, W = tokens.shape
  return head(tokens.reshape(B * P, W)).reshape(B, P, -1)
