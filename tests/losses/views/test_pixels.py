import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.views.pixels import positive_pixels, propagate

# Programs of their own: operations one by one compile longer.
positives = jax.jit(positive_pixels, static_argnums=(2, 3))
WHOLE = jnp.array([[0.0, 0.0, 1.0, 1.0]])
SIDE = 3


@pytest.fixture(scope='module')
def drawn():
  """Boxes of two crops, some flipped, and their pixels."""
  rng = np.random.default_rng(0)
  first, second = rng.uniform(0, 1, (2, 6, 4)).astype(np.float32)
  pixels = rng.normal(size=(2, 6, SIDE**2, 5)).astype(np.float32)
  return first, second, pixels


@pytest.mark.parametrize(('pos_ratio', 'count'), [(0.7, 49), (0.71, 217)])
def test_pixels_of_one_crop_are_positives_of_themselves_and_then_of_their_neighbors(
  pos_ratio, count
):
  positive = positives(WHOLE, WHOLE, 7, pos_ratio)[0]
  assert positive.sum() == count and np.diagonal(positive).all()


def test_positives_are_those_of_a_loop(drawn):
  first, second, _ = drawn

  def place(box, i):
    bins = (box[2:] - box[:2]) / SIDE
    return box[:2] + bins * (np.array([i % SIDE, i // SIDE]) + 0.5), np.hypot(*bins)

  found = np.asarray(positives(first, second, SIDE))
  for b, i, j in np.ndindex(found.shape):
    (a, d), (c, e) = place(np.float64(first[b]), i), place(np.float64(second[b]), j)
    assert found[b, i, j] == (np.hypot(*(a - c)) / max(d, e) < 0.7)
  assert 0 < found.mean() < 1
  np.testing.assert_array_equal(
    positives(second, first, SIDE), found.swapaxes(1, 2), 'alike in both directions'
  )


def test_a_flip_reverses_the_columns():
  flipped = WHOLE[:, jnp.array([2, 1, 0, 3])]
  positive = np.asarray(positives(WHOLE, flipped, SIDE))[0]
  order = np.arange(SIDE**2).reshape(SIDE, SIDE)[:, ::-1].ravel()
  np.testing.assert_array_equal(positive, np.eye(SIDE**2)[order])


def test_translating_both_crops_changes_nothing(drawn):
  first, second, _ = drawn
  move = jnp.array([2.0, -1.0, 2.0, -1.0])  # exact in float32 for boxes of these bits
  first, second = (np.round(boxes * 64) / 64 for boxes in (first, second))
  moved = positives(first + move, second + move, SIDE)
  np.testing.assert_array_equal(moved, positives(first, second, SIDE))


def test_identical_unit_features_lose_4_in_both_directions(drawn):
  pixels = drawn[2][0]
  positive = positives(*[jnp.tile(WHOLE, (len(pixels), 1))] * 2, SIDE)
  both = 2 * jax.jit(losses.pixpro)(pixels, pixels, positive)
  assert both == pytest.approx(-4, abs=1e-5)


def test_crops_apart_have_no_loss_and_a_finite_gradient(drawn):
  y, k = drawn[2]
  nothing = jnp.zeros((len(y), SIDE**2, SIDE**2), bool)

  @jax.jit
  @jax.value_and_grad
  def step(y):
    return losses.pixpro(y, k, nothing) + losses.pix_contrast(y, k, nothing, scale=5.0)

  value, gradient = step(y)
  assert value == 0 and not np.any(gradient)


def test_with_one_positive_per_pixel_pix_contrast_is_info_nce(drawn):
  x, k = (pixels / np.linalg.norm(pixels, axis=-1, keepdims=True) for pixels in drawn[2])
  own = jnp.broadcast_to(jnp.eye(SIDE**2, dtype=bool), (len(x), SIDE**2, SIDE**2))
  found = jax.jit(losses.pix_contrast_per_example)(x, k, own, scale=5.0)
  logits = 5.0 * np.float64(x) @ np.float64(k).swapaxes(1, 2)
  expected = np.log(np.exp(logits).sum(-1)) - np.diagonal(logits, axis1=1, axis2=2)
  np.testing.assert_allclose(found, expected.mean(-1), rtol=1e-5)


def test_propagation_is_uniform_at_p_0_and_that_of_a_loop_at_2(drawn):
  x, g = drawn[2]
  unit = g / np.linalg.norm(g, axis=-1, keepdims=True)
  uniform, gradient = jax.jit(jax.value_and_grad(lambda x: propagate(x, g, 0.0).sum()))(x)
  assert uniform == pytest.approx(SIDE**2 * unit.sum(), rel=1e-5)
  assert np.isfinite(gradient).all()
  cosines = np.float64(x) @ np.float64(x).swapaxes(1, 2)
  norms = np.linalg.norm(x, axis=-1)
  cosines /= norms[:, :, None] * norms[:, None]
  expected = np.maximum(cosines, 0) ** 2 @ unit
  np.testing.assert_allclose(jax.jit(propagate)(x, g), expected, rtol=1e-4, atol=1e-5)


def test_wrong_boxes_are_refused():
  with pytest.raises(ValueError, match=r'first \(1, 4\) and second \(2, 4\); give boxes \[B, 4\]'):
    positive_pixels(WHOLE, jnp.zeros((2, 4)), SIDE)
