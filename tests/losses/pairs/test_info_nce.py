import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax import losses
from contrastive_jax.losses import pairwise
from tests.doubles import slow_but
from tests.losses import reference


@functools.partial(jax.jit, static_argnames=('block_size', 'mesh', 'label_smoothing'))
def loss_and_gradients(image, text, scale, same=None, **options):
  def loss(image, text, scale):
    return losses.info_nce(image, text, scale=scale, same=same, **options)

  return jax.value_and_grad(loss, (0, 1, 2))(image, text, scale)


def check(image, text, scale, same=None, tolerance=5e-5, label_smoothing=0.0, **options):
  options['label_smoothing'] = label_smoothing
  value, gradients = loss_and_gradients(image, text, jnp.float32(scale), same, **options)
  truth, expected = reference.info_nce(image, text, np.float32(scale), same, label_smoothing)
  reference.assert_near(value, truth)
  floors = scale / len(image), scale / len(image), 1.0
  for got, gradient, floor in zip(gradients, expected, floors, strict=True):
    reference.assert_near(got, gradient, floor, tolerance)


@pytest.mark.parametrize(
  ('batch', 'block_size'),
  slow_but(
    [(1, None), (2, 1), (5, 2), (96, 32), (96, None), (203, 64), (520, 512), (1000, 300)],
    *[(1, None), (96, None), (203, 64)],
  ),
)
def test_streamed_is_dense_at_any_scale(batch, block_size):
  rng = np.random.default_rng(batch)
  image, text = reference.unit(rng, 2, batch, 24)
  for scale in (1.0, 14.3, 100.0):
    check(image, text, scale, block_size=block_size)


MESHES = ('1', '2', '4', '8', '4x2', '2x2x2', 'copies')
FAST = [(8, None, '1'), (8, None, '2x2x2'), (520, 24, '8'), (520, 24, '4x2'), (520, 24, 'copies')]


@pytest.mark.parametrize(
  ('batch', 'block_size', 'mesh'),
  slow_but([(*size, mesh) for size in ((8, None), (520, 24)) for mesh in MESHES], *FAST),
)
def test_a_ring_is_dense(mesh, batch, block_size):
  rng = np.random.default_rng(batch)
  image, text = reference.unit(rng, 2, batch, 24)
  same = rng.integers(0, batch, batch)
  check(image, text, 30.0, same, block_size=block_size, mesh=reference.make_mesh(mesh))


@pytest.mark.parametrize('mesh', ['none', '4x2'])
@pytest.mark.parametrize('kind', ['identical', 'orthogonal', 'opposite', 'matched'])
def test_extreme_rows(kind, mesh):
  rng = np.random.default_rng(0)
  one = reference.unit(rng, 32)
  image, text = {
    'identical': (np.tile(one, (32, 1)),) * 2,
    'orthogonal': (np.eye(32, dtype=np.float32),) * 2,
    'opposite': (np.tile(one, (32, 1)), -np.tile(one, (32, 1))),
    'matched': (reference.unit(rng, 32, 32),) * 2,
  }[kind]
  for scale in (1.0, 100.0):
    check(image, text, scale, block_size=6, mesh=reference.make_mesh(mesh))


@pytest.mark.slow  # as a program per shape is compiled; pairwise.logsumexp has this law too
@settings(max_examples=12, deadline=None)
@given(
  batch=st.integers(1, 17),
  width=st.integers(1, 5),
  block_size=st.integers(1, 20),
  scale=st.floats(1.0, 100.0, width=32),
  seed=st.integers(0, 2**16),
)
def test_any_shape(batch, width, block_size, scale, seed):
  rng = np.random.default_rng(seed)
  image, text = reference.unit(rng, 2, batch, width)
  check(image, text, scale, rng.integers(0, batch, batch), block_size=block_size)


@settings(max_examples=30, deadline=None)
@given(
  scale=st.floats(1.0, 100.0, width=32), seed=st.integers(0, 2**16), classes=st.integers(1, 30)
)
def test_any_values(scale, seed, classes):
  rng = np.random.default_rng(seed)
  image, text = reference.unit(rng, 2, 24, 6)
  # From independent towers to nearly matched ones, and vectors that are not quite unit.
  text = rng.uniform(0.5, 1.5) * (text + rng.uniform(0, 4) * image).astype(np.float32)
  text /= np.abs(np.linalg.norm(text, axis=1)).max()
  check(image, text, scale, rng.integers(0, classes, 24), block_size=7)


@pytest.mark.parametrize('mesh', slow_but(['none', '8', '4x2'], 'none', '4x2'))
@pytest.mark.parametrize('label_smoothing', slow_but([0.1, 0.9], 0.1))
def test_label_smoothing_is_dense(label_smoothing, mesh):
  rng = np.random.default_rng(0)
  image, text = reference.unit(rng, 2, 104, 24)
  options = {'block_size': 24, 'mesh': reference.make_mesh(mesh)}
  for same in (None, rng.integers(0, 60, 104)):
    for scale in (1.0, 30.0):
      check(image, text, scale, same, label_smoothing=label_smoothing, **options)


def test_label_smoothing_spreads_over_the_pairs_that_count():
  eye = np.eye(4, dtype=np.float32)
  # The cross entropy of targets 0.7 and 0.1 with softmax(2, 0, 0, 0).
  expected = np.log(np.exp(2) + 3) - 0.7 * 2
  assert losses.info_nce(eye, eye, scale=2.0, label_smoothing=0.4) == pytest.approx(expected)
  alone = losses.info_nce(eye, eye, scale=2.0, same=np.zeros(4, int), label_smoothing=0.4)
  assert alone == pytest.approx(0, abs=1e-6)


