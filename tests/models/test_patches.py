"""Images as patches of any grid: positions, kernels, masks, and what padding must not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.data import Patches
from contrastive_jax.models import patches as naflex
from contrastive_jax.models.towers import check_patches
from tests.doubles import slow_but
from tests.models.towers import drawn, tiny, tiny_coca

SIZE = {'size': 16, 'patch': 4}
# Of a grid for each image, and padding of different length.
GRIDS = np.array([[4, 4], [2, 7], [15, 1], [1, 3]], np.int32)
LENGTH = 16
POOLINGS = {
  'class': {'pooling': 'class'},
  'mean': {'pooling': 'mean'},
  'patch_mean': {'pooling': 'patch_mean', 'class_token': True, 'final_norm': 'pooled'},
  'attention': {'pooling': 'attention'},
  'registers': {'pooling': 'attention', 'registers': 2},
}


@functools.cache
def tower(**fields):
  """A jitted function from (parameters, images, keys), and parameters."""
  definition = tiny_image(**fields)

  @jax.jit
  def encode(parameters, images, keys=None):
    return definition.bind(parameters).image(images, keys=keys)[0]

  return encode, drawn(definition)


def tiny_image(dtype='float32', attention='xla', **image):
  image = {**SIZE, 'layers': 1, **image}
  return tiny(image=image, text={'layers': 0}, attention=attention, dtype=dtype)


def patches_of(length=LENGTH, padding=0.0):
  random = np.random.default_rng(0)
  pixels = np.full([len(GRIDS), length, 4, 4, 3], padding, np.float32)
  for row, count in enumerate(GRIDS.prod(1)):
    pixels[row, :count] = random.normal(size=(count, 4, 4, 3))
  return Patches(pixels, GRIDS)


@pytest.mark.parametrize('pooling', slow_but(POOLINGS, 'patch_mean', 'registers'))
def test_patches_of_a_square_image_are_the_image(pooling):
  encode, parameters = tower(**POOLINGS[pooling])
  images = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype(np.float32)
  squares = images.reshape(3, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(3, 16, 4, 4, 3)
  grid = np.full([3, 2], 4, np.int32)
  np.testing.assert_allclose(
    encode(parameters, Patches(squares, grid)), encode(parameters, images), atol=1e-5
  )


@pytest.mark.parametrize('pooling', slow_but(POOLINGS, 'class', 'attention'))
def test_padding_changes_nothing_and_has_no_gradient(pooling):
  encode, parameters = tower(**POOLINGS[pooling])
  before = encode(parameters, patches_of())
  np.testing.assert_array_equal(encode(parameters, patches_of(padding=9.0)), before)
  # Longer sequences of the same grid are the same images.
  np.testing.assert_allclose(encode(parameters, patches_of(24, 9.0)), before, atol=1e-5)

  def total(pixels):
    return jnp.sum(jnp.sin(encode(parameters, Patches(pixels, GRIDS))))

  gradient = np.asarray(jax.jit(jax.grad(total))(patches_of(padding=9.0).pixels))
  hidden = np.arange(LENGTH) >= GRIDS.prod(1)[:, None]
  assert not gradient[hidden].any() and np.abs(gradient[~hidden]).max(axis=(1, 2, 3)).min() > 0


def test_every_patch_counts_with_its_own_position():
  encode, parameters = tower(pooling='mean')
  images = patches_of()
  for row, (height, width) in enumerate(GRIDS):
    if height * width == 1:
      continue
    last = height * width - 1
    swapped = images.pixels.copy()
    swapped[row, [0, last]] = swapped[row, [last, 0]]
    changed = np.abs(encode(parameters, images) - encode(parameters, Patches(swapped, GRIDS))).max(
      axis=1
    )
    assert changed[row] > 1e-3 and not np.delete(changed, row).any()


@pytest.mark.parametrize('kind', naflex.INTERPOLATIONS)
def test_positions_are_resized_to_the_grid_of_each_image(kind):
  table = np.random.default_rng(0).normal(size=(25, 3)).astype(np.float32)
  grids = np.array([[5, 5], [2, 7], [9, 3], [1, 1], [20, 1]], np.int32)
  found = jax.jit(naflex.positions, static_argnums=(2, 3))(table, grids, 27, kind)
  assert np.isfinite(found).all()
  for own, (height, width) in zip(found, grids, strict=True):
    method = {'bilinear': 'linear', 'bicubic': 'cubic'}[kind]
    expected = jax.image.resize(table.reshape(5, 5, 3), (height, width, 3), method)
    np.testing.assert_allclose(
      own[: height * width], np.reshape(expected, (-1, 3)), atol=2e-6, rtol=1e-5
    )
  np.testing.assert_array_equal(found[0, :25], table)


@pytest.mark.parametrize('kind', naflex.INTERPOLATIONS)
def test_a_resized_kernel_embeds_enlarged_patches_alike(kind):
  """FlexiViT's law: the product with an enlarged patch is that with the patch."""
  random = np.random.default_rng(0)
  kernel, patch = (random.normal(size=(5, 5, 3, 2)).astype(np.float32) for _ in range(2))
  rows = naflex.resize_weights(np.arange(8.0), np.full(8, 8.0), 5, kind)
  enlarged = np.einsum('qi,rj,ijcd->qrcd', rows, rows, patch)
  resized = naflex.resize_kernel(jnp.asarray(kernel), 8, kind)
  products = [np.einsum('ijcd,ijce->de', a, b) for a, b in ((patch, kernel), (enlarged, resized))]
  np.testing.assert_allclose(*products, atol=1e-4)
  same = naflex.resize_kernel(jnp.asarray(kernel), 5, kind)
  np.testing.assert_allclose(same, kernel, atol=1e-5)


