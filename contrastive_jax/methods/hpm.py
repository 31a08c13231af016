"""HPM: a masked autoencoder that predicts which patches are hard, and masks them."""

import dataclasses

import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.losses.tokens.patches import share_in_order
from contrastive_jax.methods.mae import Mae
from contrastive_jax.methods.method import Momentum, Result, Slot


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hpm(Mae):
  """Hard patches mining [1]: MAE, with a loss predictor whose moving average chooses the masks.

      L = MAE + w mean over images and pairs of masked patches with lᵢ > lⱼ of
                log( 1 + exp(rⱼ − rᵢ) )

  l are the errors of the reconstruction, see `Mae`, and r those that the model predicts, see
  `losses.patch_ranking`. The target encoder, a moving average, predicts the errors of all patches
  from the whole image. A share ρ of the masked patches are those with the highest predictions, and
  the rest is drawn from the others. Masks go from easy to hard: ρ grows with the share of steps
  that are done, from 0 to `hard`.

  With `hard` = 0 the masks are random, and no target is kept. With w = 0 too it is MAE: the
  predictor then has no gradient.

  The authors' momentum grows from 0.999 to 0.9999 in the first 100 of up to 1600 epochs, and their
  ρ once per epoch.

  Attributes:
    ranking: w.
    hard: ρ at the end of training; 0 for random masks.
    momentum: decay of the target encoder.
    final_momentum: decay at the last step, reached along a half cosine; None for `momentum`
      throughout.

  References:
    [1] Wang et al., https://arxiv.org/abs/2312.13714; as in Haochen-Wang409/HPM:
      models_mae_learn_loss.py, engine_pretrain.py
  """

  ranking: float = 1.0
  hard: float = 0.5
  momentum: float = 0.999
  final_momentum: float | None = 0.9999

  def __post_init__(self):
    if not 0 <= self.hard <= 1:
      raise ValueError(f'hard = {self.hard}; use a share from 0 to 1')

  @property
  def reads(self) -> tuple[str, ...]:
    """Errors and predictions of the masked patches, and the target's of all."""
    own = (*super().reads, 'predicted_errors')
    return (*own, 'progress', 'target.predicted_errors') if self.hard else own

  @property
  def target(self) -> Momentum | None:
    """The encoder that chooses the masks."""
    return Momentum(self.momentum, self.final_momentum) if self.hard else None

  def memory(self, sizes):
    """ρ."""
    return {'share': Slot(())} if self.hard else {}

  def transform(self, view, part, target, memory, keys):
    """The first view with the `hardness` [B, P] of its patches, and ρ."""
    if view or not self.hard:
      return part
    return {**part, 'hardness': target.predicted_errors, 'hard_share': memory['share']}

  def loss(self, inputs, heads, memory, key):
    """The two terms; writes ρ of the next step."""
    errors = inputs['patch_errors']
    given = inputs['predicted_errors'], errors
    ranking, ordered = losses.patch_ranking(*given), share_in_order(*given)
    reconstruction = jnp.mean(errors)
    metrics = {'reconstruction': reconstruction, 'ranking': ranking, 'ordered': ordered}
    writes = {}
    if self.hard:
      writes = {'share': jnp.float32(self.hard * inputs['progress'])}
      metrics['hard'] = memory['share']
    return Result(reconstruction + self.ranking * ranking, writes, metrics)

  def update(self, memory, writes, heads, step):
    """Moves ρ."""
    return dict(writes)
