"""BYOLIP and SiamLIP: each modality predicts the other's projection, beside CLIP-rocket."""

import dataclasses

import jax

from contrastive_jax import losses
from contrastive_jax.methods.method import Momentum, Result
from contrastive_jax.methods.rocket import (
  SIDES,
  Rocket,
  Views,
  groups,
  projected_rows,
  views_of,
  widths,
)
from contrastive_jax.models.heads import define_head, head_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiamLip(Rocket):
  """SiamLIP [1]: SimSiam between image and text, beside `Rocket`'s CLIP on many views.

      L = mean D(p, v) + contrastive · L_CL2L,   D(p, v) = 2 − 2 mean cos(p, sg v)
      L_CL2L = ( InfoNCE(image, text) + A · meanₐᵦ InfoNCE_ε(hₐ, hᵦ) ) / (1 + A)

  Projectors map the pooled features of both modalities to v, and predictors map v to p. D runs over
  both directions of the global pair, which is the first view and the first text, and over both
  directions of all local pairs (a, b) of an image and a text. With one view and one text there is
  no local pair, and the method is CLIP with D of the global pair (A = 0), without local heads.

  Attributes:
    hidden: width of the hidden layer of each projector and predictor.
    outputs: width of p and v.
    separate: give local pairs projectors and predictors of their own; the authors share those of
      the global pair in their ResNet runs.

  References:
    [1] Fini et al., https://arxiv.org/abs/2305.08675
  """

  hidden: int = 2048
  outputs: int = 128
  separate: bool = True

  def heads(self, sizes):
    """Those of CLIP-rocket, and projectors and predictors of both modalities."""
    made, hidden = dict(super().heads(sizes)), (self.hidden,)
    for kind in ('', 'local_') if made and self.separate else ('',):
      for side, width in widths(sizes).items():
        projector = define_head(width, hidden, self.outputs, last_norm=True)
        made[f'{kind}{side}_projector'] = projector
        made[f'{kind}{side}_predictor'] = define_head(self.outputs, hidden, self.outputs)
    return made

  def loss(self, inputs, heads, memory, key):
    """The mean distance D, and the contrastive loss of global and local pairs."""
    encoder = '' if self.target is None else 'target.'
    online, aimed = (groups(views_of(inputs, which), self.separate) for which in ('', encoder))
    apart = []
    for (kind, views), (_, targets) in zip(online, aimed, strict=True):
      apart += _distances(heads, kind, encoder, views, targets)
    distance = sum(apart) / len(apart)
    contrast = super().loss(inputs, heads, memory, key)
    metrics = {**contrast.metrics, 'distance': distance}
    return Result(distance + contrast.loss, metrics=metrics)

  def flops(self, sizes):
    """Those of CLIP-rocket, and the projectors and predictors of all views and texts."""
    total, hidden = super().flops(sizes), (self.hidden,)
    # Projectors of the target run forward alone: a third of a step's operations.
    projections = 1 + (self.target is not None) / 3
    for width, rows in projected_rows(sizes):
      total += projections * head_flops(width, hidden, self.outputs, rows)
      total += head_flops(self.outputs, hidden, self.outputs, rows)
    return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByoLip(SiamLip):
  """BYOLIP [1]: `SiamLip` whose v come from a target encoder and the target's projectors.

  Attributes:
    momentum: decay of the target encoder.
    final_momentum: decay at the last step, reached along a half cosine as in BYOL; None for
      `momentum` throughout, as the authors have it.

  References:
    [1] Fini et al., https://arxiv.org/abs/2305.08675
  """

  momentum: float = 0.99
  final_momentum: float | None = None

  @property
  def target(self) -> Momentum:
    """The encoder of v."""
    return Momentum(self.momentum, self.final_momentum)


def _distances(heads, kind: str, encoder: str, online: Views, aimed: Views) -> list[jax.Array]:
  """D of every pair of an image and a text, in both directions.

  Args:
    heads: modules by name.
    kind: '' or 'local_', the prefix of the heads.
    encoder: '' or 'target.', whose projections are predicted.
    online: features [B, W] of each view, by modality.
    aimed: the same of that encoder.
  """
  projections = {
    side: [heads[f'{kind}{side}_projector'](x) for x in online[side]] for side in SIDES
  }
  aims = projections
  if encoder:
    aims = {
      side: [heads[f'{encoder}{kind}{side}_projector'](x) for x in aimed[side]] for side in SIDES
    }
  found = []
  for side, other in (SIDES, SIDES[::-1]):
    predictions = map(heads[f'{kind}{side}_predictor'], projections[side])
    found += [losses.cosine(p, v) for p in predictions for v in aims[other]]
  return found
