"""The scattering transform of images, and a stem on it: wavelets that are not trained."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from contrastive_jax.models.linear import matmul_precision
from contrastive_jax.models.stem import ResidualBlock, convolution
from contrastive_jax.sharding.mesh import BATCH_AXES, batch_shards

# Angles of the wavelets by default, as in kymatio.
ANGLES = 8


class Filters(NamedTuple):
  """Filters of a scattering transform on a padded grid of side N.

  Attributes:
    wavelets: by (scale j, level r) the transforms of the wavelets ψ_j on the grid of side N / 2^r,
      float32 [L, N / 2^r, N / 2^r].
    averages: by level r a matrix [S / 2^J, N / 2^r] that averages an axis by the low-pass filter φ,
      subsamples it and removes the padding.
    norms: by scale the norms of the wavelets, [J, L].
  """

  wavelets: dict[tuple[int, int], np.ndarray]
  averages: list[np.ndarray]
  norms: np.ndarray


@functools.lru_cache(maxsize=8)
def filters(size: int, scales: int, angles: int) -> Filters:
  """The filters for images of side S = `size`, J = `scales` and L = `angles`.

  Morlet wavelets ψ with an envelope of standard deviation 0.8 · 2^j and frequency 3π / 4 · 2^-j
  along L angles, and a Gaussian φ of standard deviation 0.8 · 2^(J-1), as in kymatio.
  """
  pad = 1 << scales
  N = size + 2 * pad
  wavelets, norms = {}, []
  for j in range(scales):
    turns = [(int(angles - angles / 2 - 1) - n) * math.pi / angles for n in range(angles)]
    shape = 0.8 * 2**j, 0.75 * math.pi / 2**j, 4 / angles
    bank = np.stack([_morlet(N, turn, *shape) for turn in turns])
    norms.append(np.linalg.norm(bank, axis=(1, 2)))
    bank = np.fft.fft2(bank).real
    for level in range(j + 1):
      wavelets[j, level] = np.float32(_fold(_fold(bank, level, 1), level, 2))
  x = np.arange(-2 * N, 3 * N)
  sigma = 0.8 * 2 ** (scales - 1)
  low = np.exp(-0.5 * (x / sigma) ** 2).reshape(5, N).sum(0) / (sigma * math.sqrt(2 * math.pi))
  low = np.fft.fft(low).real
  averages = []
  for level in range(scales):
    kernel = np.fft.ifft(_fold(low, level, 0)).real
    # Outputs without the padding, a pixel of 2^J on each side.
    outputs = np.arange(1, N // pad - 1) * (pad >> level)
    places = outputs[:, None] - np.arange(N >> level)
    averages.append(np.float32(kernel[places % (N >> level)]))
  return Filters(wavelets, averages, np.stack(norms))


def _morlet(N: int, angle: float, sigma: float, frequency: float, slant: float) -> np.ndarray:
  """A wave with a Gaussian envelope and no mean, periodic on a grid [N, N]."""
  x = np.arange(-2 * N, 3 * N)
  along = x[:, None] * math.cos(angle) + x * math.sin(angle)
  across = x * math.cos(angle) - x[:, None] * math.sin(angle)
  envelope = np.exp(-(along**2 + (slant * across) ** 2) / (2 * sigma**2))
  envelope *= slant / (2 * math.pi * sigma**2)
  fold = lambda y: y.reshape(5, N, 5, N).sum((0, 2))  # noqa: E731
  wave, envelope = fold(envelope * np.exp(1j * frequency * along)), fold(envelope)
  return wave - wave.sum() / envelope.sum() * envelope


def _fold(spectrum: np.ndarray, level: int, axis: int) -> np.ndarray:
  """The low frequencies of an axis of a spectrum, for a grid that is subsampled by 2^level."""
  if not level:
    return spectrum
  size = spectrum.shape[axis]
  kept = size >> level
  # The frequency −Nyquist stands for both.
  places = np.r_[: kept // 2, size - (kept - kept // 2) : size]
  return np.take(spectrum, places, axis)


def paths(scales: int, angles: int) -> int:
  """K, the number of scattering coefficients: 1 + J L + L² J (J − 1) / 2."""
  return 1 + scales * angles + angles**2 * scales * (scales - 1) // 2


def scatter(images: jax.Array, scales: int, angles: int) -> jax.Array:
  """The scattering coefficients of orders 0 to 2 of each channel [1].

      x ⋆ φ,   |x ⋆ ψ_a| ⋆ φ,   ||x ⋆ ψ_a| ⋆ ψ_b| ⋆ φ   with scales j_a < j_b

  subsampled by 2^J. They are those of kymatio's Scattering2D, in its order. Memory is that of the
  coefficients and of the paths after one wavelet.

  Args:
    images: [B, S, S, C], with S a multiple of 2^J above it.
    scales: J.
    angles: L.

  Returns:
    [B, S / 2^J, S / 2^J, C, K] float32.

  References:
    [1] Bruna and Mallat, Invariant Scattering Convolution Networks,
      https://arxiv.org/abs/1203.1513
  """
  bank, pad = filters(images.shape[1], scales, angles), 1 << scales
  x = jnp.moveaxis(images.astype(jnp.float32), -1, 1)
  x = jnp.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), 'reflect')
  spectrum = jnp.fft.fft2(x)
  orders: list[list[jax.Array]] = [[_average(bank, x, 0)[None]], [], []]
  for j in range(scales):

    def first(wavelet, j=j):
      u = _modulus(spectrum, wavelet, j)
      if j == scales - 1:
        return _average(bank, u, j), None
      inner, found = jnp.fft.fft2(u)[None], []
      for k in range(j + 1, scales):
        v = _modulus(inner, bank.wavelets[k, j][:, None, None], k - j)
        found.append(_average(bank, v, k))
      return _average(bank, u, j), jnp.concatenate(found)

    # One wavelet at a time.
    once, twice = jax.lax.map(first, jnp.asarray(bank.wavelets[j, 0]))
    orders[1].append(once)
    if twice is not None:
      orders[2].append(twice.reshape(-1, *twice.shape[2:]))
  found = jnp.concatenate([part for order in orders for part in order])  # [K, B, C, P, P]
  return jnp.moveaxis(found, (2, 0), (-2, -1))


def _modulus(spectrum: jax.Array, wavelet, level: int) -> jax.Array:
  """|x ⋆ ψ| subsampled by 2^level, from the transforms of x [..., N, N] and of ψ."""
  product = spectrum * wavelet
  if level:
    *rest, N, _ = product.shape
    # Subsampling adds up the frequencies that coincide on the coarser grid.
    product = product.reshape(*rest, 1 << level, N >> level, 1 << level, N >> level).mean((-4, -2))
  return jnp.abs(jnp.fft.ifft2(product))


def _average(bank: Filters, u: jax.Array, level: int) -> jax.Array:
  """The average u ⋆ φ, subsampled, without the padding; φ is separable."""
  matrix, precision = bank.averages[level], matmul_precision(u.dtype)
  return jnp.einsum('ph,...hw,qw->...pq', matrix, u, matrix, precision=precision)


def scatter_flops(size: int, scales: int, angles: int) -> float:
  """Operations of `scatter` for an image of three channels, see `planning.traced_flops`."""
  pad = 1 << scales
  N, P = size + 2 * pad, size // pad
  fft = lambda j: 5 * (N >> j) ** 2 * 2 * math.log2(N >> j)  # noqa: E731
  average = lambda j: 2 * (P * (N >> j) ** 2 + P * P * (N >> j))  # noqa: E731
  total = fft(0) + average(0)
  for j in range(scales):
    total += angles * (fft(j) + average(j))
    if j < scales - 1:
      total += angles * fft(j)
    for k in range(j + 1, scales):
      total += angles**2 * (fft(k) + average(k))
  return 3 * total


class ScatteringStem(nnx.Module):
  """Scattering coefficients, a 3 x 3 convolution and residual blocks, as in ScatSimCLR [1].

  The coefficients with J = log2(patch) are constants of the image. Each is divided by the norms of
  its wavelets, so that the orders are of like magnitude; [1] has batch norm after the convolution,
  here the residual blocks have norms alone.

  Args:
    patch: 2^J, a power of two; [1] has J = 2.
    width: D, width of the tokens.
    angles: L; None for 8. [1] has 16.
    blocks: (number of residual blocks,); None for none.
    norm: of the residual blocks, 'layer' or 'batch'.
    dtype: dtype of the activations after the coefficients, which are float32.
    rngs: initializes the parameters.

  References:
    [1] Kinakh et al., https://arxiv.org/abs/2108.13939
  """

  def __init__(
    self,
    patch: int,
    width: int,
    *,
    angles: int | None = None,
    blocks: Sequence[int] | None = None,
    norm: str = 'layer',
    dtype,
    rngs,
  ):
    self.scales, self.angles = patch.bit_length() - 1, angles or ANGLES
    if patch != 1 << self.scales or patch < 2:
      raise ValueError(
        f"image.patch = {patch} does not suit image.stem = 'scattering'; use a power of two"
      )
    (count,) = (0,) if blocks is None else tuple(blocks) if len(blocks) == 1 else (-1,)
    if count < 0:
      raise ValueError(
        f"image.stem_blocks = {blocks} with image.stem = 'scattering'; use one number, such as (2,)"
      )
    make = {'dtype': dtype, 'rngs': rngs}
    self.embed = convolution(3 * paths(self.scales, self.angles), width, **make)
    self.adapter = nnx.List(
      [ResidualBlock(width, depth=count, norm=norm, **make) for _ in range(count)]
    )

  def __call__(self, images):
    """Maps images [B, H, W, 3] to tokens [B, P, D]."""
    x = self.embed(self.features(images))
    for block in self.adapter:
      x = block(x)
    return x.reshape(len(x), -1, x.shape[-1])

  def features(self, images: jax.Array) -> jax.Array:
    """Scaled coefficients [B, H / 2^J, W / 2^J, 3 K]."""
    of = functools.partial(scatter, scales=self.scales, angles=self.angles)
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.empty and len(images) % batch_shards(mesh) == 0:
      # XLA's partitioner would gather the batch for Fourier transforms.
      specs = jax.P(BATCH_AXES)
      of = jax.shard_map(of, in_specs=specs, out_specs=specs, check_vma=False)
    x = of(images) / _gains(images.shape[1], self.scales, self.angles)
    return x.reshape(*x.shape[:3], -1)


def _gains(size: int, scales: int, angles: int) -> np.ndarray:
  """The product of the norms of the wavelets of each path, [K]."""
  norms = filters(size, scales, angles).norms
  once = norms.reshape(-1)
  twice = [np.outer(norms[j], norms[j + 1 :]).reshape(-1) for j in range(scales - 1)]
  return np.float32(np.concatenate([[1.0], once, *twice]))
