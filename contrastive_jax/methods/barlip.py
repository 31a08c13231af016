"""BarLIP: Barlow Twins between image and text, beside CLIP-rocket."""

import dataclasses
from typing import Any

from contrastive_jax import losses
from contrastive_jax.methods.method import Result
from contrastive_jax.methods.rocket import (
  SIDES,
  Rocket,
  groups,
  local_counts,
  projected_rows,
  views_of,
  widths,
)
from contrastive_jax.models.heads import define_head, head_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class BarLip(Rocket):
  """BarLIP [1]: features of image and text correlate with themselves alone, beside `Rocket`.

      L = correlation · mean L_bar(v_image, v_text) + contrastive · L_CL2L
      L_bar = Σᵢ (Cᵢᵢ − 1)² + λ Σ_{i ≠ j} Cᵢⱼ²,   C = v_imageᵀ v_text / B

  Projectors map the pooled features of both modalities to v, whose features are standardized over
  the whole batch, see `losses.barlow_twins`. The mean runs over the global pair and all local
  pairs. The authors' last batch norm has a learned scale and offset; v has none, as in Barlow
  Twins, so that C is a correlation.

  C, 8,192² in the paper, is reduced in blocks: memory is linear in the batch and in `outputs`.

  Attributes:
    hidden: width of the two hidden layers of each projector.
    outputs: width of v.
    separate: give local pairs projectors of their own; the authors share those of the global pair
      in their ResNet runs.
    off_diagonal: λ.
    correlation: weight of L_bar.

  References:
    [1] Fini et al., https://arxiv.org/abs/2305.08675
  """

  hidden: int = 3000
  outputs: int = 8192
  separate: bool = True
  off_diagonal: float = 5e-3
  correlation: float = 0.025

  def heads(self, sizes):
    """Those of CLIP-rocket, and projectors of both modalities."""
    made, hidden = dict(super().heads(sizes)), (self.hidden,) * 2
    for kind in ('', 'local_') if made and self.separate else ('',):
      for side, width in widths(sizes).items():
        made[f'{kind}{side}_projector'] = define_head(width, hidden, self.outputs)
    return made

  def loss(self, inputs, heads, memory, key):
    """The mean of L_bar, and the contrastive loss of global and local pairs."""
    found: list[Any] = []
    options: dict[str, Any] = {'off_diagonal': self.off_diagonal, 'mesh': self.mesh}
    for kind, views in groups(views_of(inputs), self.separate):
      images, texts = ([heads[f'{kind}{side}_projector'](x) for x in views[side]] for side in SIDES)
      found += [losses.barlow_twins(x, y, **options) for x in images for y in texts]
    correlation = sum(found) / len(found)
    contrast = super().loss(inputs, heads, memory, key)
    metrics = {**contrast.metrics, 'correlation': correlation}
    return Result(self.correlation * correlation + contrast.loss, metrics=metrics)

  def flops(self, sizes):
    """Those of CLIP-rocket, the correlations, and the projectors of all views and texts."""
    images, texts = local_counts(sizes) or (0, 0)
    # A sum over D × D pairs, whose gradient takes three products.
    total = super().flops(sizes) + 6.0 * (1 + images * texts) * self.outputs**2 * sizes.batch
    for width, rows in projected_rows(sizes):
      total += head_flops(width, (self.hidden,) * 2, self.outputs, rows)
    return total