def test_patches_of_another_size_have_gradients_of_the_kernel():
  definition = tiny_image(pooling='mean')
  parameters = drawn(definition)
  pixels = np.random.default_rng(0).normal(size=(2, 6, 7, 7, 3)).astype(np.float32)
  images = Patches(pixels, np.array([[2, 3], [1, 4]], np.int32))

  def total(parameters):
    return jnp.sum(definition.bind(parameters).image(images)[0] ** 2)

  gradient = jax.device_get(jax.jit(jax.grad(total))(parameters))['image']
  assert gradient['stem']['embed']['kernel'].shape == (4, 4, 3, 16)
  assert np.abs(gradient['stem']['embed']['kernel']).max() > 0
  assert np.abs(gradient['positions']).max() > 0


@pytest.mark.parametrize('pooling', ['class', 'attention'])
def test_fused_attention_masks_the_padding_too(pooling):
  (encode, parameters), (expected, _) = (
    tower(attention='splash', pooling=pooling),
    tower(pooling=pooling),
  )
  found = encode(parameters, patches_of(padding=9.0))
  np.testing.assert_allclose(found, expected(parameters, patches_of()), atol=1e-5)


def test_rows_that_fill_up_a_batch_are_finite():
  encode, parameters = tower(pooling='attention')
  images = patches_of()
  empty = Patches(np.zeros_like(images.pixels), np.zeros_like(images.grid))
  assert np.isfinite(encode(parameters, empty)).all()


def test_patch_dropout_drops_padding_first():
  encode, parameters = tower(pooling='mean', patch_dropout=0.5)
  images, keys = patches_of(), jax.random.split(jax.random.key(0), len(GRIDS))
  dropped, whole = encode(parameters, images, keys), encode(parameters, images)
  # Eight of sixteen tokens remain, and the last image has three patches.
  changed = np.abs(dropped - whole).max(axis=1)
  assert changed[:3].min() > 1e-3 and changed[3] < 1e-5
  np.testing.assert_array_equal(encode(parameters, patches_of(padding=9.0), keys), dropped)


def test_bfloat16_is_close_and_its_position_gradient_exact():
  (encode, parameters), (rough, _) = (
    tower(pooling='attention', dtype=dtype) for dtype in ('float32', 'bfloat16')
  )
  found = np.asarray(rough(parameters, patches_of()), np.float32)
  exact = np.asarray(encode(parameters, patches_of()))
  assert np.linalg.norm(found - exact) <= 0.05 * np.linalg.norm(exact)
  table = jax.ShapeDtypeStruct([16, 8], 'float32')
  positions = jax.eval_shape(lambda t: naflex.positions(t, GRIDS, LENGTH, 'bicubic'), table)
  assert positions.dtype == jnp.float32


@pytest.mark.parametrize(
  ('model', 'message'),
  [
    ({'name': 'coca', 'image': {}}, r"config\.model\.name = 'coca' takes no images as patches"),
    ({'name': 'text_pair'}, r"config\.model\.name = 'text_pair' takes no images"),
    ({'name': 'clip', 'image': {'tower': 'resnet'}}, r"model\.image\.tower = 'resnet' .*'vit'"),
    ({'name': 'clip', 'image': {'stem': 'nested'}}, r"model\.image\.stem = 'nested' .*'patch'"),
    ({'name': 'clip', 'image': {'rope': 'yx'}}, r"model\.image\.rope = 'yx' .*use None"),
  ],
)
def test_models_without_patches_are_named(model, message):
  with pytest.raises(ValueError, match=message):
    check_patches(model)


@pytest.mark.parametrize(
  'make', [tiny_coca, functools.partial(tiny, image={'stem': 'convolution'})]
)
def test_a_model_without_patches_refuses_them(make):
  definition = make()
  shapes = definition.shapes
  with pytest.raises(ValueError, match='images as patches need'):
    jax.eval_shape(lambda p: definition.bind(p).encode_image(tuple(patches_of())), shapes)
