"""A decoder of a latent: patches of an image at once, or the tokens of a text one after another."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.definition import Definition, define_from
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.models.linear import Linear


class LatentDecoder(nnx.Module):
  """A transformer over L positions, to each of which a linear map of the latent is added.

  The map does what attention to the latent does, a context of one vector. With a vocabulary, a
  position also has the embedding of a token, and attends to those before it.

  Attributes:
    output: from a normalized state to the outputs.

  Args:
    latent: Z, width of the latent.
    length: L, positions.
    width: C, of the states.
    layers: of the transformer.
    attention_heads: of each layer; a divisor of `width`.
    outputs: per position: pixel values, or logits.
    vocabulary: V, number of tokens; 0 for no tokens.
    rngs: initializes the parameters.
  """

  def __init__(
    self,
    latent: int,
    length: int,
    width: int,
    layers: int,
    attention_heads: int,
    outputs: int,
    *,
    vocabulary: int = 0,
    rngs: nnx.Rngs,
  ):
    # Float32, as all heads are.
    make = {'dtype': jnp.float32, 'rngs': rngs}
    self.latent = Linear(latent, width, (None, 'embed'), latent**-0.5, **make)
    table = partial(transformer.position_table, width=width, std=0.02, rngs=rngs)
    self.positions = table(length)
    self.tokens = table(vocabulary) if vocabulary else None
    self.transformer = transformer.Transformer(width, layers, attention_heads, **make)
    self.norm = transformer.layer_norm(width, **make)
    self.output = Linear(width, outputs, ('embed', None), width**-0.5, bias=not vocabulary, **make)

  def __call__(self, latents: jax.Array, tokens: jax.Array | None = None) -> jax.Array:
    """Maps latents [B, Z], and tokens [B, L] with a vocabulary, to states [B, L, C] for `output`.

    A token is seen from its own position on, whose output predicts the next.
    """
    x = self.latent(latents)[:, None] + self.positions[...]
    if self.tokens is not None:
      x += jnp.take(self.tokens[...], tokens, axis=0)
    return self.norm(self.transformer(x, causal=self.tokens is not None))


def define_latent_decoder(*sizes: int, vocabulary: int = 0) -> Definition:
  """Defines a `LatentDecoder`, from its arguments."""
  return define_from(
    lambda key: LatentDecoder(*sizes, vocabulary=vocabulary, rngs=ParameterKeys(key))
  )


def decoder_flops(
  latent: int, length: int, width: int, layers: int, outputs: int, rows: float
) -> float:
  """Operations of a `LatentDecoder`'s forward and backward pass over a number of latents."""
  per_position = 12 * width**2 * layers + width * outputs + 2 * length * width * layers
  return 6.0 * rows * (latent * width + length * per_position)
