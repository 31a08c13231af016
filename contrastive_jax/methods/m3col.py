"""M3CoL: classifiers of image, text and both, with a contrastive loss of mixed embeddings."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from contrastive_jax import losses
from contrastive_jax.methods.lift import streamed
from contrastive_jax.methods.method import Method, Result
from contrastive_jax.methods.rocket import SIDES
from contrastive_jax.models.heads import define_head, head_flops
from contrastive_jax.models.transformer import unit


@dataclasses.dataclass(frozen=True, kw_only=True)
class M3CoL(Method):
  """M3CoL [1]: multimodal classification with multimodal mixup contrastive learning.

      L = CE_fused + CE_image + CE_text + contrastive · L_contrast
      L_contrast = M(mix(image), text) + M(mix(text), image)     before `switch`
                   S(image, text) + S(text, image)               from then on

  CE are the cross entropies of linear classifiers of the image's embedding, the text's, and both
  concatenated. M is `losses.mixup_info_nce`, and S is `losses.soft_target_info_nce` with the
  similarities of its second argument as targets, differentiable. mix(x)ᵢ is βᵢ xᵢ + (1 − βᵢ) x_πᵢ
  at length 1, with a random permutation π per modality, and βᵢ ~ Beta(α, α) with probability p,
  else 1. The partner of an example may be itself.

  In the authors' code everything reads the [CLS] features of pretrained encoders of one width,
  mixed before their normalization, and the classifiers are perceptrons with two hidden layers and
  dropout. Here everything reads the unit embeddings of the two towers, which are mixed at length 1;
  the classifiers are linear, on embeddings times √D, whose entries have a mean square of 1. These
  parts are our reading. For three modalities or more, [1] goes round them; here there are two.

  Attributes:
    contrastive: weight of L_contrast; with 0 it is left out.
    p: probability that an example is mixed.
    alpha: α, over 0.
    scale: inverse temperature of M.
    soft_scale: inverse temperature of S and its targets.
    switch: share of the run's steps that take M.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: if p or switch is outside [0, 1], or alpha, scale or soft_scale is not over 0; from
      `heads`, if `config.data.classes` is 0.

  References:
    [1] Kumar et al., Harnessing Shared Relations via Multimodal Mixup Contrastive Learning for
      Multimodal Classification, 2024, https://arxiv.org/abs/2409.17777; formulas as in
      RaghavSinghal10/M3CoL: model/model.py, model/utils.py, train_image_text.py.
  """

  contrastive: float = 0.1
  p: float = 0.5
  alpha: float = 0.15
  scale: float = 10.0
  soft_scale: float = 8.0
  switch: float = 0.33
  mesh: jax.sharding.Mesh | None = None

  reads = (*SIDES, 'labels', 'progress')

  def __post_init__(self):
    for name in ('p', 'switch'):
      if not 0 <= (value := getattr(self, name)) <= 1:
        raise ValueError(f'{name} = {value}; use a number in [0, 1]')
    for name in ('alpha', 'scale', 'soft_scale'):
      if not (value := getattr(self, name)) > 0:
        raise ValueError(f'{name} = {value}; use a number over 0')

  def heads(self, sizes):
    """The linear classifiers."""
    if not sizes.classes:
      raise ValueError(
        'config.data.classes = 0, and config.objective.m3col trains classifiers; give the number '
        'of classes of config.data.labels'
      )
    return {
      name: define_head(width, (), sizes.classes, norm='none')
      for name, width in _widths(sizes).items()
    }

  def loss(self, inputs, heads, memory, key):
    """The cross entropies and L_contrast, of mixtures that `key` draws."""
    root = inputs['image'].shape[1] ** 0.5
    features = {side: root * inputs[side].astype(jnp.float32) for side in SIDES}
    features['fused'] = jnp.concatenate([features[side] for side in SIDES], 1)
    labels, loss, metrics = inputs['labels'], jnp.float32(0), {}
    for name, x in features.items():
      logits = heads[name](x)
      entropies = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
      metrics[f'{name}_entropy'] = jnp.mean(entropies)
      metrics[f'{name}_accuracy'] = jnp.mean(jnp.argmax(logits, 1) == labels)
      loss += metrics[f'{name}_entropy']
    if self.contrastive:
      pair = (inputs[side] for side in SIDES)
      metrics['contrast'] = jax.lax.cond(
        inputs['progress'] < self.switch, self._mixup, self._soft, key, *pair
      )
      loss += self.contrastive * metrics['contrast']
    return Result(loss, metrics=metrics)

  def _mixup(self, key: jax.Array, *pair: jax.Array) -> jax.Array:
    """M in both directions."""
    total = jnp.float32(0)
    for own, x, other in zip(jax.random.split(key), pair, pair[::-1], strict=True):
      mixed, partner, share = mix(own, x, self.p, self.alpha)
      total += losses.mixup_info_nce(mixed, other, partner, share, scale=self.scale, mesh=self.mesh)
    return total

  def _soft(self, key: jax.Array, *pair: jax.Array) -> jax.Array:
    """S in both directions."""
    options: dict[str, Any] = {'scale': self.soft_scale, 'mesh': self.mesh}
    options['target_scale'] = self.soft_scale
    total = jnp.float32(0)
    for x, other in zip(pair, pair[::-1], strict=True):
      total += losses.soft_target_info_nce(x, other, targets=other, **options)
    return total

  def flops(self, sizes):
    """The classifiers, and the pairs' products of S, which are more than those of M."""
    total = 2 * streamed(12)(sizes) if self.contrastive else 0.0
    return total + sum(
      head_flops(width, (), sizes.classes, sizes.batch) for width in _widths(sizes).values()
    )


def mix(
  key: jax.Array, x: jax.Array, p: float, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mixtures of each row with another, at length 1.

  Args:
    key: draws the partners and shares.
    x: [B, D] vectors.
    p: probability that a row is mixed.
    alpha: parameter of the symmetric beta distribution of the shares.

  Returns:
    The mixtures [B, D], in the dtype of x; the row that each is mixed with, a permutation [B]; and
    its own share [B], 1 where it is not mixed.
  """
  of_partner, of_share, of_selection = jax.random.split(key, 3)
  partner = jax.random.permutation(of_partner, len(x))
  share = jax.random.beta(of_share, alpha, alpha, x.shape[:1])
  share = jnp.where(jax.random.bernoulli(of_selection, p, x.shape[:1]), share, 1.0)
  mixed = share[:, None] * x + (1 - share)[:, None] * x[partner]
  return unit(mixed).astype(x.dtype), partner, share


def _widths(sizes) -> dict[str, int]:
  """Widths of what is classified, by head."""
  return {**dict.fromkeys(SIDES, sizes.embed), 'fused': len(SIDES) * sizes.embed}
