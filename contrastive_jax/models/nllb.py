"""The encoder of NLLB and M2M-100: a pre-norm transformer with sinusoidal positions."""

import math

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.dropout import fold
from contrastive_jax.models.roberta import positions_of
from contrastive_jax.models.text import check_tokens

POOLINGS = ('class', 'mean')


def sinusoids(positions, width: int):
  """Sines, then cosines, of positions [..., L] at width / 2 frequencies from 1 to 1e-4."""
  half = width // 2
  frequencies = jnp.exp(-math.log(10_000) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
  angles = positions[..., None].astype(jnp.float32) * frequencies
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class NllbTower(nnx.Module):
  """A text tower as the encoder of M2M-100 [1] and NLLB [2].

  Embeddings are multiplied by √width. Positions are those of `RobertaTower`.

  Attributes:
    vocabulary: V, number of token ids.
    length: L, tokens per text, padding included.
    pad_id: id of the padding, which is masked.
    pooling: 'class' (the first token, which names the language), or 'mean' (of the tokens that are
      not padding).
    activation: activation of the MLPs, see `activations.ACTIVATIONS`.
    epsilon: epsilon of the layer norms.
    dropout, drop_path, scan, remat: see `Transformer`. Embeddings and the weights of attention have
      no dropout.
    attention: see `attention.select`.

  References:
    [1] Fan et al., Beyond English-Centric Multilingual Machine Translation, 2020.
    [2] NLLB Team et al., No Language Left Behind: Scaling Human-Centered Machine Translation, 2022.
  """

  pad_id = 1

  def __init__(
    self,
    vocabulary: int,
    length: int,
    width: int,
    layers: int,
    heads: int,
    *,
    mlp_ratio: float = 4,
    pad_id: int = 1,
    pooling: str = 'class',
    activation: str = 'relu',
    epsilon: float = 1e-5,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    scan: bool = False,
    remat: str = 'none',
    attention: str = 'auto',
    dtype,
    rngs,
  ):
    transformer.choose('text.pooling', pooling, dict.fromkeys(POOLINGS))
    if width % 2 or width < 4:
      raise ValueError(f'text.width = {width}; sinusoidal positions need an even width from 4')
    self.length, self.width, self.pad_id, self.pooling = length, width, pad_id, pooling
    make = {'dtype': dtype, 'rngs': rngs}
    self.embed = nnx.Embed(
      vocabulary,
      width,
      embedding_init=transformer.normal(width**-0.5, 'vocab', 'embed'),
      **make,
    )
    self.transformer = transformer.Transformer(
      width,
      layers,
      heads,
      mlp_ratio=mlp_ratio,
      activation=activation,
      epsilon=epsilon,
      dropout=dropout,
      drop_path=drop_path,
      scan=scan,
      remat=remat,
      attention=attention,
      **make,
    )
    self.norm = transformer.layer_norm(width, epsilon=epsilon, **make)

  def __call__(self, tokens, *, keys=None):
    """Encodes tokens [B, L] to pooled vectors [B, width] and states [B, L, width].

    `keys` [B] choose what is dropped; without keys, as in evaluation, nothing is.
    """
    check_tokens(tokens, self.length)
    written, positions = positions_of(tokens, self.pad_id)
    x = math.sqrt(self.width) * jnp.take(self.embed.embedding[...], tokens, axis=0)
    x = (x + sinusoids(positions, self.width)).astype(self.embed.dtype)
    keys = None if keys is None else fold(keys, 2)
    x = self.norm(self.transformer(x, mask=written[:, None, None, :], keys=keys))
    pooled = x[:, 0] if self.pooling == 'class' else jnp.mean(x, axis=1, where=written[..., None])
    return pooled, x

  @staticmethod
  def lengths(fields, path):
    """Positions per text that the kernel at a path is applied to, and keys they attend to."""
    del path
    return fields['length'], fields['length']

  @staticmethod
  def describe(fields):
    """Describes the tower in a model card."""
    return (
      f'NLLB of {fields["layers"]} layers of width {fields["width"]}, {fields["length"]} tokens of '
      f'{fields["vocabulary"]}'
    )
