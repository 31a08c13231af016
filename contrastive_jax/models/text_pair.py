"""A dual encoder of pairs of texts."""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import towers
from contrastive_jax.models.clip import project, projection
from contrastive_jax.models.dropout import fold
from contrastive_jax.models.outputs import Outputs


class TextPair(nnx.Module):
  """Contrastive pretraining of pairs of texts: one tower for both sides, or one for each.

  Args:
    embed: D, the width of the shared space.
    text: arguments of the text tower, see `Clip`.
    shared: encode both sides by one tower and one projection; otherwise each side has its own.
    text_projection: from the tower's width to D, see `Clip`.
    scale: the inverse temperature at the start.
    bias: added to each similarity, learned from this start (SigLIP); None for no bias.
    dtype: of the activations and the matmuls, 'float32' or 'bfloat16'; parameters are float32.
    remat: what the transformers' layers keep for the backward pass, see `transformer.REMATS`.
    attention: implementation of attention, see `attention.select`.
    rngs: draws the parameters.

  References:
    Neelakantan et al., Text and Code Embeddings by Contrastive Pre-Training, 2022.
  """

  # Names of a batch that `encode` reads.
  inputs = ('tokens', 'second_tokens')

  def __init__(
    self,
    embed: int,
    text: dict[str, Any],
    *,
    shared: bool = True,
    text_projection: str = 'linear',
    scale: float = 1 / 0.07,
    bias: float | None = None,
    dtype: str = 'float32',
    remat: str = 'none',
    attention: str = 'auto',
    rngs: nnx.Rngs,
  ):
    make = {'dtype': jnp.dtype(dtype), 'rngs': rngs}
    self.shared = shared
    own = {'remat': remat, 'attention': attention, **text}
    make_text = partial(towers.text_tower, own, **make)
    self.text = make_text()
    width = self.text.width
    self.text_projection = projection('text', text_projection, width, embed, make)
    if not shared:
      self.second_text = make_text()
      self.second_text_projection = projection('text', text_projection, width, embed, make)
    self.log_scale = nnx.Param(jnp.float32(math.log(scale)), axes=())
    self.bias = None if bias is None else nnx.Param(jnp.float32(bias), axes=())

  def encode_text(self, tokens):
    """Unit vectors [B, D] of tokens [B, L], as the first text of a pair."""
    return self.text_embedding(tokens)[0]

  def encode_second_text(self, tokens):
    """Unit vectors [B, D] of tokens [B, L], as the second text of a pair."""
    return self._second(tokens, None)

  def _second(self, tokens, keys):
    if self.shared:
      return self.text_embedding(tokens, keys=keys)[0]
    return project(self.second_text_projection, self.second_text(tokens, keys=keys)[0])

  def text_embedding(self, tokens, *, keys=None):
    """Unit vectors [B, D] of first texts, and the pooled features [B, W] before the projection."""
    features = self.text(tokens, keys=keys)[0]
    return project(self.text_projection, features), features

  def encode(self, batch, *, keys=None) -> Outputs:
    """Encodes the batch's `tokens` and `second_tokens`."""
    return self(batch['tokens'], batch['second_tokens'], keys=keys)

  def __call__(self, tokens, second_tokens, *, keys=None) -> Outputs:
    """Encodes a batch.

    Args:
      tokens: [B, L] integers, padded with 0: the first text of each pair.
      second_tokens: [B, L] integers, padded with 0: the second text.
      keys: [B] random keys, one per pair; only for training.

    Raises:
      ValueError: if the tokens have another shape than the model was built for.
    """
    second_keys = None if keys is None else fold(keys, 1)
    text, features = self.text_embedding(tokens, keys=keys)
    return Outputs(
      text=text,
      second_text=self._second(second_tokens, second_keys),
      text_features=features,
      scale=jnp.exp(self.log_scale[...]),
      bias=None if self.bias is None else self.bias[...],
    )
