import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.methods import scatsimclr
from contrastive_jax.models.definition import define
from contrastive_jax.models.scattering import filters, paths, scatter, scatter_flops
from contrastive_jax.planning import traced_flops
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import build, flops
from contrastive_jax.training.batch import abstract_batch
from tests.models.towers import drawn

IMAGE = {'size': 16, 'patch': 4, 'width': 8, 'layers': 0, 'heads': 2, 'pooling': 'mean'}
IMAGE |= {'stem': 'scattering', 'stem_angles': 2, 'stem_blocks': (1,), 'pre_norm': False}

coefficients = jax.jit(scatter, static_argnums=(1, 2))


def encoder(**fields):
  return define('encoder', embed=8, projector=(), image=IMAGE | fields)


def images(size=16, count=2, seed=0):
  return np.random.default_rng(seed).normal(size=(count, size, size, 3)).astype(np.float32)


def smooth(shift):
  """Waves that a shift moves exactly, on a grid of 32."""
  x, y = np.mgrid[:32, :32] + shift
  wave = np.sin(2 * math.pi * (x + 2 * y) / 9) + np.cos(2 * math.pi * (3 * x - y) / 20)
  return np.repeat(wave[None, :, :, None], 3, 3).astype(np.float32)


def dense(x, scales, angles):
  """The coefficients of one channel [S, S], by convolutions without subsampling, in float64."""
  bank, pad = filters(len(x), scales, angles), 1 << scales
  padded = np.pad(np.float64(x), pad, 'reflect')
  average = lambda u: bank.averages[0] @ u @ bank.averages[0].T  # noqa: E731
  filtered = lambda u, j, n: np.abs(  # noqa: E731
    np.fft.ifft2(np.fft.fft2(u) * bank.wavelets[j, 0][n])
  )
  first = [(j, filtered(padded, j, n)) for j in range(scales) for n in range(angles)]
  second = [
    filtered(u, k, n) for j, u in first for k in range(j + 1, scales) for n in range(angles)
  ]
  return np.stack([average(u) for u in (padded, *(u for _, u in first), *second)])


def test_the_coefficients_are_those_of_full_convolutions():
  """But for what subsampling between the wavelets aliases."""
  x = images()
  found = np.asarray(coefficients(x, 2, 4))
  assert found.shape == (2, 4, 4, 3, paths(2, 4)) and paths(2, 16) == 289
  expected = np.moveaxis(dense(x[1, :, :, 2], 2, 4), 0, -1)
  np.testing.assert_allclose(found[1, :, :, 2, :5], expected[..., :5], atol=1e-5)
  error = np.linalg.norm(found[1, :, :, 2] - expected) / np.linalg.norm(expected[..., 1:])
  assert error < 0.03


def test_wavelets_have_no_mean_and_the_average_keeps_it():
  bank = filters(16, 2, 4)
  for spectrum in bank.wavelets.values():
    np.testing.assert_allclose(spectrum[:, 0, 0], 0, atol=1e-6)
  for matrix in bank.averages:
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-4)
  constant = coefficients(np.full((2, 16, 16, 3), 2.0, np.float32), 2, 4)
  np.testing.assert_allclose(constant[..., 0], 2, rtol=1e-4)
  np.testing.assert_allclose(constant[..., 1:], 0, atol=1e-5)


def test_small_shifts_change_little():
  """The coefficients of wavelets move far less than the pixels."""
  still, moved = smooth(0), smooth(1)
  relative = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(a)  # noqa: E731
  a, b = (np.asarray(coefficients(x, 2, 4))[..., 1:] for x in (still, moved))
  assert relative(a, b) < 0.1 and relative(still, moved) > 1


def test_the_operations_are_those_of_the_program():
  x = jax.ShapeDtypeStruct((5, 16, 16, 3), jnp.float32)
  for scales, angles in ((1, 3), (2, 4), (3, 2)):
    traced = traced_flops.traced(lambda x, n=scales, m=angles: scatter(x, n, m), x)
    assert traced.total == pytest.approx(5 * scatter_flops(16, scales, angles))


@pytest.mark.slow
def test_the_plan_of_a_run_counts_the_stem():
  config = scatsimclr.get_config('smoke')
  config.augmentation = ConfigDict()
  config.data.size = config.model.image.size
  run = build.build(config, jax.devices()[:1])
  batch = abstract_batch(config, run.definition)
  traced = traced_flops.traced(run.train_step, run.abstract_state, batch)
  parts = flops.analytic(config, run.abstract_state.parameters, run.objective, run.sizes)
  assert sum(parts.values()) == pytest.approx(traced.total, rel=0.1)
  constant = 3 * config.batch_size * scatter_flops(32, 2, 2)
  assert parts['image'] > constant > 0.1 * parts['image']


def test_eight_devices_are_one_and_keep_their_images():
  definition = encoder()
  parameters = drawn(definition)
  x = images(count=8)

  def embed(x):
    return definition.bind(parameters).encode({'image': x}).image

  expected = jax.jit(embed)(x)
  mesh = make_mesh('data:8')
  with jax.set_mesh(mesh):
    placed = jax.device_put(x, jax.NamedSharding(mesh, jax.P(('data', 'fsdp'))))
    compiled = jax.jit(embed).lower(placed).compile()
    np.testing.assert_allclose(compiled(placed), expected, atol=1e-5)
  assert 'all-gather' not in compiled.as_text()


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      {'patch': 1},
      r"image\.patch = 1 does not suit image\.stem = 'scattering'; use a power of two",
    ),
    ({'stem_blocks': (1, 2)}, r'image\.stem_blocks = \(1, 2\) with .* use one number'),
    ({'stem': 'patch', 'stem_blocks': None}, r"stem_angles = 2 needs image\.stem = 'scattering'"),
  ],
)
def test_what_cannot_work_is_told_by_its_field(fields, message):
  with pytest.raises(ValueError, match=message):
    encoder(**fields).shapes  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize(('size', 'scales', 'angles'), [(32, 2, 16), (32, 3, 8), (24, 1, 4)])
def test_the_coefficients_are_those_of_kymatio(size, scales, angles):
  pytest.importorskip('kymatio')
  # Its package for all transforms needs an older SciPy.
  from kymatio.scattering2d.frontend.numpy_frontend import ScatteringNumPy2D

  x = images(size)
  peer = ScatteringNumPy2D(J=scales, shape=(size, size), L=angles)
  expected = np.moveaxis(peer(np.moveaxis(x, -1, 1)), 2, -1)  # [B, 3, P, P, K]
  found = np.moveaxis(scatter(x, scales, angles), 3, 1)
  # kymatio takes 3.1415 for π.
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
