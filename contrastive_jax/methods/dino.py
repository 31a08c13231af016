"""DINO: self-distillation of images, from global views to all others."""

import dataclasses

import jax.numpy as jnp

from contrastive_jax.methods.method import Result
from contrastive_jax.methods.self_distillation import SelfDistillation

# Global views, which the target sees; those after them are local.
GLOBALS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dino(SelfDistillation):
  """DINO [1]: views predict the target encoder's prototypes of the global views.

      L = mean over the first two views g, the views v ≠ g and the batch of
            CE( softmax( (h'(g) − c) / τ' ), softmax( h(v) / τ ) )
      c ← m c + (1 − m) mean over the first two views and the batch of h'(g)

  h, h', the center c and the metric `entropy` are those of `SelfDistillation`, whose views before
  the local ones are a text's and one global one. The model sees all views, the target encoder the
  first two, which are global. Those after them are local, as `config.view_augmentation` makes them:
  [1] has up to ten, of fewer pixels. Here all views have one size. The authors' code
  (facebookresearch/dino, main_dino.py) also warms up τ' and freezes the prototypes in the first
  epoch.

  Attributes:
    final_momentum: decay at the last step, reached along a half cosine; None for `momentum`
      throughout.

  References:
    [1] Caron et al., https://arxiv.org/abs/2104.14294
  """

  final_momentum: float | None = 1.0

  @property
  def reads(self) -> tuple[str, ...]:
    """Features of all views, and of the global ones by the target encoder."""
    aims = (f'target.features_of_view.{number}' for number in range(GLOBALS))
    return (f'view_features:{GLOBALS}', *aims)

  def loss(self, inputs, heads, memory, key):
    """The mean cross entropy over pairs of a global view and another; writes the mean target."""
    aims = [
      heads['target.head'](inputs[f'target.features_of_view.{number}']) for number in range(GLOBALS)
    ]
    guesses = heads['head'](inputs['view_features'])
    found = [
      self.cross_entropy(jnp.delete(guesses, number, 1), aim[:, None], memory['center'])
      for number, aim in enumerate(aims)
    ]
    crosses, entropies = (jnp.mean(jnp.stack(each)) for each in zip(*found, strict=True))
    center = jnp.mean(jnp.stack(aims), (0, 1))
    return Result(crosses, {'center': center}, {'entropy': entropies})

  def flops(self, sizes):
    """The head of all views, and forward alone of the global ones."""
    rows = GLOBALS * sizes.batch
    return self._flops(sizes.image_features, rows, sizes.views / GLOBALS)
