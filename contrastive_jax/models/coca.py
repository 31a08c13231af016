"""CoCa: an image tower, a text tower and a multimodal decoder; contrastive and captioning."""

import math
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import towers, transformer
from contrastive_jax.models.dropout import fold
from contrastive_jax.models.linear import Linear
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.models.pooler import AttentionalPooler


class DecoderBlock(nnx.Module):
  """Self-attention, cross-attention to a context, then an MLP; with `mlps=2`, one after each."""

  def __init__(self, width, heads, hidden, *, mlps=1, context_width, **fields):
    if mlps not in (1, 2):
      raise ValueError(f'decoder.mlps = {mlps}; use 1, or 2 for an MLP after either attention')
    self.causal = transformer.Block(width, heads, hidden if mlps == 2 else None, **fields)
    self.cross = transformer.Block(width, heads, hidden, context_width=context_width, **fields)

  def __call__(self, x, context, *, mask=None, causal=True, rotation=None, drop=None):
    """Maps x [B, L, D] and a context [B, M, C] to [B, L, D]; masks and rotation apply to x."""
    x = self.causal(x, mask=mask, causal=causal, rotation=rotation, drop=drop)
    drop = drop and drop._replace(keys=fold(drop.keys, 2))
    return self.cross(x, context, drop=drop)

  def empty_cache(self, B, K, L):
    """See `Block.empty_cache`."""
    return self.causal.empty_cache(B, K, L)

  def project(self, context):
    """See `Block.project`."""
    return self.cross.project(context)

  def step(self, x, cache, context, parents, position):
    """See `Block.step`; the K texts share the keys and values of one context."""
    x, cache = self.causal.step(x, cache, None, parents, position)
    return self.cross.attend(x, context), cache


