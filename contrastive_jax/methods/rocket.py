"""CLIP-rocket: CLIP on global and local pairs, the base of SiamLIP, BYOLIP, BarLIP and SwALIP."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.losses import pairwise
from contrastive_jax.methods.lift import streamed
from contrastive_jax.methods.method import Method, Result, Sizes
from contrastive_jax.models import transformer
from contrastive_jax.models.heads import define_head, define_scale, head_flops

SIDES = ('image', 'text')
_SEVERAL = {'image': 'view_features', 'text': 'texts_features'}

# The views [B, W] of each modality.
Views = Mapping[str, list[jax.Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rocket(Method):
  """CLIP-rocket [1]: CLIP on a global pair, and through other projectors on local pairs.

      L = contrastive · L_CL2L
      L_CL2L = ( InfoNCE(image, text) + A · meanₐᵦ InfoNCE_ε(hₐ, hᵦ) ) / (1 + A)

  The global pair is the first view and the first text. The A local images are the views after the
  first, the A local texts the texts after the first, and all pairs (a, b) of them count. h are unit
  vectors from projectors of their own, which map the pooled features, compared with a second
  learned scale, and ε is the label smoothing, as in `smoothed_info_nce`. The paper has
  `config.views = 3`, and `config.texts = 3` that `config.data.text_augmentation` augments. A
  modality without further views takes part with its global one. With one view and one text there
  is no local pair, and no local head: A = 0.

  The paper compares this with further losses beside L_CL2L: `SiamLip`, `ByoLip`, `BarLip` and
  `SwaLip`. The defaults of all are those of the authors' ViT runs (facebookresearch/clip-rocket:
  models.py, losses.py, main.py and repro_exps.txt).

  Attributes:
    local_hidden: width of the two hidden layers of the projectors to h.
    local_scale: the local pairs' inverse temperature at the start.
    smoothing: ε, of the local pairs; the authors' CC3M and YFCC15M runs have 0.1.
    contrastive: weight of L_CL2L: 2 for the authors' sum of both directions, 1 for their average.
    mesh: the mesh over which the batch is sharded; None for one device.

  References:
    [1] Fini et al., https://arxiv.org/abs/2305.08675
  """

  local_hidden: int = 4096
  local_scale: float = 10.0
  smoothing: float = 0.1
  contrastive: float = 2.0
  mesh: jax.sharding.Mesh | None = None

  @property
  def reads(self) -> tuple[str, ...]:
    """The global pair, and the features of all views and texts, by the target encoder too."""
    features = (
      *(f'{side}_features' for side in SIDES),
      *(f'{_SEVERAL[side]}?' for side in SIDES),
    )
    of_target = (f'target.{name}' for name in features if self.target is not None)
    return (*SIDES, 'scale', 'same?', *features, *of_target)

  def heads(self, sizes):
    """The projectors of the local pairs, and their scale."""
    if local_counts(sizes) is None:
      return {}
    hidden = (self.local_hidden,) * 2
    return {'scale': define_scale(self.local_scale)} | {
      f'contrastive_{side}_projector': define_head(width, hidden, sizes.embed)
      for side, width in widths(sizes).items()
    }

  def loss(self, inputs, heads, memory, key):
    """L_CL2L, weighted."""
    return self.contrast(inputs, heads, self.project(inputs, heads))

  def project(self, inputs: Mapping[str, jax.Array], heads: Mapping[str, Any]) -> Views:
    """The unit vectors h [B, D] of the local views of each modality; {} without local pairs."""
    views = views_of(inputs)
    if all(len(own) == 1 for own in views.values()):
      return {}
    features = local(views)
    return {
      side: [transformer.unit(heads[f'contrastive_{side}_projector'](x)) for x in features[side]]
      for side in SIDES
    }

  def contrast(
    self, inputs: Mapping[str, jax.Array], heads: Mapping[str, Any], projected: Views
  ) -> Result:
    """L_CL2L, weighted, of the global pair and of the vectors that `project` gave."""
    options: dict[str, Any] = {'same': inputs.get('same'), 'mesh': self.mesh}
    total = losses.info_nce(inputs['image'], inputs['text'], scale=inputs['scale'], **options)
    metrics = {}
    if projected:
      options |= {'scale': heads['scale'](), 'smoothing': self.smoothing}
      images, texts = projected['image'], projected['text']
      found: list[Any] = [smoothed_info_nce(x, y, **options) for x in images for y in texts]
      # A modality without further views has its global one here.
      A = max(len(images), len(texts))
      total = (total + A * sum(found) / len(found)) / (1 + A)
      metrics = {'local_scale': options['scale']}
    return Result(self.contrastive * total, metrics=metrics | {'contrastive': total})

  def flops(self, sizes):
    """The products of all pairs, and the projectors of the local views and texts."""
    images, texts = local_counts(sizes) or (0, 0)
    total = (1 + images * texts) * streamed()(sizes)
    for width, own in zip(widths(sizes).values(), (images, texts), strict=True):
      total += head_flops(width, (self.local_hidden,) * 2, sizes.embed, own * sizes.batch)
    return total


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


def widths(sizes: Sizes) -> dict[str, int]:
  """The width of the pooled features of each modality."""
  return {'image': sizes.image_features, 'text': sizes.text_features}


def local_counts(sizes: Sizes) -> tuple[int, int] | None:
  """The numbers of local images and texts; None without local pairs."""
  if sizes.views == sizes.texts == 1:
    return None
  return max(1, sizes.views - 1), max(1, sizes.texts - 1)


def projected_rows(sizes: Sizes) -> list[tuple[int, int]]:
  """Per modality, the width of its features and how many rows of them `groups` has."""
  counts = local_counts(sizes) or (0, 0)
  return [
    (width, (1 + own) * sizes.batch)
    for width, own in zip(widths(sizes).values(), counts, strict=True)
  ]


def views_of(inputs: Mapping[str, jax.Array], encoder: str = '') -> Views:
  """The features [B, W] of every view of each modality, the global one first.

  Args:
    inputs: arrays by name, as a method reads them.
    encoder: '' or 'target.', whose features are given.
  """
  found = {}
  for side, several in _SEVERAL.items():
    array = inputs.get(f'{encoder}{several}')
    others = [] if array is None else [array[:, n] for n in range(1, array.shape[1])]
    found[side] = [inputs[f'{encoder}{side}_features'], *others]
  return found


def local(views: Views) -> Views:
  """The views after the first; a modality with one view takes part with that."""
  return {side: own[1:] or own for side, own in views.items()}


def groups(views: Views, separate: bool) -> list[tuple[str, Views]]:
  """The global pair, and the local ones where there are some, for a loss of pairs of projections.

  Args:
    views: from `views_of`.
    separate: whether local pairs have heads of their own.

  Returns:
    The prefix of the heads of each group, '' or 'local_', and its views.
  """
  found: list[tuple[str, Views]] = [('', {side: own[:1] for side, own in views.items()})]
  if any(len(own) > 1 for own in views.values()):
    found.append(('local_' if separate else '', local(views)))
  return found
