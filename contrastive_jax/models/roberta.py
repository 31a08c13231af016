"""RoBERTa and XLM-RoBERTa: a bidirectional transformer whose norms follow the residual sums."""

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.dropout import fold
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.text import check_tokens

POOLINGS = ('mean', 'class', 'pooler')


class PostNormBlock(transformer.Block):
  """norm(x + attention(x)), then norm(x + mlp(x)) [1].

  References:
    [1] Vaswani et al., Attention Is All You Need, 2017.
  """

  def _before(self, norm, x):
    return x

  def _join(self, x, branch, norm, scale, drop, number):
    return norm(super()._join(x, branch, norm, scale, drop, number))


def positions_of(tokens, pad_id: int):
  """Whether tokens [B, L] are no padding, and their positions, counted from `pad_id` + 1.

  Padding has the position `pad_id`. Both are fairseq's conventions.
  """
  written = tokens != pad_id
  return written, jnp.where(written, jnp.cumsum(written, axis=1), 0) + pad_id


class RobertaTower(nnx.Module):
  """A text tower as in RoBERTa [1] and XLM-RoBERTa [2].

  Positions count the tokens that are not padding, from `pad_id` + 1; padding has the position
  `pad_id`, and is masked.

  Attributes:
    vocabulary: V, number of token ids.
    length: L, tokens per text, padding included.
    positions: rows of the position table, L + pad_id + 1 or more; None for so many.
    pad_id: id of the padding.
    pooling: 'mean' (of the tokens that are not padding), 'class' (the first token), or 'pooler'
      (BERT's pooler: a linear layer and tanh of the first token).
    activation: activation of the MLPs, see `activations.ACTIVATIONS`.
    epsilon: epsilon of the layer norms.
    dropout, drop_path, scan, remat: see `Transformer`. Embeddings and the weights of attention have
      no dropout.
    attention: see `attention.select`.

  References:
    [1] Liu et al., RoBERTa: A Robustly Optimized BERT Pretraining Approach, 2019.
    [2] Conneau et al., Unsupervised Cross-lingual Representation Learning at Scale, 2020.
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
    positions: int | None = None,
    mlp_ratio: float = 4,
    pad_id: int = 1,
    pooling: str = 'mean',
    activation: str = 'gelu',
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
    needed = length + pad_id + 1
    positions = needed if positions is None else positions
    if positions < needed:
      raise ValueError(
        f'text.positions = {positions} is too small for text.length = {length} and text.pad_id = '
        f'{pad_id}; use {needed} or more, or a length up to {positions - pad_id - 1}'
      )
    self.length, self.width, self.pad_id, self.pooling = length, width, pad_id, pooling
    make = {'dtype': dtype, 'rngs': rngs}
    self.embed = nnx.Embed(
      vocabulary, width, embedding_init=transformer.normal(0.02, 'vocab', 'embed'), **make
    )
    self.positions = transformer.position_table(positions, width, 0.02, rngs=rngs)
    self.token_type = transformer.position_table(1, width, 0.02, rngs=rngs)
    self.embed_norm = transformer.layer_norm(width, epsilon=epsilon, **make)
    self.transformer = transformer.Transformer(
      width,
      layers,
      heads,
      block=PostNormBlock,
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
    has_pooler = pooling == 'pooler'
    self.pooler = Linear(width, width, ('embed', None), 0.02, **make) if has_pooler else None

  def __call__(self, tokens, *, keys=None):
    """Encodes tokens [B, L] to pooled vectors [B, width] and states [B, L, width].

    `keys` [B] choose what is dropped; without keys, as in evaluation, nothing is.
    """
    check_tokens(tokens, self.length)
    written, positions = positions_of(tokens, self.pad_id)
    # The sum is float32, as the gradients of the tables are sums over the batch.
    x = jnp.take(self.embed.embedding[...], tokens, axis=0)
    x += jnp.take(self.positions[...], positions, axis=0) + self.token_type[...]
    keys = None if keys is None else fold(keys, 2)
    x = self.transformer(self.embed_norm(x), mask=written[:, None, None, :], keys=keys)
    return self._pool(x, written), x

  def _pool(self, x, written):
    if self.pooling == 'mean':
      return jnp.mean(x, axis=1, where=written[..., None])
    return x[:, 0] if self.pooler is None else jnp.tanh(self.pooler(x[:, 0]))

  @staticmethod
  def lengths(fields, path):
    """Positions per text that the kernel at a path is applied to, and keys they attend to."""
    return (1, 1) if path.startswith('pooler/') else (fields['length'], fields['length'])

  @staticmethod
  def describe(fields):
    """Describes the tower in a model card."""
    return (
      f'RoBERTa of {fields["layers"]} layers of width {fields["width"]}, {fields["length"]} tokens '
      f'of {fields["vocabulary"]}'
    )