def test_no_label_smoothing_has_the_bits_of_the_plain_loss():
  rng = np.random.default_rng(0)
  image, text = reference.unit(rng, 2, 40, 24)
  same = rng.integers(0, 30, 40)
  rows, columns = pairwise.logsumexp(image, text, scale=9.0, exclude=same)
  plain = (rows + columns) / 2 - 9.0 * pairwise.paired(image, text)
  smoothed = losses.info_nce_per_example(image, text, scale=9.0, same=same, label_smoothing=0.0)
  np.testing.assert_array_equal(smoothed, plain)
  np.testing.assert_array_equal(smoothed.mean(), losses.info_nce(image, text, scale=9.0, same=same))


@pytest.mark.parametrize('label_smoothing', [-0.1, 1.0, float('nan')])
def test_label_smoothing_out_of_range_is_an_error(label_smoothing):
  with pytest.raises(ValueError, match=r'label_smoothing = .*; use a number in \[0, 1\)'):
    losses.info_nce(jnp.eye(2), jnp.eye(2), scale=1.0, label_smoothing=label_smoothing)


@pytest.mark.parametrize(
  ('smoothing', 'mesh'),
  slow_but(itertools.product((0.0, 0.1), ('none', '8')), (0.0, 'none'), (0.1, '8')),
)
def test_bfloat16_gives_bfloat16_gradients(smoothing, mesh):
  rng = np.random.default_rng(0)
  image, text = (jnp.asarray(a, jnp.bfloat16) for a in reference.unit(rng, 2, 96, 24))
  options = {'block_size': 40, 'mesh': reference.make_mesh(mesh), 'label_smoothing': smoothing}
  value, gradients = loss_and_gradients(image, text, jnp.float32(20), **options)
  assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
  truth, expected = reference.info_nce(image, text, 20.0, None, smoothing)
  # Scores and sums are float32: only the gradients' own rounding is bfloat16's.
  reference.assert_near(value, truth)
  reference.assert_near(gradients[2], expected[2])
  for got, gradient in zip(gradients[:2], expected[:2], strict=True):
    reference.assert_near(got, gradient, floor=0.0, tolerance=2**-7)


def test_placed_arrays_stay_placed():
  mesh = reference.make_mesh('4x2')
  batch = jax.NamedSharding(mesh, jax.P(('data', 'fsdp')))
  image, text = jax.device_put(
    reference.unit(np.random.default_rng(0), 2, 16, 4),
    batch.update(spec=jax.P(None, ('data', 'fsdp'))),
  )
  loss = functools.partial(losses.info_nce, mesh=mesh)
  gradients = jax.jit(jax.grad(lambda *a: loss(*a, scale=5.0), (0, 1)))(image, text)
  assert all(gradient.sharding.is_equivalent_to(batch, 2) for gradient in gradients)
  check(image, text, 5.0, mesh=mesh)


def test_rows_of_one_integer_are_not_negatives():
  rng = np.random.default_rng(0)
  image, text = reference.unit(rng, 2, 6, 4)
  assert losses.info_nce(image, text, scale=9.0, same=np.zeros(6, int)) == pytest.approx(
    0, abs=1e-5
  )
  all_differ = losses.info_nce(image, text, scale=9.0, same=np.arange(6))
  assert all_differ == losses.info_nce(image, text, scale=9.0)


def test_swapping_and_rotating_change_nothing():
  rng = np.random.default_rng(0)
  image, text = reference.unit(rng, 2, 20, 6)
  rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0].astype(np.float32)
  loss_of = jax.jit(losses.info_nce)
  loss = loss_of(image, text, scale=9.0)
  np.testing.assert_allclose(loss_of(text, image, scale=9.0), loss, rtol=1e-5)
  rotated = loss_of(image @ rotation, text @ rotation, scale=9.0)
  np.testing.assert_allclose(rotated, loss, rtol=1e-5)


@pytest.mark.parametrize('mesh', slow_but(['none', '2'], '2'))
def test_second_derivatives_are_exact(mesh):
  rng = np.random.default_rng(0)
  image, text, direction = reference.unit(rng, 3, 6, 4)
  mesh = reference.make_mesh(mesh)

  def slope(image, text, scale):
    loss = functools.partial(losses.info_nce, scale=scale, block_size=2, mesh=mesh)
    return jnp.sum(jax.grad(loss)(image, text) * direction)

  def dense_slope(image, text, scale):
    return np.sum(reference.info_nce(image, text, scale)[1][0] * direction)

  expected = reference.differences(dense_slope, image, text, 5.0)
  got = jax.jit(jax.grad(slope, (0, 1, 2)))(image, text, 5.0)
  jax.tree.map(reference.assert_near, got, expected)


def test_forward_mode_is_refused():
  eye = jnp.eye(4)
  with pytest.raises(TypeError, match=r'forward-mode.*custom_vjp'):
    jax.jvp(lambda image: losses.info_nce(image, eye, scale=1.0), (eye,), (eye,))


def test_a_batch_that_does_not_divide_is_refused():
  with pytest.raises(ValueError, match=r"12 rows.*the mesh's 8 shards; use a multiple of 8"):
    losses.info_nce(jnp.ones((12, 4)), jnp.ones((12, 4)), scale=1.0, mesh=reference.make_mesh('8'))
