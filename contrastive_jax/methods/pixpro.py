"""PixPro: the propagated pixels of two crops of an image agree, without negatives."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.losses.views.pixels import propagate
from contrastive_jax.methods.pix_contrast import VIEWS, Pixels, project
from contrastive_jax.models.heads import define_head, head_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixPro(Pixels):
  """PixPro [1]: the propagated pixels of a view agree with the other view's, without negatives.

      yᵢ = Σⱼ max(cos(xᵢ, xⱼ), 0)ᵖ g(xⱼ) / ‖g(xⱼ)‖
      L  = ℓ(y₁, x'₂) + ℓ(y₂, x'₁),   ℓ = `losses.pixpro`

  x are the projections of the tokens of the image tower, x' those by the target encoder and its
  projector, moving averages that start as copies and have no gradient. g is a linear map. L is from
  −4 to 4 (zdaxie/PixPro, contrast/models/PixPro.py).

  With `instance`, that many times BYOL's loss is added: a projector and a predictor of its own map
  the pixels, the predictions and the target's projections are averaged over them, and
  −2 mean cos is added in both directions. The authors' scripts have 0.

  Batch norm in the heads is over all pixels of a view, of one micro-batch.

  Attributes:
    p: sharpness of the propagation.
    transform_layers: layers of g; 0 for the identity, two or more have batch norm and ReLU between.
    instance: weight of the instance term.
    hidden: width of the hidden layers of projectors and predictor.
    outputs: D, width of the projections.
    pos_ratio: largest distance of positives, in diagonals of a bin, see
      `losses.views.pixels.positive_pixels`.
    momentum: decay of the target encoder.
    final_momentum: decay at the last step, reached along a half cosine; None for `momentum`
      throughout.

  References:
    [1] Xie et al., https://arxiv.org/abs/2011.10043
  """

  name: ClassVar[str] = 'pixpro'

  p: float = 2.0
  transform_layers: int = 1
  instance: float = 0.0

  def heads(self, sizes):
    """The projector, the values of the propagation, and the heads of the instance term."""
    heads = super().heads(sizes)
    if self.transform_layers:
      heads['values'] = define_head(self.outputs, *self._value_widths)
    if self.instance:
      heads['instance_projector'] = self._head(sizes.image_tokens)
      heads['instance_predictor'] = self._head(self.outputs)
    return heads

  @property
  def _value_widths(self) -> tuple[tuple[int, ...], int]:
    return (self.outputs,) * (self.transform_layers - 1), self.outputs

  def partial(self, inputs, total, heads, memory):
    """The sum over the examples of a part of both directions, divided by B."""
    found = super().partial(inputs, total, heads, memory)
    if not self.instance:
      return found
    own, aims = [], []
    for n in VIEWS:
      pixels = project(heads['instance_projector'], inputs[f'tokens_of_view.{n}'])
      own.append(jnp.mean(project(heads['instance_predictor'], pixels), 1))
      name = 'target.instance_projector'
      aims.append(jnp.mean(project(heads[name], inputs[f'target.tokens_of_view.{n}']), 1))
    terms = sum(losses.cosine_per_example(*pair) - 2 for pair in zip(own, aims[::-1], strict=True))
    instance = jnp.sum(terms) / total
    metrics = {**found.metrics, 'pixels': found.loss, 'instance': instance}
    return found._replace(loss=found.loss + self.instance * instance, metrics=metrics)

  def predict(self, pixels, heads):
    """The propagated pixels."""
    values = project(heads['values'], pixels) if self.transform_layers else pixels
    return propagate(pixels, values, self.p)

  def compare(self, pixels, target, positive):
    """The consistency of each image."""
    return losses.pixpro_per_example(pixels, target, positive)

  def flops(self, sizes):
    """With the propagation, and the heads of the instance term."""
    rows, pairs = (len(VIEWS) * sizes.batch * sizes.patches**n for n in (1, 2))
    found = super().flops(sizes) + 12.0 * pairs * self.outputs
    if self.transform_layers:
      found += head_flops(self.outputs, *self._value_widths, rows)
    if self.instance:
      widths = (self.hidden,), self.outputs, rows
      found += 4 / 3 * head_flops(sizes.image_tokens, *widths) + head_flops(self.outputs, *widths)
    return found
