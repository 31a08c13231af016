"""cMIM: a probabilistic autoencoder whose latents are told apart, without augmentation."""

import dataclasses

import jax
import jax.numpy as jnp

from contrastive_jax import losses
from contrastive_jax.losses.views.mim import DIVIDED
from contrastive_jax.methods.lift import streamed
from contrastive_jax.methods.method import Arrays, Method, Result
from contrastive_jax.models.heads import define_head, head_flops
from contrastive_jax.models.latent import decoder_flops, define_latent_decoder

ENCODED = ('image', 'text')
DECODED = ('pixels', 'tokens')
MIN_LOG_SCALE = -6.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cmim(Method):
  """cMIM [1]: a Mutual Information Machine (MIM) [2] with a contrastive term on its latents.

      L = contrast · L_contrast + L_densities − reconstruction · log p(x | z)
      z = mean(f) + exp(log_scale(f)) ε,   ε ~ N(0, I),   log_scale ≥ −6

  L_contrast is `losses.mim_contrast` and L_densities `losses.mim_densities`, of the sampled latents
  z. A linear head maps pooled features f to mean and log_scale; the decoder of z is a
  `LatentDecoder`. Without the contrastive term it is A-MIM.

  Tokens have a categorical likelihood with teacher forcing, and −log p is a mean per token. Pixels
  have a Gaussian one, which is our reading: with values from −1 to 1 and a variance of 1,

      −log p(x | z) = mean over pixels and channels of ½ (x − x̂)², up to a constant

  per value, as of tokens, so a `reconstruction` of w stands for a variance of 1 / w. The decoder
  predicts all patches at once, of the images before augmentation on the device.

  Evaluation sees the features before the heads, as those before a projector; `informative` gives
  the embeddings that the paper reads from the decoder.

  Attributes:
    encode: 'image' or 'text', whose pooled features are f.
    decode: 'pixels', or 'tokens' for the text, with a captioner, such as CoCa, in the model.
    latent: D, width of z.
    contrast: weight of the contrastive term.
    reconstruction: weight of the reconstruction, 1 in the authors' code.
    scale: the inverse of the contrastive temperature.
    divide: whether D divides the densities, see `losses.mim_densities`.
    width: of the decoder.
    layers: of the decoder.
    attention_heads: of the decoder, a divisor of `width`.
    patch: side of a patch of decoded pixels, a divisor of the side of the images of a batch.
    mesh: the mesh over which the batch is sharded; None for one device.

  Raises:
    ValueError: for an unknown name, or sizes that do not divide.

  References:
    [1] Livne, Contrastive MIM, 2025, https://arxiv.org/abs/2502.19642; formulas and default sizes
      as in NVIDIA-BioNeMo/KERMT: kermt/model/models.py, kermt/util/parsing.py.
    [2] Livne et al., MIM: Mutual Information Machine, 2019, https://arxiv.org/abs/1910.03175
  """

  encode: str = 'image'
  decode: str = 'pixels'
  latent: int = 512
  contrast: float = 1.0
  reconstruction: float = 1.0
  scale: float = 10.0
  divide: str = 'none'
  width: int = 512
  layers: int = 3
  attention_heads: int = 8
  patch: int = 8
  mesh: jax.sharding.Mesh | None = None

  def __post_init__(self):
    choices = {'encode': ENCODED, 'decode': DECODED, 'divide': DIVIDED}
    for name, known in choices.items():
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

  def loss(self, inputs, heads, memory, key):
    """The three terms, of latents that `key` draws."""
    mean, log_scale = gaussian(heads, inputs[self._features])
    latents = mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape)
    contrast = losses.mim_contrast(latents, scale=self.scale, mesh=self.mesh)
    densities = losses.mim_densities(latents, mean, log_scale, divide=self.divide)
    reconstruction = self._reconstruction(inputs, heads['decoder'], latents)
    loss = self.contrast * contrast + densities + self.reconstruction * reconstruction
    metrics = {'contrast': contrast, 'densities': densities, 'reconstruction': reconstruction}
    return Result(loss, metrics=metrics | {'log_scale': jnp.mean(log_scale)})

  def _reconstruction(self, inputs: Arrays, decoder, latents: jax.Array) -> jax.Array:
    """−log p(x | z) per token or value."""
    states = self._states(inputs, decoder, latents)
    if self.decode == 'tokens':
      vocabulary, labels = decoder.output.kernel[...].T, inputs['tokens'][:, 1:]
      return losses.captioning_streamed(states, vocabulary, labels, mesh=self.mesh)
    targets = patches(inputs['pixels'] / 127.5 - 1, self.patch)
    return jnp.mean(jnp.square(decoder.output(states) - targets)) / 2

  def _states(self, inputs: Arrays, decoder, latents: jax.Array) -> jax.Array:
    """The decoder's states, under teacher forcing [B, L, C]."""
    return decoder(latents, inputs['tokens'][:, :-1] if self.decode == 'tokens' else None)

  def informative(self, inputs: Arrays, heads) -> jax.Array:
    """The informative embeddings of [1]: the decoder's mean state, with z at its mean.

    Args:
      inputs: features, and the tokens if they are decoded.
      heads: modules by name.

    Returns:
      [B, C], the mean over the patches, or over the positions that predict a token.
    """
    states = self._states(inputs, heads['decoder'], gaussian(heads, inputs[self._features])[0])
    if self.decode == 'pixels':
      return jnp.mean(states, 1)
    return jnp.mean(states, 1, where=inputs['tokens'][:, 1:, None] != 0)

  def flops(self, sizes):
    """The products of pairs, the linear head and the decoder."""
    length, outputs, vocabulary = self._decoded(sizes)
    total = streamed()(sizes._replace(embed=self.latent))
    total += head_flops(getattr(sizes, self._features), (), 2 * self.latent, sizes.batch)
    layers = length, self.width, self.layers, outputs
    # The backward pass of streamed logits computes them again.
    again = 2.0 * sizes.batch * length * self.width * outputs if vocabulary else 0.0
    return total + decoder_flops(self.latent, *layers, sizes.batch) + again


def gaussian(heads, features: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and log scale, [B, D] each, of the latents of features [B, W]."""
  mean, log_scale = jnp.split(heads['gaussian'](features), 2, axis=1)
  return mean, jnp.maximum(log_scale, MIN_LOG_SCALE)


def patches(images: jax.Array, size: int) -> jax.Array:
  """Cuts images [B, H, H, 3] into patches [B, P, 3 size²], by rows."""
  B, side = len(images), images.shape[1] // size
  cut = images.reshape(B, side, size, side, 3 * size).swapaxes(2, 3)
  return cut.reshape(B, side**2, 3 * size**2)