class Decoder(nnx.Module):
  """The multimodal decoder: predicts the next tokens from text states and the image memory.

  Attributes:
    output: the output matrix, from a normalized state to V logits.

  Args:
    vocabulary: number of tokens, V.
    width: D, width of the states.
    layers: number of layers, each of self-attention, cross-attention and MLP.
    heads: number of heads of both attentions.
    mlps: MLPs per layer: 1, after both attentions, as in the paper, or 2, one after each, as in
      open_clip.
    context_width: C, width of the memory.
    epsilon: epsilon of the layer norms.
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
      output_dtype=jnp.float32,  # in bfloat16 the largest logits would tie
      **make,
    )

  def __call__(self, states, memory, *, keys=None):
    """Maps states [B, L, D] and a memory [B, K, C] to hidden states [B, L, D] for `output`."""
    keys = keys if keys is None else fold(keys, 3)
    return self.norm(self.transformer(states, memory, causal=True, keys=keys))


POOLERS = ('cascade', 'parallel', 'shared', 'none')


class Coca(nnx.Module):
  """Contrastive captioner.

  The text tower is causal. A class token after the text and its padding yields the text embedding;
  the decoder continues from the states of the other tokens, so one pass serves both losses.

  Args:
    embed: D, the width of the shared space and of the poolers.
    image: arguments of the image tower, see `Clip`, without pooling.
    text: arguments of the text tower, without pooling.
    decoder: arguments of `Decoder`, without vocabulary, width and context width.
    pooler: pooling of the image tokens: 'cascade' (K queries form the captioner's memory, to which
      one contrastive query attends), 'parallel' (both attend to the tokens), 'shared' (one pooler
      of 1 + K queries, the contrastive one first, as in open_clip's released models), or 'none'
      (the image tower pools, and its tokens are the memory, as in open_clip's coca_base).
    queries: K, number of queries of the captioner's memory.
    pooler_heads: number of heads of the poolers.
    scale: initial inverse temperature.
    bias: initial value of the learned bias of similarities; None for no bias.
    dtype: dtype of activations and matmuls, 'float32' or 'bfloat16'; parameters are float32.
    remat: rematerialization of the transformers' layers, see `transformer.REMATS`; a tower and the
      decoder may have their own.
    attention: implementation of attention, see `attention.select`; likewise.
    rngs: initializes the parameters.

  References:
    Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022.
  """

  # Names of a batch that `encode` reads.
  inputs = ('image', 'tokens')

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
    attention: str = 'auto',
    rngs: nnx.Rngs,
  ):
    transformer.choose('pooler', pooler, dict.fromkeys(POOLERS))
    if (tower := text.get('tower', 'transformer')) != 'transformer':
      raise ValueError(
        f"text.tower = {tower!r} sees the tokens that a captioner predicts; use 'transformer'"
      )
    make = {'dtype': jnp.dtype(dtype), 'rngs': rngs}
    shared = {'remat': remat, 'attention': attention}
    self.pooling = pooler
    pooling = {} if pooler == 'none' else {'pooling': 'none'}
    self.image = towers.image_tower({**shared, **image}, **pooling, **make)
    self.text = towers.text_tower({**shared, **text}, pooling='class', **make)
    width, text_width = self.image.width, self.text.width
    pool = partial(AttentionalPooler, heads=pooler_heads, attention=attention, **make)
    pooled = width if pooler == 'none' else embed
    self.pooler = None if pooler == 'none' else pool(queries + (pooler == 'shared'), embed, width)
    context_width = embed if pooler == 'cascade' else width
    is_apart = pooler in ('cascade', 'parallel')
    self.contrastive_pooler = pool(1, embed, context_width) if is_apart else None
    self.image_projection = Linear(pooled, embed, ('embed', None), pooled**-0.5, bias=False, **make)
    self.text_projection = Linear(
      text_width, embed, ('embed', None), text_width**-0.5, bias=False, **make
    )
    self.decoder = Decoder(
      text['vocabulary'], text_width, context_width=pooled, **{**shared, **decoder}, **make
    )
    self.log_scale = nnx.Param(jnp.float32(math.log(scale)), axes=())
    self.bias = None if bias is None else nnx.Param(jnp.float32(bias), axes=())

  def encode_image(self, images, *, keys=None):
    """Unit vectors [B, D] of images [B, H, W, 3], normalized floats."""
    return self.image_embedding(images, keys=keys)[0]

  def encode_text(self, tokens):
    """Unit vectors [B, D] of tokens [B, L]."""
    return self.text_embedding(tokens)[0]

  def image_embedding(self, images, *, keys=None):
    """Unit vectors [B, D] of images, pooled features [B, D] before the projection, and tokens."""
    pooled, _, tokens = self._encode_image(images, keys=keys)
    return transformer.unit(self.image_projection(pooled)), pooled, tokens

  def text_embedding(self, tokens, *, keys=None):
    """Unit vectors [B, D] of tokens, and the pooled features [B, W] before the projection."""
    pooled = self.text(tokens, keys=keys)[0]
    return transformer.unit(self.text_projection(pooled)), pooled

  def encode(self, batch, *, keys=None) -> Outputs:
    """Encodes and captions the batch's `image` and `tokens`."""
    return self(batch['image'], batch['tokens'], keys=keys)

  def pool_image(self, images, *, keys=None):
    """Pooled features [B, D], and the captioner's memory [B, K, D].

    Without a pooler they are the image tower's, [B, W] and [B, P, W].
    """
    return self._encode_image(images, keys=keys)[:2]

  def _encode_image(self, images, *, keys=None):
    """Those of `pool_image`, and the tokens [B, P, W] of the image tower."""
    if isinstance(images, tuple):
      raise ValueError("images as patches need config.model.name = 'clip' or 'encoder', not 'coca'")
    pooled, tokens = self.image(images, keys=keys)
    if self.pooling == 'none':
      return pooled, tokens, tokens
    memory = self.pooler(tokens)
    if self.pooling == 'shared':
      pooled, memory = memory[:, 0], memory[:, 1:]
    else:
      context = memory if self.pooling == 'cascade' else tokens
      pooled = self.contrastive_pooler(context)[:, 0]
    return pooled, memory, tokens

  def captioner(self, images, *, beams: int, length: int):
    """Prepares autoregressive captioning with a key-value cache.

    Args:
      images: [B, H, W, 3] floats, normalized.
      beams: K, captions per image.
      length: L, length of the longest caption.

    Returns:
      step: (tokens [B, K], cache, parents [B, K], position) -> (logits [B, K, V], cache), from the
        tokens at a position to the logits of the next ones; caption k continues the cached caption
        parents[:, k]. The logits equal `caption_logits` at that position.
      cache: the empty cache.
    """
    context = self.decoder.transformer.project(self.pool_image(images)[1])

    def step(tokens, cache, parents, position):
      states, text = self.text.step(tokens, cache[0], parents, position)
      x, decoder = self.decoder.transformer.step(states, cache[1], context, parents, position)
      return self.decoder.output(self.decoder.norm(x)), (text, decoder)

    towers = (self.text.transformer, self.decoder.transformer)
    return step, tuple(tower.empty_cache(len(images), beams, length) for tower in towers)

  def __call__(self, images, tokens, *, keys=None) -> Outputs:
    """Encodes and captions a batch.

    Args:
      images: [B, H, W, 3] floats, normalized.
      tokens: [B, L] integers, padded with 0.
      keys: [B] random keys, one per example; only for training.

    Raises:
      ValueError: if images or tokens have a shape that the model does not take.
    """
    image_features, memory, image_tokens = self._encode_image(images, keys=keys)
    text_features, states = self.text(tokens, keys=keys)
    hidden = self.decoder(states[:, :-1], memory, keys=keys)
    return Outputs(
      image=transformer.unit(self.image_projection(image_features)),
      text=transformer.unit(self.text_projection(text_features)),
      image_features=image_features,
      text_features=text_features,
      image_tokens=image_tokens,
      text_tokens=states,
      scale=jnp.exp(self.log_scale[...]),
      bias=None if self.bias is None else self.bias[...],
      caption_logits=self.decoder.output(hidden),
      hidden=hidden,
      vocabulary=self.decoder.output.kernel[...].T,
    )
