"""The text tower: a transformer over tokens, causal or bidirectional."""

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import transformer


def end_positions(tokens, pad_id: int = 0):
  """Where the last token that is not padding stands: [B] for tokens [B, L].

  Searched from the right, since in CLIP's vocabulary the padding id also stands for '!'.
  """
  L = tokens.shape[1]
  return L - 1 - jnp.argmax(tokens[:, ::-1] != pad_id, axis=1)


POOLINGS = ('end', 'last', 'mean', 'class')


class TextTower(nnx.Module):
  """A text transformer.

  Attributes:
    vocabulary: number of token ids.
    length: tokens a text, padding included.
    causal: each token sees only those before it; otherwise all that are not padding.
    mask_padding: hide the padding; without it, as in SigLIP, a token that is not causal sees all.
    pooling: 'end' (the end-of-text token, the last that is not padding), 'last' (the last position,
      padding or not), 'mean' (of the tokens that are not padding), or 'class' (a learned token that
      follows the text and its padding).
    shift_mask: with 'class', hide the padding but for its first token, and the class token with it,
      as open_clip's CoCa does by a slip that its weights have learned with.
    head_width: of each head; default what divides the width evenly.
    epsilon: of the layer norms.
    scan, remat: see `Transformer`.
  """

  def __init__(
    self,
    vocabulary: int,
    length: int,
    width: int,
    layers: int,
    heads: int,
    *,
    mlp_ratio: float = 4,
    causal: bool = True,
    mask_padding: bool = True,
    pooling: str = 'end',
    shift_mask: bool = False,
    head_width: int | None = None,
    activation: str = 'gelu',
    epsilon: float = 1e-5,
    scan: bool = False,
    remat: str = 'none',
    dtype,
    rngs,
  ):
    transformer.choose('text.pooling', pooling, dict.fromkeys(POOLINGS))
    if shift_mask and pooling != 'class':
      raise ValueError(f"text.shift_mask needs text.pooling = 'class', not {pooling!r}")
    self.length, self.pooling = length, pooling
    self.causal, self.mask_padding, self.shift_mask = causal, mask_padding, shift_mask
    make = {'dtype': dtype, 'rngs': rngs}
    self.embed = nnx.Embed(
      vocabulary, width, embedding_init=transformer.normal(0.02, 'vocab', 'embed'), **make
    )
    has_class = pooling == 'class'
    self.positions = transformer.position_table(length + has_class, width, 0.01, rngs=rngs)
    self.class_token = transformer.position_table(1, width, 0.01, rngs=rngs) if has_class else None
    self.transformer = transformer.Transformer(
      width,
      layers,
      heads,
      mlp_ratio=mlp_ratio,
      head_width=head_width,
      activation=activation,
      epsilon=epsilon,
      scan=scan,
      remat=remat,
      **make,
    )
    self.norm = transformer.layer_norm(width, epsilon=epsilon, **make)

  def __call__(self, tokens):
    """Encodes tokens [B, L] to one vector each [B, width], and to states [B, L, width].

    Beside a class token's vector the states are not normalised: a decoder's layers go on from them.
    """
    if tokens.ndim != 2 or tokens.shape[1] != self.length:
      raise ValueError(f'tokens have shape {tokens.shape}; the model takes [B, {self.length}]')
    end = end_positions(tokens)
    written = jnp.arange(self.length) <= end[:, None]
    x = self._look_up(tokens)
    if self.class_token is not None:
      last = transformer.repeat(self.class_token[...], len(x), x.dtype)
      x = jnp.concatenate([x, last], axis=1)
    x = transformer.add_parameter(x, self.positions[...])
    x = self.transformer(x, mask=self._mask(tokens, written), causal=self.causal)
    if self.pooling == 'class':
      return self.norm(x[:, -1]), x[:, :-1]
    x = self.norm(x)
    if self.pooling == 'last':
      return x[:, -1], x
    if self.pooling == 'end':
      return jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0], x
    return jnp.mean(x, axis=1, where=written[..., None]), x

  def step(self, tokens, cache, parents, position):
    """The states of one position of K texts each, given those before it; see `Transformer.step`.

    Args:
      tokens: [B, K]
      cache: from `transformer.empty_cache`, or the last step's.
      parents: [B, K] integers.
      position: scalar integer.

    Returns:
      States [B, K, width], not normalised, and the new cache.
    """
    x = transformer.add_parameter(self._look_up(tokens), self.positions[position])
    return self.transformer.step(x, cache, self.transformer.project(), parents, position)

  def _look_up(self, tokens):
    # The cast follows the gather: gradients of a frequent token, a sum of many, add up in float32.
    return jnp.take(self.embed.embedding[...], tokens, axis=0).astype(self.embed.dtype)

  def _mask(self, tokens, written):
    """Where queries may look but for what lies ahead of them, [B, 1, 1, M]; None for anywhere."""
    # Without a class token, no causal query that counts reaches the padding to its right.
    if not self.mask_padding or (self.causal and self.class_token is None):
      return None
    visible = written
    if self.shift_mask:
      visible = jnp.pad(tokens != 0, ((0, 0), (1, 0)), constant_values=True)
    elif self.class_token is not None:
      visible = jnp.pad(written, ((0, 0), (0, 1)), constant_values=True)
    return visible[:, None, None, :]
