"""A probabilistic autoencoder of pooled features: a Gaussian latent, and a decoder of it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.methods.method import Arrays, Method
from contrastive_jax.models.heads import define_head, head_flops
from contrastive_jax.models.latent import decoder_flops, define_latent_decoder
from contrastive_jax.models.masked import cut_patches

ENCODED = ('image', 'text')
DECODED = ('pixels', 'tokens')
MIN_LOG_SCALE = -6.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentAutoencoder(Method):
  """The heads of a method whose latents reconstruct an image or a text.

      z = mean(f) + exp(log_scale(f)) ε,   ε ~ N(0, I),   log_scale ≥ −6

  A linear head maps pooled features f to mean and log_scale; the decoder of z is a
  `LatentDecoder`. Tokens have a categorical likelihood with teacher forcing, and −log p is a mean
  per token. Pixels have a Gaussian one, with values from −1 to 1 and a variance of 1:

      −log p(x | z) = mean over pixels and channels of ½ (x − x̂)², up to a constant

  The decoder predicts all patches at once, of the images before augmentation on the device.

  Attributes:
    encode: 'image' or 'text', whose pooled features are f.
    decode: 'pixels', or 'tokens' for the text, with a captioner, such as CoCa, in the model.
    latent: D, width of z.
    width: of the decoder.
    layers: of the decoder.
    attention_heads: of the decoder, a divisor of `width`.
    patch: side of a patch of decoded pixels, a divisor of the side of the images of a batch.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: for an unknown name, or sizes that do not divide.
  """

  encode: str = 'image'
  decode: str = 'pixels'
  latent: int = 512
  width: int = 512
  layers: int = 3
  attention_heads: int = 8
  patch: int = 8
  mesh: jax.sharding.Mesh | None = None

  def __post_init__(self):
    for name, known in {'encode': ENCODED, 'decode': DECODED}.items():
      if (value := getattr(self, name)) not in known:
        raise ValueError(f'{name} = {value!r} is unknown; use one of {known}')
    if self.width % self.attention_heads:
      raise ValueError(
        f'width = {self.width} does not divide over attention_heads = {self.attention_heads}; use '
        'a divisor'
      )

  @property
  def reads(self) -> tuple[str, ...]:
    """Features, and what is reconstructed."""
    return (self._features, self.decode)

  @property
  def _features(self) -> str:
    return f'{self.encode}_features'

  def heads(self, sizes):
    """The Gaussian's parameters, and the decoder."""
    length, outputs, vocabulary = self._decoded(sizes)
    layers = self.width, self.layers, self.attention_heads
    return {
      'gaussian': define_head(getattr(sizes, self._features), (), 2 * self.latent, norm='none'),
      'decoder': define_latent_decoder(
        self.latent, length, *layers, outputs, vocabulary=vocabulary
      ),
    }

  def _decoded(self, sizes) -> tuple[int, int, int]:
    """Positions, outputs of each, and the vocabulary, 0 without one."""
    if self.decode == 'pixels':
      if sizes.side % self.patch:
        raise ValueError(
          f'config.objective.cmim.patch = {self.patch} does not divide the side of the images, '
          f'{sizes.side} pixels; use a divisor'
        )
      return (sizes.side // self.patch) ** 2, 3 * self.patch**2, 0
    if not sizes.vocabulary:
      raise ValueError(
        "config.objective.cmim.decode = 'tokens' takes the vocabulary of a captioner, and the "
        "model has none; use config.model.name = 'coca'"
      )
    return sizes.tokens, sizes.vocabulary, sizes.vocabulary

  def gaussian(self, inputs: Arrays, heads: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
    """Mean and log scale of the latents, [B, D] each."""
    mean, log_scale = jnp.split(heads['gaussian'](inputs[self._features]), 2, axis=1)
    return mean, jnp.maximum(log_scale, MIN_LOG_SCALE)

  def states(self, inputs: Arrays, heads: Mapping[str, Any], latents: jax.Array) -> jax.Array:
    """The decoder's states [B, L, C] of latents [B, D], under teacher forcing."""
    tokens = inputs['tokens'][:, :-1] if self.decode == 'tokens' else None
    return heads['decoder'](latents, tokens)

  def decode_error(self, inputs: Arrays, heads: Mapping[str, Any], latents: jax.Array) -> jax.Array:
    """−log p(x | z) per token or value."""
    states, decoder = self.states(inputs, heads, latents), heads['decoder']
    if self.decode == 'tokens':
      vocabulary, labels = decoder.output.kernel[...].T, inputs['tokens'][:, 1:]
      return losses.captioning_streamed(states, vocabulary, labels, mesh=self.mesh)
    targets = cut_patches(inputs['pixels'] / 127.5 - 1, self.patch)
    return jnp.mean(jnp.square(decoder.output(states) - targets)) / 2

  def flops(self, sizes):
    """The linear head and the decoder."""
    length, outputs, vocabulary = self._decoded(sizes)
    head = head_flops(getattr(sizes, self._features), (), 2 * self.latent, sizes.batch)
    layers = length, self.width, self.layers, outputs
    # The backward pass of streamed logits computes them again.
    again = 2.0 * sizes.batch * length * self.width * outputs if vocabulary else 0.0
    return head + decoder_flops(self.latent, *layers, sizes.batch) + again
