"""CoCa: an image tower and a text decoder split in two, trained to match and to caption."""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.image import ImageTower
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.models.pooler import AttentionalPooler
from contrastive_jax.models.text import TextTower


class DecoderBlock(nnx.Module):
  """Self-attention, cross-attention to a context, then an MLP; with `mlps=2`, one after each."""

  def __init__(self, width, heads, hidden, *, mlps=1, context_width, **fields):
    if mlps not in (1, 2):
      raise ValueError(f'decoder.mlps = {mlps}; use 1, or 2 for an MLP after either attention')
    self.causal = transformer.Block(width, heads, hidden if mlps == 2 else None, **fields)
    self.cross = transformer.Block(width, heads, hidden, context_width=context_width, **fields)

  def __call__(self, x, context, *, mask=None, causal=True):
    """Maps x [B, L, D] and a context [B, M, C] to [B, L, D]; `mask` and `causal` are for x."""
    return self.cross(self.causal(x, mask=mask, causal=causal), context)

  def empty_cache(self, B, K, L):
    """As `Block.empty_cache`."""
    return self.causal.empty_cache(B, K, L)

  def project(self, context):
    """As `Block.project`."""
    return self.cross.project(context)

  def step(self, x, cache, context, parents, position):
    """As `Block.step`; K texts attend to one context, whose keys and values stand once for all."""
    x, cache = self.causal.step(x, cache, None, parents, position)
    return self.cross.attend(x, context), cache


class Decoder(nnx.Module):
  """The multimodal decoder: from the text's states and the image's memory to the next tokens.

  Attributes:
    output: the output matrix, from a normalised state to a logit for each of V tokens.

  Args:
    vocabulary: V.
    width: D, of the states.
    layers: of self-attention, cross-attention and MLP.
    heads: of both attentions.
    mlps: in a layer: 1, after both attentions, as in the paper, or 2, one after each, as in
      open_clip.
    context_width: C, of the memory.
    epsilon: of the layer norms.
    fields: further arguments of `Transformer`.
  """

  def __init__(
    self,
    vocabulary: int,
    width: int,
    layers: int,
    heads: int,
    *,
    mlps: int = 1,
    context_width: int,
    epsilon: float = 1e-5,
    dtype,
    rngs,
    **fields,
  ):
    make = {'dtype': dtype, 'rngs': rngs}
    self.transformer = transformer.Transformer(
      width,
      layers,
      heads,
      block=DecoderBlock,
      mlps=mlps,
      context_width=context_width,
      epsilon=epsilon,
      **fields,
      **make,
    )
    self.norm = transformer.layer_norm(width, epsilon=epsilon, **make)
    self.output = Linear(
      width,
      vocabulary,
      ('embed', 'vocab'),
      width**-0.5,
      bias=False,
      output_dtype=jnp.float32,  # rounded to bfloat16, the greatest logits tie
      **make,
    )

  def __call__(self, states, memory):
    """Maps states [B, L, D] and a memory [B, K, C] to what `output` takes, [B, L, D]."""
    return self.norm(self.transformer(states, memory, causal=True))


POOLERS = ('cascade', 'parallel', 'shared')


