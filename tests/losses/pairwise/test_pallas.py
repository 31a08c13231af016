"""The kernels say what the scan says: interpreted here, and compiled for a TPU where libtpu is."""

import functools
import importlib.util
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses import pairwise
from tests.doubles import slow_but
from tests.losses import reference
from tests.losses.pairwise.test_memory import MIB, compiled


@functools.partial(jax.jit, static_argnames=('kernel', 'diagonal', 'mesh'))
def weighted(x, y, numbers, weights, **keywords):
  """Both results and, of a weighted sum of them, every gradient."""

  def total(x, y, numbers):
    results = pairwise.logsumexp(x, y, block_size=128, **numbers, **keywords)
    return sum(jnp.vdot(*pair) for pair in zip(results, weights, strict=True)), results

  (_, results), gradients = jax.value_and_grad(total, (0, 1, 2), has_aux=True)(x, y, numbers)
  return results, gradients


def check(rows, columns, dtype, form, mesh, classes=9, diagonal=True):
  """The kernels give the scan's results and gradients, in their dtypes."""
  rng = np.random.default_rng(rows)
  x, y = (jnp.asarray(reference.unit(rng, size, 12), dtype) for size in (rows, columns))
  numbers = {'scale': np.float32(20), 'bias': np.float32(-3)}
  if form == 'pair':
    numbers = {
      'scale': tuple(rng.uniform(1, 40, size).astype('f') for size in (rows, columns)),
      'bias': tuple(rng.normal(size=size).astype('f') for size in (rows, columns)),
    }
  weights = rng.normal(size=rows).astype('f'), rng.normal(size=columns).astype('f')
  exclude = rng.integers(0, classes, rows), rng.integers(0, classes, columns)
  scan, pallas = (
    weighted(
      *(x, y, numbers, weights),
      exclude=exclude,
      diagonal=diagonal,
      mesh=reference.make_mesh(mesh),
      kernel=kernel,
    )
    for kernel in ('scan', 'pallas')
  )
  chex.assert_trees_all_equal_dtypes(pallas, scan)
  # Sums of another order, then rounded to the inputs' dtype.
  tolerance = max(5e-5, float(jnp.finfo(dtype).eps))
  jax.tree.map(functools.partial(reference.assert_near, tolerance=tolerance), pallas, scan)


@pytest.mark.parametrize('dtype', ['float32', pytest.param('bfloat16', marks=pytest.mark.slow)])
@pytest.mark.parametrize(
  ('rows', 'columns', 'form', 'mesh'),
  [
    (300, 200, 'one', 'none'),  # tiles of 128, 128, 44 rows; blocks of 100 columns
    pytest.param(203, 520, 'pair', 'none', marks=pytest.mark.slow),
    (300, 520, 'pair', '2'),
    pytest.param(520, 300, 'one', '4', marks=pytest.mark.slow),
  ],
)
def test_kernels_say_what_the_scan_says(rows, columns, dtype, form, mesh):
  check(rows, columns, dtype, form, mesh, diagonal=form == 'one')


@pytest.mark.parametrize(('rows', 'columns'), slow_but([(1, 1), (1, 5), (5, 2)], (1, 1), (5, 2)))
def test_few_pairs_and_none(rows, columns):
  check(rows, columns, 'float32', 'pair', 'none', classes=1, diagonal=False)


def test_far_scores_neither_overflow_nor_vanish():
  x, y = np.eye(3, dtype='f'), -np.eye(3, dtype='f')
  rows, _ = pairwise.logsumexp(x, y, scale=1e4, kernel='pallas')
  reference.assert_near(rows, reference.logsumexp(1e4 * (x @ y.T).astype(np.float64), 1))


def test_second_derivatives_are_the_scans():
  x, y = reference.unit(np.random.default_rng(0), 2, 5, 3)

  def slope(y, kernel):
    loss = functools.partial(losses.info_nce, scale=5.0, kernel=kernel)
    return jnp.sum(jax.grad(loss)(x, y) ** 2)

  scan, pallas = (jax.jit(jax.grad(slope), static_argnums=1)(y, k) for k in ('scan', 'pallas'))
  assert np.abs(scan).max() > 0.1
  reference.assert_near(pallas, scan)


def test_what_a_kernel_does_not_take_is_refused():
  x = jnp.ones((4, 2))
  wide = jnp.ones((4, 2049))
  call = functools.partial(pairwise.logsumexp, kernel='pallas')
  cases = (
    (lambda: pairwise.logsumexp(x, x, kernel='cuda'), "kernel = 'cuda'; use 'scan' or 'pallas'"),
    (lambda: call(x.astype('float16'), x.astype('float16')), 'float16.*float32 and bfloat16'),
    (lambda: call(wide, wide), "2049 entries.*up to 2048 of float32; use kernel='scan'"),
    (lambda: call(x, x, block_size=100), 'block_size = 100.*a multiple of 128 up to 1024'),
    (lambda: call(x, x, block_size=0), 'block_size = 0.*a multiple of 128'),
    (lambda: call(wide[:, 1:], wide[:, 1:], block_size=256), 'block_size = 256.*up to 128'),
  )
  for refused, message in cases:
    with pytest.raises(ValueError, match=message):
      refused()


def with_every_option(x, y, *, scale, mesh, kernel):
  rows, columns = pairwise.logsumexp(
    x,
    y,
    scale=(scale, 2 * scale),
    bias=(scale, jnp.arange(len(y)) * scale),
    exclude=jnp.arange(len(x)) // 2,
    diagonal=False,
    mesh=mesh,
    kernel=kernel,
  )
  return jnp.sum(rows) + jnp.sum(columns)


@pytest.mark.parametrize('mesh', slow_but(['none', '2'], '2'))
def test_the_platform_decides_between_chip_and_interpreter(mesh):
  x = jnp.ones((300, 12))
  loss = functools.partial(losses.info_nce, scale=2.0, mesh=reference.make_mesh(mesh))
  kernel = jax.jit(jax.grad(functools.partial(loss, kernel='pallas')))
  scan = jax.jit(jax.grad(loss))
  for step, platform, kernels in ((kernel, 'tpu', 2), (kernel, 'cpu', 0), (scan, 'tpu', 0)):
    program = step.trace(x, x).lower(lowering_platforms=(platform,)).as_text()
    assert program.count('tpu_custom_call') == kernels


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='needs libtpu to compile')
@pytest.mark.parametrize('devices', [1, 8])
@pytest.mark.parametrize('loss', [losses.info_nce, with_every_option])
def test_kernels_compile_for_a_tpu(loss, devices, monkeypatch):
  from jax.experimental import topologies

  # No TPU is here to be asked.
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  topology = topologies.get_topology_desc(platform='tpu', topology_name='v5e:2x4')
  mesh = jax.sharding.Mesh(np.array(topology.devices[:devices]), ('data',))
  batch, width = 8192 * devices, 256
  program = compiled(loss, batch, width, mesh, kernel='pallas')
  text = program.as_text()
  # The forward and the backward, and nothing as large as a tile of rows' scores to all columns.
  assert text.count('custom_call_target="tpu_custom_call"') == 2
  shapes = re.findall(r'\b[a-z]+\d+\[([\d,]+)\]', text)
  assert max(math.prod(map(int, shape.split(','))) for shape in shapes) <= 8192 * width
  assert program.memory_analysis().temp_size_in_bytes <= 128 * MIB
