"""SwALIP: views predict the balanced assignments of other views, beside CLIP-rocket."""

import dataclasses
from typing import Any

from contrastive_jax import losses
from contrastive_jax.methods.method import Result
from contrastive_jax.methods.rocket import Rocket, local_counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwaLip(Rocket):
  """SwALIP [1]: SwAV between image and text, beside `Rocket`'s CLIP on many views.

      L = assignment · meanₐᵦ CE(s hₐ hᵦᵀ, Sinkhorn(hₐ₊₁ hᵦ₊₁ᵀ / ε)) + contrastive · L_CL2L

  A pair (a, b) of a local image and a local text predicts how the pair of the next views of both,
  in a circle, assigns the images of the whole batch to its texts, and the texts to the images: with
  two local views each, the other two. The assignments are balanced and have no gradient, see
  `losses.swapped_assignment`. A modality with one local view takes part with that on both sides.
  Without local pairs this is CLIP.

  h and the scale s are those of L_CL2L: there are no further heads. Prototypes, which the authors
  have in an earlier version, are the other modality's batch here.

  Attributes:
    smoothing: as in `Rocket`; the authors' code takes 0 alone here.
    assignment: weight of the assignments.
    epsilon: ε, the temperature of the assignments.
    iterations: of Sinkhorn.

  References:
    [1] Fini et al., https://arxiv.org/abs/2305.08675
  """

  smoothing: float = 0.0
  assignment: float = 0.2
  epsilon: float = 0.05
  iterations: int = 3

  def loss(self, inputs, heads, memory, key):
    """The mean over local pairs, and the contrastive loss of global and local pairs."""
    projected = self.project(inputs, heads)
    contrast = self.contrast(inputs, heads, projected)
    if not projected:
      return contrast
    options: dict[str, Any] = {
      'epsilon': self.epsilon,
      'iterations': self.iterations,
      'mesh': self.mesh,
    }
    options |= {'scale': heads['scale']()}
    found: list[Any] = [
      losses.swapped_assignment(image, text, image_target, text_target, **options)
      for image, image_target in _with_next(projected['image'])
      for text, text_target in _with_next(projected['text'])
    ]
    assignment = sum(found) / len(found)
    metrics = {**contrast.metrics, 'assignment': assignment}
    return Result(self.assignment * assignment + contrast.loss, metrics=metrics)

  def flops(self, sizes):
    """Those of CLIP-rocket, and the assignments of all local pairs."""
    images, texts = local_counts(sizes) or (0, 0)
    # Sinkhorn's passes, those of an expectation without gradients of its scores, and a log-sum-exp.
    products = (2 * self.iterations - 1) + 6 + 4
    return super().flops(sizes) + images * texts * 2.0 * products * sizes.batch**2 * sizes.embed


def _with_next(views):
  """Each view, and the next one in a circle."""
  return list(zip(views, [*views[1:], *views[:1]], strict=True))