class Coca(nnx.Module):
  """Contrastive captioner.

  The text tower is causal; a class token after the text and its padding gives the text's vector.
  The decoder goes on from the states of the tokens before it, so that one pass serves both losses.

  Args:
    embed: D, the width of the shared space and of the poolers.
    image: arguments of `ImageTower`, but for its pooling.
    text: arguments of `TextTower`, but for its pooling.
    decoder: arguments of `Decoder`, but for the vocabulary and the width, which are the text's, and
      the memory's.
    pooler: of the image's tokens: 'cascade' (K queries gather the captioner's memory, and one
      contrastive query attends to that), 'parallel' (both attend to the tokens), or 'shared' (one
      pooler of 1 + K queries, the first of them the contrastive one, as in open_clip's released
      models).
    queries: K, of the captioner's memory.
    pooler_heads: of the poolers' attention.
    scale: the inverse temperature at the start.
    bias: added to each similarity, learned from this start; None for no bias.
    dtype: of the activations and the matmuls, 'float32' or 'bfloat16'; parameters are float32.
    remat: what the transformers' layers keep for the backward pass, see `transformer.REMATS`.
    rngs: draws the parameters.

  References:
    Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022.
  """

  def __init__(
    self,
    embed: int,
    image: dict[str, Any],
    text: dict[str, Any],
    decoder: dict[str, Any],
    *,
    pooler: str = 'cascade',
    queries: int = 256,
    pooler_heads: int = 8,
    scale: float = 1 / 0.07,
    bias: float | None = None,
    dtype: str = 'float32',
    remat: str = 'none',
    rngs: nnx.Rngs,
  ):
    transformer.choose('pooler', pooler, dict.fromkeys(POOLERS))
    make = {'dtype': jnp.dtype(dtype), 'rngs': rngs}
    towers = make | {'remat': remat}
    self.pooling = pooler
    self.image = ImageTower(**image, pooling='none', **towers)
    self.text = TextTower(**text, pooling='class', **towers)
    width = image['width']
    self.pooler = AttentionalPooler(
      queries + (pooler == 'shared'), embed, width, pooler_heads, **make
    )
    context_width = embed if pooler == 'cascade' else width
    self.contrastive_pooler = (
      None
      if pooler == 'shared'
      else AttentionalPooler(1, embed, context_width, pooler_heads, **make)
    )
    self.image_projection = Linear(embed, embed, ('embed', None), embed**-0.5, bias=False, **make)
    self.text_projection = Linear(
      text['width'], embed, ('embed', None), text['width'] ** -0.5, bias=False, **make
    )
    self.decoder = Decoder(
      text['vocabulary'], text['width'], context_width=embed, **decoder, **towers
    )
    self.log_scale = nnx.Param(jnp.float32(math.log(scale)), axes=())
    self.bias = None if bias is None else nnx.Param(jnp.float32(bias), axes=())

  def encode_image(self, images, *, keys=None):
    """Unit vectors [B, D] of images [B, H, W, 3], normalised floats."""
    return self.describe_image(images, keys=keys)[0]

  def encode_text(self, tokens):
    """Unit vectors [B, D] of tokens [B, L]."""
    return self.describe_text(tokens)[0]

  def describe_image(self, images, *, keys=None):
    """Unit vectors [B, D] of images [B, H, W, 3], and the captioner's memory [B, K, D]."""
    tokens = self.image(images, keys=keys)[1]
    memory = self.pooler(tokens)
    if self.pooling == 'shared':
      pooled, memory = memory[:, 0], memory[:, 1:]
    else:
      context = memory if self.pooling == 'cascade' else tokens
      pooled = self.contrastive_pooler(context)[:, 0]
    return transformer.unit(self.image_projection(pooled)), memory

  def describe_text(self, tokens):
    """Unit vectors [B, D] of tokens [B, L], and the decoder's states [B, L, C]."""
    pooled, states = self.text(tokens)
    return transformer.unit(self.text_projection(pooled)), states

  def captioner(self, images, *, beams: int, length: int):
    """Captions images token by token, with the keys and values of the earlier tokens in a cache.

    Args:
      images: [B, H, W, 3] floats, normalised.
      beams: K, captions an image.
      length: L, of the longest caption.

    Returns:
      step: (tokens [B, K], cache, parents [B, K], position) -> (logits [B, K, V], cache), from the
        tokens at a position to logits of the next ones; caption k goes on from the one that was
        number parents[:, k] in the cache. Causal: it is `caption_logits` at that position.
      cache: of no token.
    """
    context = self.decoder.transformer.project(self.describe_image(images)[1])

    def step(tokens, cache, parents, position):
      states, text = self.text.step(tokens, cache[0], parents, position)
      x, decoder = self.decoder.transformer.step(states, cache[1], context, parents, position)
      return self.decoder.output(self.decoder.norm(x)), (text, decoder)

    towers = (self.text.transformer, self.decoder.transformer)
    return step, tuple(tower.empty_cache(len(images), beams, length) for tower in towers)

  def __call__(self, images, tokens, *, keys=None) -> Outputs:
    """Encodes and captions a batch.

    Args:
      images: [B, H, W, 3] floats, normalised.
      tokens: [B, L] integers, padded with 0.
      keys: [B] random keys, one an image, in training alone.

    Raises:
      ValueError: if the images or tokens have another shape than the model was built for.
    """
    image, memory = self.describe_image(images, keys=keys)
    text, states = self.describe_text(tokens)
    hidden = self.decoder(states[:, :-1], memory)
    return Outputs(
      image=image,
      text=text,
      scale=jnp.exp(self.log_scale[...]),
      bias=None if self.bias is None else self.bias[...],
      caption_logits=self.decoder.output(hidden),
      hidden=hidden,
      vocabulary=self.decoder.output.kernel[...].T,
    )
