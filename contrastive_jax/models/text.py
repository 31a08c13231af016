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


POOLINGS = ('end', 'last', 'mean')


class TextTower(nnx.Module):
  """A text transformer.

  Attributes:
    vocabulary: number of token ids.
    length: tokens a text, padding included.
    causal: each token sees only those before it; otherwise all that are not padding.
    pooling: 'end' (the end-of-text token, the last that is not padding), 'last' (the last position,
      padding or not), or 'mean' (of the tokens that are not padding).
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
    pooling: str = 'end',
    activation: str = 'gelu',
    scan: bool = False,
    dtype,
    rngs,
  ):
    transformer.choose('text.pooling', pooling, dict.fromkeys(POOLINGS))
    self.length, self.causal, self.pooling = length, causal, pooling
    make = {'dtype': dtype, 'rngs': rngs}
    self.embed = nnx.Embed(
      vocabulary, width, embedding_init=transformer.normal(0.02, 'vocab', 'embed'), **make
    )
    self.positions = transformer.position_table(length, width, 0.01, rngs=rngs)
    self.transformer = transformer.Transformer(
      width, layers, heads, mlp_ratio=mlp_ratio, activation=activation, scan=scan, **make
    )
    self.norm = transformer.layer_norm(width, **make)

  def __call__(self, tokens):
    """Encodes tokens [B, L] to one vector each [B, width], and to states [B, L, width]."""
    if tokens.ndim != 2 or tokens.shape[1] != self.length:
      raise ValueError(f'tokens have shape {tokens.shape}; the model takes [B, {self.length}]')
    end = end_positions(tokens)
    written = jnp.arange(self.length) <= end[:, None]
    x = self.embed(tokens)
    x = x + self.positions[...].astype(x.dtype)
    # A causal query never reaches the padding to its right.
    mask = None if self.causal else written[:, None, None, :]
    x = self.norm(self.transformer(x, mask=mask, causal=self.causal))
    if self.pooling == 'last':
      return x[:, -1], x
    if self.pooling == 'end':
      return jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0], x
    weights = written[..., None].astype(x.dtype)
    return jnp.sum(x * weights, axis=1) / jnp.sum(weights, axis=1), x
