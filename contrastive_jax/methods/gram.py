"""GRAM: several modalities contrasted by volume, with a matching loss on hard negatives."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.losses.pairs.gram import gram_negatives
from contrastive_jax.methods.inputs import EMBEDDINGS, parse
from contrastive_jax.methods.lift import streamed
from contrastive_jax.methods.method import Method, Result
from contrastive_jax.models.heads import define_head, head_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gram(Method):
  """GRAM [1]: contrasts an anchor with the other modalities of an example by their volume.

      L = L_volume + matching · L_DAM
      L_volume = ½ meanᵢ CE_ε(−s Vᵢⱼ over j, i) + ½ meanⱼ CE_ε(−s Vᵢⱼ over i, j)
      L_DAM = mean of −log σ(h(aᵢ, xᵢ)), −log σ(−h(aᵢ, xₙ)) and −log σ(−h(aₘ, xᵢ))

  Vᵢⱼ is the volume of the anchor aᵢ and the other modalities xⱼ, see `losses.gram`, and s the
  model's scale. DAM tells matched from unmatched examples: n and m are hard negatives of example
  i, drawn in proportion to softmax(−s V) + 10⁻⁴ over all others. An example without a negative has
  no term.

  The authors compute h by cross-attention in a multimodal encoder, with a weight of 0.1. Here h is
  an MLP with a hidden layer over the concatenated embeddings, which is our reading.

  Attributes:
    modalities: two to four reads of unit embeddings [B, D], the anchor first: 'text', 'image',
      'text.1' for the second text of an example, or an embedding of another tower.
    label_smoothing: ε, at least 0 and below 1.
    matching: weight of L_DAM; 0 for none.
    hidden: width of the hidden layer of h.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: if the modalities are fewer than two or more than four, unknown, or repeat, since
      two equal vectors have volume 0 with any anchor.

  References:
    [1] Cicchetti et al., Gramian Multimodal Representation Learning and Alignment, 2025,
      https://arxiv.org/abs/2412.11959; formulas as in ispamm/GRAM: utils/volume.py, model/gram.py.
  """

  modalities: tuple[str, ...] = ('text', 'image')
  label_smoothing: float = 0.1
  matching: float = 0.0
  hidden: int = 256
  mesh: jax.sharding.Mesh | None = None

  def __post_init__(self):
    found = {parse(name) for name in self.modalities}
    if len(found) < len(self.modalities) or not 2 <= len(found) <= 4:
      raise ValueError(f'modalities = {self.modalities}; use two to four that differ')
    if any(encoder or name not in EMBEDDINGS for encoder, name, _ in found):
      raise ValueError(f'modalities = {self.modalities}; use some of {sorted(EMBEDDINGS)}')

  @property
  def reads(self) -> tuple[str, ...]:
    """The modalities, and what `losses.gram` takes beside them."""
    return (*self.modalities, 'scale', 'same?')

  def heads(self, sizes):
    """h, with `matching`."""
    if not self.matching:
      return {}
    width = len(self.modalities) * sizes.embed
    return {'matching': define_head(width, (self.hidden,), 1, norm='none')}

  def loss(self, inputs, heads, memory, key):
    """L_volume, and L_DAM of negatives that `key` draws."""
    anchor, *others = (inputs[name] for name in self.modalities)
    options: dict[str, Any] = {'scale': inputs['scale'], 'same': inputs.get('same')}
    options['mesh'] = self.mesh
    contrast = losses.gram(anchor, *others, label_smoothing=self.label_smoothing, **options)
    if not self.matching:
      return Result(contrast)
    negatives = gram_negatives(key, anchor, *others, **options)
    matching = _match(heads['matching'], anchor, jnp.concatenate(others, 1), *negatives)
    metrics = {'contrast': contrast, 'matching': matching}
    return Result(contrast + self.matching * matching, metrics=metrics)

  def flops(self, sizes):
    """The pairs' products, and the head's three visits of each example."""
    products = len(self.modalities) - 1
    total = products * streamed()(sizes, label_smoothing=self.label_smoothing)
    if not self.matching:
      return total
    # Forward alone: the logarithms of the sums, and two draws.
    total += 3 * 2.0 * products * sizes.batch**2 * sizes.embed
    width = len(self.modalities) * sizes.embed
    return total + head_flops(width, (self.hidden,), 1, 3 * sizes.batch)


def _match(head, anchor, others, of_anchors, of_others) -> jax.Array:
  """L_DAM of `Gram`, of [B, D] and [B, (k − 1) D]; 0 without negatives.

  Args:
    head: [3B, k D] -> logits [3B, 1].
    anchor: vectors of the anchors.
    others: those of the other modalities, concatenated.
    of_anchors: [B] the row of `others` that is the negative of each anchor; −1 for none.
    of_others: [B] the row of `anchor` that is the negative of each of the others; −1 for none.
  """
  anchors = jnp.concatenate([anchor, anchor, anchor[of_others]])
  pairs = jnp.concatenate([anchors, jnp.concatenate([others, others[of_anchors], others])], 1)
  matched, *unmatched = head(pairs).reshape(3, -1)
  entropies = jax.nn.softplus(-matched) + sum(map(jax.nn.softplus, unmatched))
  counted = of_anchors >= 0
  return jnp.sum(jnp.where(counted, entropies, 0.0)) / jnp.maximum(3 * jnp.sum(counted), 1)
