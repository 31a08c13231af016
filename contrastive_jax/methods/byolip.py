"""BYOLIP and SiamLIP: each modality predicts the other's projection, beside CLIP on many views."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.losses import pairwise
from contrastive_jax.methods.lift import streamed
from contrastive_jax.methods.method import Method, Momentum, Result, Sizes
from contrastive_jax.models import transformer
from contrastive_jax.models.heads import define_head, define_scale, head_flops

_SIDES = ('image', 'text')
_SEVERAL = {'image': 'view_features', 'text': 'texts_features'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiamLip(Method):
  """SiamLIP [1]: SimSiam between image and text, beside CLIP on global and local pairs.

      L = mean D(p, v) + contrastive · L_CL2L,   D(p, v) = 2 − 2 mean cos(p, sg v)
      L_CL2L = ( InfoNCE(image, text) + A · meanₐᵦ InfoNCE_ε(hₐ, hᵦ) ) / (1 + A)

  Projectors map the pooled features of both modalities to v, and predictors map v to p. D runs over
  both directions of the global pair, which is the first view and the first text, and over both
  directions of all local pairs (a, b) of an image and a text. h are unit vectors from projectors of
  their own, compared with a second learned scale, and ε is the label smoothing, as in
  `smoothed_info_nce`.

  The A local images are the views after the first, the A local texts the texts after the first:
  the paper has `config.views = 3` and three augmented texts, `config.texts = 3`. A modality
  without further views takes part with its global one. With one view and one text there is no local
  pair, and the method is CLIP with D of the global pair (A = 0), without local heads.

  The defaults are those of the authors' ViT runs (facebookresearch/clip-rocket: models.py,
  losses.py, main.py and repro_exps.txt).

  Attributes:
    hidden: width of the hidden layer of each projector and predictor.
    outputs: width of p and v.
    local_hidden: width of the two hidden layers of the projectors to h.
    local_scale: the local pairs' inverse temperature at the start.
    separate: give local pairs projectors and predictors of their own; the authors share those of
      the global pair in their ResNet runs.
    smoothing: ε, of the local pairs; the authors' CC3M and YFCC15M runs have 0.1.
    contrastive: weight of L_CL2L: 2 for the authors' sum of both directions, 1 for their average.
    mesh: the mesh over which the batch is sharded; None for one device.

  References:
    [1] Fini et al., https://arxiv.org/abs/2305.08675
  """

  hidden: int = 2048
  outputs: int = 128
  local_hidden: int = 4096
  local_scale: float = 10.0
  separate: bool = True
  smoothing: float = 0.1
  contrastive: float = 2.0
  mesh: jax.sharding.Mesh | None = None

  @property
  def reads(self) -> tuple[str, ...]:
    """The global pair, and the features of all views and texts, by the target encoder too."""
    features = (
      *(f'{side}_features' for side in _SIDES),
      *(f'{_SEVERAL[side]}?' for side in _SIDES),
    )
    of_target = (f'target.{name}' for name in features if self.target is not None)
    return (*_SIDES, 'scale', 'same?', *features, *of_target)

  def heads(self, sizes):
    """Projectors and predictors of both modalities, and those of the local pairs with a scale."""
    widths = {'image': sizes.image_features, 'text': sizes.text_features}
    is_local = _several(sizes) is not None
    made = {'scale': define_scale(self.local_scale)} if is_local else {}
    hidden, outputs = (self.hidden,), self.outputs
    for side, width in widths.items():
      for kind in ('', 'local_') if is_local and self.separate else ('',):
        made[f'{kind}{side}_projector'] = define_head(width, hidden, outputs, last_norm=True)
        made[f'{kind}{side}_predictor'] = define_head(outputs, hidden, outputs)
      if is_local:
        local = define_head(width, (self.local_hidden,) * 2, sizes.embed)
        made[f'contrastive_{side}_projector'] = local
    return made

  def loss(self, inputs, heads, memory, key):
    """The mean distance D, and the contrastive loss of global and local pairs."""
    encoder = '' if self.target is None else 'target.'
    online, aimed = _features(inputs), _features(inputs, encoder)
    options: dict[str, Any] = {'same': inputs.get('same'), 'mesh': self.mesh}
    total = losses.info_nce(inputs['image'], inputs['text'], scale=inputs['scale'], **options)
    apart = _distances(heads, '', encoder, _first(online), _first(aimed))
    metrics = {}
    if A := max(map(len, online.values())) - 1:
      kind, scale = 'local_' if self.separate else '', heads['scale']()
      apart += _distances(heads, kind, encoder, _local(online), _local(aimed))
      options |= {'scale': scale, 'smoothing': self.smoothing}
      total = (total + A * _contrast(heads, _local(online), **options)) / (1 + A)
      metrics = {'local_scale': scale}
    distance = sum(apart) / len(apart)
    metrics |= {'distance': distance, 'contrastive': total}
    return Result(distance + self.contrastive * total, metrics=metrics)

  def flops(self, sizes):
    """The pairs' products, and the heads of all views and texts."""
    images, texts = _several(sizes) or (0, 0)
    total = (1 + images * texts) * streamed()(sizes)
    hidden, local = (self.hidden,), (self.local_hidden,) * 2
    # Projectors of the target run forward alone: a third of a step's operations.
    projections = 1 + (self.target is not None) / 3
    for width, own in ((sizes.image_features, images), (sizes.text_features, texts)):
      rows = (1 + own) * sizes.batch
      total += projections * head_flops(width, hidden, self.outputs, rows)
      total += head_flops(self.outputs, hidden, self.outputs, rows)
      total += head_flops(width, local, sizes.embed, own * sizes.batch)
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


