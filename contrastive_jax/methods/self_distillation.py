"""Self-distillation and masked prediction: the self-supervised terms of SigLIP 2."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.methods.method import Method, Momentum, Result, Slot
from contrastive_jax.models.heads import define_prototype_head, head_flops

# The global view: the first one goes with the text, and those after this one are local.
GLOBAL = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfDistillation(Method):
  """Local-to-global self-distillation of images, of SigLIP 2 [1] and SILC [2], in DINO's form [3].

      L = mean over the batch and its local views v of
            CE( softmax( (h'(g) − c) / τ' ), softmax( h(v) / τ ) )
      c ← m c + (1 − m) mean over the batch of h'(g)

  h maps the pooled image features of a view to its cosines with K prototypes, see `PrototypeHead`;
  h' is the same of the target encoder, a moving average of the model and the head, which starts as
  their copy and has no gradient. It sees the global view g, the second of `config.views`; the model
  sees the local views, those after it. `config.view_augmentation` tells them apart. The first view,
  which goes with the text, takes no part: [1] leaves it unaugmented. [1] has eight local views, of
  fewer pixels in [3]; here all views have one size.

  The center c prevents a collapse onto one prototype, and the low temperature τ' that onto all.
  The metric `entropy` of the targets tells both: it falls to 0, or to ln K.

  [1] names no sizes and constants. The defaults are those of [3], facebookresearch/dino
  (main_dino.py, vision_transformer.py), but for the decay of the target: constant, as in [2].

  Attributes:
    hidden: width of the two hidden layers of the head.
    bottleneck: width of the unit vectors that are compared with the prototypes.
    prototypes: K.
    temperature: τ.
    target_temperature: τ'.
    center_momentum: m.
    momentum: decay of the target encoder.
    final_momentum: decay at the last step, reached along a half cosine, 1 in [3]; None for
      `momentum` throughout.

  References:
    [1] Tschannen et al., https://arxiv.org/abs/2502.14786
    [2] Naeem et al., https://arxiv.org/abs/2310.13355
    [3] Caron et al., https://arxiv.org/abs/2104.14294
  """

  hidden: int = 2048
  bottleneck: int = 256
  prototypes: int = 65_536
  temperature: float = 0.1
  target_temperature: float = 0.04
  center_momentum: float = 0.9
  momentum: float = 0.996
  final_momentum: float | None = None
  mesh: jax.sharding.Mesh | None = None

  @property
  def reads(self) -> tuple[str, ...]:
    """Features of the local views, and of the global one by the target encoder."""
    return (f'view_features:{GLOBAL + 2}', f'target.features_of_view.{GLOBAL}')

  @property
  def target(self) -> Momentum:
    """The encoder of the global view."""
    return Momentum(self.momentum, self.final_momentum)

  def heads(self, sizes):
    """The head with its prototypes."""
    return self._heads(sizes.image_features)

  def _heads(self, width: int):
    return {'head': define_prototype_head(width, self.hidden, self.bottleneck, self.prototypes)}

  def memory(self, sizes):
    """The center."""
    return {'center': Slot((self.prototypes,))}

  def loss(self, inputs, heads, memory, key):
    """The mean cross entropy over the local views; writes the mean target."""
    aims = heads['target.head'](inputs[f'target.features_of_view.{GLOBAL}'])
    guesses = heads['head'](inputs['view_features'][:, GLOBAL + 1 :])
    entropies, entropy = self.cross_entropy(guesses, aims[:, None], memory['center'])
    metrics = {'entropy': jnp.mean(entropy)}
    return Result(jnp.mean(entropies), {'center': jnp.mean(aims, 0)}, metrics)

  def cross_entropy(
    self, guesses: jax.Array, aims: jax.Array, center: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """The cross entropy of predictions to targets, and the entropy of the targets, in nats.

    Args:
      guesses: [..., K] cosines of the model.
      aims: [..., K] those of the target, which get no gradient.
      center: [K].

    Returns:
      [...] and [...], of the shapes of the two.
    """
    log_aims = jax.nn.log_softmax((aims - center) / self.target_temperature)
    log_aims = jax.lax.stop_gradient(log_aims)
    shares = jnp.exp(log_aims)
    cross = -jnp.sum(shares * jax.nn.log_softmax(guesses / self.temperature), -1)
    return cross, -jnp.sum(shares * log_aims, -1)

  def update(self, memory, writes, heads, step):
    """Moves the center."""
    m = self.center_momentum
    return {'center': m * memory['center'] + (1 - m) * writes['center']}

  def flops(self, sizes):
    """The head of the local views, and forward alone of the global one."""
    return self._flops(sizes.image_features, sizes.batch, sizes.views - GLOBAL - 1)

  def _flops(self, width: int, rows: float, views: float) -> float:
    """Of a target per row, and so many predictions of it."""
    widths = width, (self.hidden, self.hidden, self.bottleneck), self.prototypes
    return (views + 1 / 3) * head_flops(*widths, rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedPrediction(SelfDistillation):
  """Masked prediction of SigLIP 2 [1]: `SelfDistillation` between the patches of the global view.

      L = mean over the batch and the masked patches p of
            CE( softmax( (h'(g)ₚ − c) / τ' ), softmax( h(masked g)ₚ / τ ) )

  The model sees the global view with a random share of its patches masked; the target encoder sees
  all of it. h and h' map the tokens of the image tower, by a head of this method's own. The center
  is that of the targets of masked patches.

  Masked patches have the mean color, 0 after the normalization, so any tower takes them. With
  `stem_bias` a patch stem maps them to its bias, a learned mask embedding; [1] replaces their
  embeddings instead. Patches must not be dropped, and be all of the tower's tokens.

  Attributes:
    ratio: share of the patches that are masked.

  References:
    [1] Tschannen et al., https://arxiv.org/abs/2502.14786
  """

  ratio: float = 0.5

  def __post_init__(self):
    if not 0 < self.ratio <= 1:
      raise ValueError(f'ratio = {self.ratio}; use a share of the patches above 0, at most 1')

  @property
  def reads(self) -> tuple[str, ...]:
    """Tokens of the global view, the model's and the target's, and which are masked."""
    name = f'tokens_of_view.{GLOBAL}'
    return (name, f'target.{name}', 'masked?', 'batch_size')

  def heads(self, sizes):
    """The head with its prototypes, of tokens."""
    if math.isqrt(sizes.patches) ** 2 != sizes.patches:
      raise ValueError(
        f'config.objective.masked_prediction takes the patches of square images, and the image '
        f'tower has {sizes.patches} tokens; use a tower without config.model.image.class_token'
      )
    return self._heads(sizes.image_tokens)

  def transform(self, view, part, target, memory, keys):
    """The global view with masked patches, and their indices [B, M]."""
    if view != GLOBAL:
      return part
    P = target.image_tokens.shape[1]
    drawn = jax.vmap(lambda key: jax.random.permutation(key, P))(keys)
    masked = drawn[:, : self._count(P)]
    return {**part, 'image': mask_patches(part['image'], masked, P), 'masked': masked}

  def _count(self, patches: int) -> int:
    return max(1, round(self.ratio * patches))

  def total(self, inputs):
    """B."""
    return inputs['batch_size']

  def partial(self, inputs, total, heads, memory):
    """The sum over the examples of a part of the mean over their masked patches, divided by B."""
    name, masked = f'tokens_of_view.{GLOBAL}', inputs['masked'][..., None]
    tokens, aimed = (
      jnp.take_along_axis(inputs[encoder + name], masked, 1) for encoder in ('', 'target.')
    )
    aims = heads['target.head'](aimed)
    entropies, entropy = self.cross_entropy(heads['head'](tokens), aims, memory['center'])
    share = total * masked.shape[1]
    writes = {'center': jnp.sum(aims, (0, 1)) / share}
    return Result(jnp.sum(entropies) / share, writes, {'entropy': jnp.sum(entropy) / share})

  def loss(self, inputs, heads, memory, key):
    """None: the term is a sum over micro-batches, see `partial`."""

  def flops(self, sizes):
    """The head of the masked patches, and forward alone of the target's."""
    return self._flops(sizes.image_tokens, sizes.batch * self._count(sizes.patches), 1)


def mask_patches(images: jax.Array, masked: jax.Array, patches: int) -> jax.Array:
  """Sets patches of images to 0, the mean color.

  Args:
    images: [B, S, S, 3], normalized.
    masked: [B, M] indices of patches, by rows.
    patches: P, a square number.

  Returns:
    [B, S, S, 3].
  """
  B, S, side = len(images), images.shape[1], math.isqrt(patches)
  hidden: Any = jnp.zeros((B, patches), bool).at[jnp.arange(B)[:, None], masked].set(True)
  size = S // side
  pixels = hidden.reshape(B, side, side).repeat(size, 1).repeat(size, 2)
  rest = S - side * size  # pixels beyond the last patch
  pixels = jnp.pad(pixels, ((0, 0), (0, rest), (0, rest)))
  return jnp.where(pixels[..., None], 0, images)
