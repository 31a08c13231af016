"""The attentional pooler of CoCa."""

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.attention import Attention


class AttentionalPooler(nnx.Module):
  """K learned queries attend to tokens [B, P, C]; returns normalized [B, K, D].

  Args:
    queries: number of queries, K.
    width: D, width of the queries and the outputs.
    context_width: width of the context, C.
    heads: number of heads.
    attention: see `attention.select`.
    dtype: dtype of the activations.
    rngs: initializes the parameters.

  References:
    Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022.
  """

  def __init__(self, queries, width, context_width, heads, *, attention='auto', dtype, rngs):
    if queries < 1:
      raise ValueError(f'queries = {queries}; an attentional pooler needs 1 or more')
    make = {'dtype': dtype, 'rngs': rngs}
    self.queries = transformer.position_table(queries, width, 1.0, rngs=rngs)
    # This norm is float32, as the gradients of the queries are sums over the batch.
    self.query_norm = transformer.layer_norm(width, dtype=jnp.float32, rngs=rngs)
    self.context_norm = transformer.layer_norm(context_width, **make)
    self.attention = Attention(
      width, heads, context_width=context_width, implementation=attention, **make
    )
    self.norm = transformer.layer_norm(width, **make)

  def __call__(self, tokens):
    """Maps tokens [B, P, C] to [B, K, D]."""
    queries = self.query_norm(self.queries[...])
    queries = transformer.repeat(queries, len(tokens), tokens.dtype)
    return self.norm(self.attention(queries, self.context_norm(tokens)))