def smoothed_info_nce(
  image: jax.Array, text: jax.Array, *, scale: jax.Array | float, smoothing: float, **options
) -> jax.Array:
  """InfoNCE with label smoothing: a share ε of each target falls to all B columns alike.

      L_ε = mean over rows and columns of (1 − ε) (lseⱼ sᵢⱼ − sᵢᵢ) + ε (lseⱼ sᵢⱼ − meanⱼ sᵢⱼ)
          = InfoNCE + ε (mean sᵢᵢ − mean sᵢⱼ)

  The mean over all pairs is the product of the mean vectors, so the B × B scores are not needed.
  It includes pairs of equal captions, which `same` leaves out of the log-sum-exp.

  Args:
    image: [B, D] unit vectors, row i paired with row i of `text`.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    smoothing: ε from 0 to 1.
    **options: of `losses.info_nce`.

  Returns:
    Scalar, in nats.
  """
  positive = jnp.mean(pairwise.paired(image, text))
  average = pairwise.paired(jnp.mean(image, 0)[None], jnp.mean(text, 0)[None])[0]
  plain = losses.info_nce(image, text, scale=scale, **options)
  return plain + smoothing * scale * (positive - average)


def _distances(heads, kind: str, encoder: str, online, aimed) -> list[jax.Array]:
  """D of every pair of an image and a text, in both directions.

  Args:
    heads: modules by name.
    kind: '' or 'local_', the prefix of the heads.
    encoder: '' or 'target.', whose projections are predicted.
    online: features [B, W] of each view, by modality.
    aimed: the same of that encoder.
  """
  projections = {
    side: [heads[f'{kind}{side}_projector'](x) for x in online[side]] for side in _SIDES
  }
  aims = projections
  if encoder:
    aims = {
      side: [heads[f'{encoder}{kind}{side}_projector'](x) for x in aimed[side]] for side in _SIDES
    }
  found = []
  for side, other in (_SIDES, _SIDES[::-1]):
    predictions = map(heads[f'{kind}{side}_predictor'], projections[side])
    found += [losses.cosine(p, v) for p in predictions for v in aims[other]]
  return found


def _contrast(heads, features, **options) -> jax.Array:
  """The mean smoothed InfoNCE over the pairs of a local image and a local text."""
  images, texts = (
    [transformer.unit(heads[f'contrastive_{side}_projector'](x)) for x in features[side]]
    for side in _SIDES
  )
  found: list[Any] = [smoothed_info_nce(x, y, **options) for x in images for y in texts]
  return sum(found) / len(found)


def _several(sizes: Sizes) -> tuple[int, int] | None:
  """The numbers of local images and texts; None without local pairs."""
  if sizes.views == sizes.texts == 1:
    return None
  return max(1, sizes.views - 1), max(1, sizes.texts - 1)


def _features(inputs: Mapping[str, jax.Array], encoder: str = '') -> dict[str, list[jax.Array]]:
  """The features [B, W] of every view of each modality, the global one first."""
  found = {}
  for side, several in _SEVERAL.items():
    array = inputs.get(f'{encoder}{several}')
    others = [] if array is None else [array[:, n] for n in range(1, array.shape[1])]
    found[side] = [inputs[f'{encoder}{side}_features'], *others]
  return found


def _first(features: Mapping[str, list]) -> dict[str, list]:
  return {side: views[:1] for side, views in features.items()}


def _local(features: Mapping[str, list]) -> dict[str, list]:
  """The views after the first; a modality with one view takes part with that."""
  return {side: views[1:] or views for side, views in features.items()}
