"""The text tower: a transformer over tokens, causal or bidirectional."""

import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models import transformer
from contrastive_jax.models.dropout import fold


def end_positions(tokens, pad_id: int = 0):
  """Returns the positions [B] of the last tokens that are not padding, for tokens [B, L].

  The search runs from the right, since CLIP's padding id also stands for '!'.
  """
  L = tokens.shape[1]
  return L - 1 - jnp.argmax(tokens[:, ::-1] != pad_id, axis=1)


def check_tokens(tokens, length: int) -> None:
  """Raises ValueError for tokens that are not [B, length]."""
  if tokens.ndim != 2 or tokens.shape[1] != length:
    raise ValueError(f'tokens have shape {tokens.shape}; the model takes [B, {length}]')


POOLINGS = ('end', 'last', 'mean', 'class')


class TextTower(nnx.Module):
  """A text transformer.

  Attributes:
    vocabulary: V, number of token ids.
    length: L, tokens per text, padding included.
    causal: whether attention is causal.
    mask_padding: whether to mask the padding; a bidirectional SigLIP tower does not.
    pooling: 'end' (the end-of-text token, the last that is not padding), 'last' (the last position,
      padding or not), 'mean' (of the tokens that are not padding), or 'class' (a class token after
      the text and its padding).
    shift_mask: with 'class', whether the mask is shifted by one token, as in open_clip's CoCa: it
      hides the class token, and shows the first padding token.
    head_width: width of a head; default width / heads.
    epsilon: epsilon of the layer norms.
    scan, remat: see `Transformer`.
    attention: see `attention.select`.
    fields: options of the layers, `transformer.OPTIONS`.
  """

  pad_id = 0

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
    attention: str = 'auto',
    dtype,
    rngs,
    **fields,
  ):
    transformer.check_options('text', fields)
    transformer.choose('text.pooling', pooling, dict.fromkeys(POOLINGS))
    if shift_mask and pooling != 'class':
      raise ValueError(f"text.shift_mask needs text.pooling = 'class', not {pooling!r}")
    self.length, self.width, self.pooling = length, width, pooling
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
      attention=attention,
      **fields,
      **make,
    )
    self.norm = transformer.layer_norm(width, epsilon=epsilon, **make)

  def __call__(self, tokens, *, keys=None):
    """Encodes tokens [B, L] to pooled vectors [B, width] and states [B, L, width].

    With a class token the states are unnormalized: a decoder continues from them. `keys` [B] choose
    what is dropped; without keys, as in evaluation, nothing is.
    """
    check_tokens(tokens, self.length)
    end = end_positions(tokens)
    written = jnp.arange(self.length) <= end[:, None]
    x = self._embed_tokens(tokens)
    if self.class_token is not None:
      last = transformer.repeat(self.class_token[...], len(x), x.dtype)
      x = jnp.concatenate([x, last], axis=1)
    x = transformer.add_parameter(x, self.positions[...])
    keys = None if keys is None else fold(keys, 2)
    x = self.transformer(x, mask=self._mask(tokens, written), causal=self.causal, keys=keys)
    if self.pooling == 'class':
      return self.norm(x[:, -1]), x[:, :-1]
    x = self.norm(x)
    if self.pooling == 'last':
      return x[:, -1], x
    if self.pooling == 'end':
      return jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0], x
    return jnp.mean(x, axis=1, where=written[..., None]), x

  def step(self, tokens, cache, parents, position):
    """Computes the states at one position of K texts each; see `Transformer.step`.

    Args:
      tokens: [B, K]
      cache: from `transformer.empty_cache` or the previous step.
      parents: [B, K] integers.
      position: scalar integer.

    Returns:
      Unnormalized states [B, K, width], and the new cache.
    """
    x = transformer.add_parameter(self._embed_tokens(tokens), self.positions[position])
    return self.transformer.step(x, cache, self.transformer.project(), parents, position)

  @staticmethod
  def lengths(fields, path):
    """Positions per text that the kernel at a path is applied to, and keys they attend to."""
    del path
    states = fields['length'] + (fields.get('pooling', 'end') == 'class')
    return states, states

  @staticmethod
  def describe(fields):
    """Describes the tower in a model card."""
    return (
      f'{fields["layers"]} layers of width {fields["width"]}, {fields["length"]} tokens of '
      f'{fields["vocabulary"]}'
    )

  def _embed_tokens(self, tokens):
    # The cast follows the gather, so that the gradient of a frequent token is summed in float32.
    return jnp.take(self.embed.embedding[...], tokens, axis=0).astype(self.embed.dtype)

  def _mask(self, tokens, written):
    """Returns the attention mask [B, 1, 1, M], apart from causality; None for no mask."""
    # Without a class token, no causal query that is used attends to the padding on its right.
    if not self.mask_padding or (self.causal and self.class_token is None):
      return None
    visible = written
    if self.shift_mask:
      visible = jnp.pad(tokens != 0, ((0, 0), (1, 0)), constant_values=True)
    elif self.class_token is not None:
      visible = jnp.pad(written, ((0, 0), (0, 1)), constant_values=True)
    return visible[:, None, None, :]
