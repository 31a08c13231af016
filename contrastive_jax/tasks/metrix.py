"""Metrix: a loss of metric learning on examples and on mixtures of two classes."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from contrastive_jax import losses
from contrastive_jax.data.augmentation import augment
from contrastive_jax.data.images import normalize
from contrastive_jax.losses.labels.mixing import draw_partners, mix
from contrastive_jax.models.encoder import Encoder
from contrastive_jax.models.heads import Prototypes
from contrastive_jax.models.transformer import unit

LOSSES: dict[str, Callable[..., jax.Array]] = {
  'contrastive_margin': losses.contrastive_margin,
  'multi_similarity': losses.multi_similarity,
  'proxy_anchor': losses.proxy_anchor,
}
LEVELS = ('none', 'input', 'feature', 'embedding')


class Embedder(nnx.Module):
  """An encoder, and the proxies of the training classes where a loss takes them."""

  def __init__(self, model: Mapping[str, Any], proxies: int, *, rngs: nnx.Rngs):
    self.encoder = Encoder(**model, rngs=rngs)
    self.proxies = Prototypes(model['embed'], proxies, rngs=rngs) if proxies else None

  def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
    """What each level mixes: normalized images, pooled features [B, W], unit vectors [B, D]."""
    embeddings, features, _ = self.encoder.image_embedding(images)
    return {'input': images, 'feature': features, 'embedding': embeddings}

  def embed(self, level: str, x: jax.Array) -> jax.Array:
    """Unit vectors [B, D] of what is mixed at a level."""
    if level == 'embedding':
      return unit(x)
    return self.encoder.project(x) if level == 'feature' else self(x)['embedding']


def metrix_loss(
  module: Embedder, batch: Mapping[str, jax.Array], key: jax.Array, config: ConfigDict
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Metrix: the loss of a class-balanced batch, and that of its mixtures with other classes.

      L = L(examples) + w L(mixtures),   v = λ x + (1 − λ) x_π,   λ ~ Beta(α, α)

  x is an image, its pooled features or its embedding, at the level of `config.mixup`. One λ serves
  a batch, and the label of a mixture is λ for the class of x and 1 − λ for that of its partner.
  Anchors are all examples of the two classes but x (mixtures of positives and negatives), or x
  alone (of anchors and negatives), one of the two at random; or both proxies.

  Args:
    module: the encoder.
    batch: 'image' [B, S, S, 3], from 0 to 255, and 'label' [B], of a `ClassBalanced` batch.
    key: draws the augmentation and the mixtures.
    config: of the task, see configs/methods/metrix.py.

  Returns:
    The loss, and its parts, 'clean' and 'mixed'.

  References:
    Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, 2022,
    https://arxiv.org/abs/2106.04990; types and weights as in billpsomas/Metrix_ICLR22: train.py,
    mixup/losses.py, mixup/utils.py.
  """
  of_augmentation, of_mixture = jax.random.split(key)
  labels, levels = batch['label'], module(normalize(_augment(of_augmentation, batch, config)))
  clean, mixed = LOSSES[config.loss], config.mixup
  anchors = levels['embedding']
  proxies = () if module.proxies is None else (module.proxies(),)
  value = clean(anchors, labels, *proxies)
  if mixed.level == 'none':
    return value, {'clean': value}
  of_pairs, of_type = jax.random.split(of_mixture)
  embeddings, partner, share = embed_mixtures(of_pairs, module, levels, config)
  classes = jnp.stack([labels, labels[partner]], 1)
  if proxies:
    term = mixed.weight * clean(embeddings, classes, *proxies, share=share)
  else:
    rows = jnp.arange(len(labels))
    own = jnp.stack([rows, rows + len(labels)], 1)  # Each anchor is a class of its own.
    options = {'share': share, 'anchors': anchors}
    term = jax.lax.cond(
      jax.random.bernoulli(of_type),
      lambda: mixed.weight * clean(embeddings, classes, anchor_classes=labels, **options),
      lambda: (
        mixed.anchor_weight * clean(embeddings, own, anchor_classes=rows, diagonal=True, **options)
      ),
    )
  return value + term, {'clean': value, 'mixed': term}


def embed_mixtures(
  key: jax.Array, module: Embedder, levels: Mapping[str, jax.Array], config: ConfigDict
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Mixtures of a class-balanced batch with other classes.

  Args:
    key: draws the partners and λ.
    module: the encoder.
    levels: what it gives of the batch.
    config: of `mixup` and `batch`.

  Returns:
    Embeddings [B, D], the partners [B] of the rows, and the share λ [B] of the rows.
  """
  of_partner, of_share = jax.random.split(key)
  level, alpha = config.mixup.level, config.mixup.alpha
  partner = draw_partners(of_partner, config.batch.classes, config.batch.examples)
  share = jnp.full(len(partner), jax.random.beta(of_share, alpha, alpha))
  return module.embed(level, mix(levels[level], partner, share)), partner, share


def _augment(key, batch, config) -> jax.Array:
  keys = jax.random.split(key, len(batch['image']))
  size, strengths = config.model.image.size, config.augmentation.to_dict()
  return augment(keys, batch['image'], size, strengths)
