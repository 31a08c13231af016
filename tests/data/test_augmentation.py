import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from contrastive_jax.data.augmentation import augment, augment_on_host, boxes, policies
from tests.doubles import slow_but

EVERYTHING = {
  'degrees': 20.0,
  'shear': 10.0,
  'translate': 0.1,
  'zoom': 0.2,
  'stretch': 0.2,
  'flip': 0.5,
  'brightness': 0.4,
  'contrast': 0.4,
  'saturation': 0.4,
  'hue': 0.2,
  'grey': 0.3,
  'erase': 0.5,
  'flip_vertical': 0.5,
  'crop': 0.7,
  'rand_augment': 0.3,
  'aug_mix': 0.3,
  'blur': 0.5,
}


SIDE = 17  # of pictures with a middle, which several tests share with 64 of them
# Means of four pictures that all the first twelve of EVERYTHING changed.
RECORDED = [78.03, 152.68, 115.27, 86.22]


def pictures(B=4, H=16, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (B, H, H, 3)).astype(np.uint8)


def augmented(images, size, strengths, seed=0):
  keys = jax.random.split(jax.random.key(seed), len(images))
  return compiled(size, tuple(strengths.items()))(keys, images)


@functools.cache
def compiled(size, strengths):
  change = jax.jit(lambda keys, images: augment(keys, images, size, dict(strengths)))
  return lambda *operands: jax.device_get(change(*operands))


@pytest.mark.parametrize('strengths', [{}, dict.fromkeys(EVERYTHING, 0.0)])
def test_zero_strength_is_the_identity(strengths):
  np.testing.assert_array_equal(augmented(pictures(), 16, strengths), pictures())


# Tests of their own say more of them, of other strengths, which compile again.
SAID = {'translate', 'hue', 'erase', 'crop', 'aug_mix', 'blur'}


@pytest.mark.parametrize('name', slow_but(EVERYTHING, *(EVERYTHING.keys() - SAID)))
def test_every_strength_changes_pictures_each_in_its_own_way(name):
  same = np.repeat(pictures(1, SIDE), 64, axis=0)
  result = augmented(same, SIDE, {name: EVERYTHING[name]})
  assert len({picture.tobytes() for picture in result}) >= 2
  assert result.min() > -1e-3 and result.max() < 255 + 1e-3


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100))
def test_a_function_of_its_key(seed):
  once, again = (augmented(pictures(), 12, EVERYTHING, seed) for _ in range(2))
  np.testing.assert_array_equal(once, again)
  assert once.shape == (4, 12, 12, 3)
  assert not np.array_equal(once, augmented(pictures(), 12, EVERYTHING, seed + 1))


def test_a_picture_is_changed_whatever_its_company():
  keys, images = jax.random.split(jax.random.key(0), 4), pictures()
  change = compiled(12, tuple(EVERYTHING.items()))
  np.testing.assert_array_equal(change(keys[::-1], images[::-1]), change(keys, images)[::-1])
  others = np.concatenate([images[:1], pictures(3, seed=1)])
  np.testing.assert_array_equal(change(keys, others)[0], change(keys, images)[0])


def test_on_the_host_as_on_the_device():
  seeds = np.arange(4)
  change = compiled(12, tuple(EVERYTHING.items()))
  there = change(jax.vmap(jax.random.key)(seeds), pictures())
  here = augment_on_host(12, EVERYTHING)(seeds, pictures())
  assert here.dtype == np.uint8
  # Operations on whole numbers may turn the last bit into a step.
  assert np.mean(np.abs(here - np.asarray(there)) <= 0.51) > 0.98


def test_draws_stay_as_they_were_recorded():
  """Published figures rest on them; strengths that came later must not move them."""
  earlier = dict(list(EVERYTHING.items())[:12])
  result = np.asarray(augmented(pictures(), 2, earlier, seed=5))
  np.testing.assert_allclose(result.mean((1, 2, 3)), RECORDED, atol=0.05)


@pytest.mark.parametrize(('name', 'axis'), [('flip', 2), ('flip_vertical', 1)])
def test_a_certain_flip_undoes_itself(name, axis):
  once = augmented(pictures(), 16, {name: 1.0})
  np.testing.assert_allclose(once, np.flip(pictures(), axis), atol=1e-2)
  np.testing.assert_allclose(augmented(once, 16, {name: 1.0}, seed=1), pictures(), atol=1e-2)


def test_a_certain_grey_is_luma_in_all_channels():
  gray = np.asarray(augmented(pictures(), 16, {'grey': 1.0}))
  np.testing.assert_allclose(gray[..., 0], pictures() @ [0.299, 0.587, 0.114], atol=1e-2)
  np.testing.assert_allclose(gray[..., :1], gray[..., 1:2], atol=1e-3)


def test_resampling_a_ramp_gives_a_ramp():
  """Halving a linear picture is exact: places and their centers are right."""
  ramp = np.broadcast_to(np.arange(16.0)[None, :, None, None], (1, 16, 16, 3))
  half = np.asarray(augmented(ramp, 8, {}))
  np.testing.assert_allclose(half[0, :, 4, 0], np.arange(8) * 2 + 0.5, atol=1e-4)
  np.testing.assert_allclose(augmented(ramp.swapaxes(1, 2), 8, {}), half.swapaxes(1, 2), atol=1e-4)


@pytest.mark.parametrize('name', ['degrees', 'shear', 'zoom', 'stretch', 'flip'])
def test_all_but_a_move_fix_the_centre(name):
  dot = np.full((64, SIDE, SIDE, 3), 255, np.uint8)
  dot[:, 8, 8] = 0
  result = np.asarray(augmented(dot, SIDE, {name: EVERYTHING[name]}))
  np.testing.assert_allclose(result[:, 8, 8], 0, atol=0.5)


def test_zoom_and_stretch_change_the_area_as_told():
  disc = np.full((200, 65, 65, 3), 255, np.uint8)
  y, x = np.mgrid[:65, :65] - 32
  disc[:, y**2 + x**2 < 200] = 0
  inside = (y**2 + x**2 < 200).sum()
  for name, low, high in (('zoom', 0.8**2, 1.2**2), ('stretch', 1, 1), ('degrees', 1, 1)):
    dark = (255 - np.asarray(augmented(disc, 65, {name: 0.2})))[..., 0].sum((1, 2)) / 255
    ratios = dark / inside
    assert ratios.min() >= 0.97 * low and ratios.max() <= 1.03 * high
    assert high == low or ratios.max() - ratios.min() > 0.6 * (high - low)


def test_what_a_move_uncovers_is_white():
  black = np.zeros((64, 16, 16, 3), np.uint8)
  result = np.asarray(augmented(black, 16, {'translate': 0.5}))
  assert ((result[:, [0, 0, -1, -1], [0, -1, 0, -1]] > 254.9).any((1, 2))).mean() > 0.95


def test_hue_keeps_greys_and_chroma():
  gray = np.broadcast_to(np.arange(16.0)[:, None] * 10, (2, 16, 16))[..., None].repeat(3, -1)
  np.testing.assert_allclose(augmented(gray, 16, {'hue': 0.5}), gray, atol=1e-3)
  colors = 100 + np.random.default_rng(0).uniform(-20, 20, (8, 16, 16, 3))
  turned = np.asarray(augmented(colors, 16, {'hue': 0.5}))
  chroma = [np.linalg.norm(c - c.mean(-1, keepdims=True), axis=-1) for c in (colors, turned)]
  np.testing.assert_allclose(*chroma, rtol=1e-3)


@pytest.mark.parametrize(('cut', 'least'), [(0.2, 0.0), (0.92, 0.6)])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 100))
def test_a_crop_is_a_box_within_the_picture_of_the_area_asked_for(cut, least, seed):
  """Pixels tell their places, so that a ramp's ends tell the box."""
  rows, columns = np.mgrid[:64, :64] * 2 + 20
  places = np.stack([rows, columns, columns], -1)[None].repeat(32, 0)
  result = np.asarray(augmented(places, 16, {'crop': cut, 'crop_min': least}, seed)) / 2
  assert result.max() < 100  # No white.
  height, width = (
    (result[:, -2, 8, 0] - result[:, 1, 8, 0]) / 13 * 16 / 64,
    (result[:, 8, -2, 1] - result[:, 8, 1, 1]) / 13 * 16 / 64,
  )
  area, aspect = height * width, width / height
  assert area.min() > 0.99 * (1 - cut) and area.max() < 1.01 * (1 - least)
  assert aspect.min() > 0.74 and aspect.max() < 1.35
  assert np.ptp(area) > 0.5 * (cut - least)


def test_blur_keeps_the_mean_and_lessens_what_differs():
  flat = np.full((64, 33, 33, 3), 77.0, np.float32)
  np.testing.assert_allclose(augmented(flat, 33, {'blur': 1.0}), flat, atol=1e-3)
  images = pictures(64, 33).astype(np.float32)
  result = augmented(images, 33, {'blur': 1.0})
  np.testing.assert_allclose(result.mean((1, 2)), images.mean((1, 2)), rtol=1e-4)
  assert (result.std((1, 2)) < 1.001 * images.std((1, 2))).all()
  assert result.std() < 0.8 * images.std()


def test_blur_is_gaussian():
  """A dot's variance is the square of a deviation of 0.1 to 2 pixels, the same both ways."""
  dot = np.zeros((64, 33, 33, 3), np.float32)
  dot[:, 16, 16] = 255
  result = np.asarray(augmented(dot, 33, {'blur': 1.0}))[..., 0] / 255
  place = np.arange(33) - 16
  rows, columns = result.sum(2) @ place**2, result.sum(1) @ place**2
  np.testing.assert_allclose(rows, columns, rtol=1e-4)
  assert rows.min() < 0.3 and 3 < rows.max() < 4


def test_what_is_erased_is_a_box_of_one_colour():
  results = np.asarray(augmented(pictures(1).repeat(64, 0), 16, {'erase': 1.0}))
  for result in results:
    changed = (result != pictures(1)[0]).any(-1)
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    box = result[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    assert len(np.unique(box.reshape(-1, 3), axis=0)) == 1
    assert max(box.shape[:2]) <= 9  # 50% of the side, and the pixels that it cuts
  untouched = augmented(pictures(64), 16, {'erase': 0.25}) == pictures(64)
  assert 0.6 < np.mean(np.all(untouched, (1, 2, 3))) < 0.9


def test_contrast_fixes_mid_grey():
  gray = np.full((8, 4, 4, 3), 127.5)
  np.testing.assert_allclose(augmented(gray, 4, {'contrast': 1.0}), gray, atol=1e-3)


# Policies


def smooth_pictures(B=3, H=24):
  """Of few extremes, so that operations on a picture's range show."""
  coarse = np.random.default_rng(1).integers(30, 200, (B, 5, 5, 3), np.uint8)
  return np.stack([np.asarray(Image.fromarray(c).resize((H, H), 3)) for c in coarse])


def operated(images, names, levels):
  operations = np.array([[policies.OPERATIONS.index(name) for name in names]] * len(images))
  return np.asarray(operate(np.float32(images), operations, np.float32([levels] * len(images))))


operate = jax.jit(policies.operate)


def by_pil(name, level, picture):
  factor, size = 1 + 0.9 * level, picture.width
  if name in ('brightness', 'saturation', 'contrast', 'sharpness'):
    kind = {'saturation': 'Color'}.get(name, name.capitalize())
    return getattr(ImageEnhance, kind)(picture).enhance(factor)
  if name in ('autocontrast', 'equalize'):
    return getattr(ImageOps, name)(picture)
  if name == 'posterize':
    return ImageOps.posterize(picture, 8 - round(4 * abs(level)))
  if name == 'solarize':
    return ImageOps.solarize(picture, 256 * (1 - abs(level)))
  if name == 'rotate':
    return picture.rotate(30 * level, Image.Resampling.BILINEAR, fillcolor='white')
  # Places of the result in the picture, shears about the center.
  slant, move = 0.3 * level, 0.45 * level * size
  matrix = {
    'identity': (1, 0, 0, 0, 1, 0),
    'shear_x': (1, slant, -slant * size / 2, 0, 1, 0),
    'shear_y': (1, 0, 0, slant, 1, -slant * size / 2),
    'translate_x': (1, 0, move, 0, 1, 0),
    'translate_y': (1, 0, 0, 0, 1, move),
  }[name]
  return picture.transform(
    picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor='white'
  )


@pytest.mark.parametrize('level', [-0.75, 0.5, 1.0])
@pytest.mark.parametrize('name', policies.OPERATIONS)
def test_an_operation_is_pils(name, level):
  result = operated(smooth_pictures(), [name], [level])
  expected = [by_pil(name, level, Image.fromarray(picture)) for picture in smooth_pictures()]
  distance = np.abs(result - np.stack([np.asarray(picture, int) for picture in expected]))
  # At the corners, PIL does not mix the picture with what lies outside.
  moves = policies.OPERATIONS.index(name) >= policies.OPERATIONS.index('rotate')
  assert np.mean(distance <= 1.01) > (0.9 if moves else 0.999)


@pytest.mark.parametrize('name', sorted({*policies.OPERATIONS} - {'autocontrast', 'equalize'}))
def test_an_operation_of_level_zero_is_the_identity(name):
  images = smooth_pictures()
  np.testing.assert_array_equal(operated(images, [name], [0.0]), images)


@settings(max_examples=20, deadline=None)
@given(
  st.lists(st.sampled_from(policies.OPERATIONS[:9]), min_size=2, max_size=2),
  st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=2),
)
def test_a_chain_is_one_operation_after_the_other(names, levels):
  one = operated(smooth_pictures(), names[:1], levels[:1])
  two = operated(one, names[1:], levels[1:])
  np.testing.assert_array_equal(operated(smooth_pictures(), names, levels), two)


def test_moves_of_a_chain_are_joined_in_their_order():
  """A quarter of the side down and a turn: near the middle, as two resamplings do."""
  names, levels = ('translate_y', 'rotate'), (0.2, 1.0)
  one = operated(smooth_pictures(H=48), names[:1], levels[:1])
  two = operated(one, names[1:], levels[1:])[:, 18:30, 18:30]
  both = operated(smooth_pictures(H=48), names, levels)[:, 18:30, 18:30]
  other = operated(smooth_pictures(H=48), names[::-1], levels[::-1])[:, 18:30, 18:30]
  assert np.abs(both - two).mean() < 1.5 < 3 < np.abs(both - other).mean()


def test_rand_augment_makes_two_operations_of_the_list_at_its_level():
  pairs = list(itertools.product(range(len(policies.OPERATIONS)), repeat=2))
  signs = list(itertools.product((-0.5, 0.5), repeat=2))
  operations, levels = (
    np.array(list(v)) for v in zip(*itertools.product(pairs, signs), strict=True)
  )
  picture = smooth_pictures(1, 12)
  made = np.asarray(operate(picture.repeat(len(levels), 0), operations, levels))
  keys = jax.random.split(jax.random.key(0), 200)
  augment = jax.jit(lambda keys, images: policies.rand_augment(keys, images, 0.5))
  drawn = set()
  for result in np.asarray(augment(keys, picture.repeat(200, 0))):
    distances = np.abs(made - result).mean((1, 2, 3))
    assert distances.min() < 0.1
    drawn |= set(operations[distances.argmin()])
  assert len(drawn) > 10  # Some pairs look the same.


def test_aug_mix_is_a_mean_with_the_picture():
  """Drawn again and again, some results are near the picture, and none leaves its range."""
  results = np.asarray(augmented(pictures(1).repeat(64, 0), 16, {'aug_mix': 0.5}))
  distances = np.abs(results - pictures(1)).mean((1, 2, 3))
  assert distances.min() < 8 and distances.max() > 20
  assert results.min() >= -1e-3 and results.max() <= 255.001


@pytest.mark.parametrize(
  ('strengths', 'message'),
  [
    ({'blurr': 1.0}, r'config\.augmentation\.blurr is unknown.*brightness'),
    ({'rand_augment': 9.0}, r'config\.augmentation\.rand_augment = 9\.0; use a number from 0 to 1'),
    ({'hue': 0.6}, r'config\.augmentation\.hue = 0\.6; use a number from 0 to 0\.5'),
    ({'flip': -0.1}, r'config\.augmentation\.flip = -0\.1'),
  ],
)
def test_mistakes_are_named(strengths, message):
  with pytest.raises(ValueError, match=message):
    augmented(pictures(), 16, strengths)


def test_boxes_tell_where_the_views_lie():
  ramp = (np.arange(64) + 0.5) / 64 * 255
  images = np.stack([*np.broadcast_arrays(ramp, ramp[:, None]), np.zeros((64, 64))], -1)
  keys, strengths = jax.random.split(jax.random.key(0), 16), {'crop': 0.8, 'flip': 0.5}
  strengths |= {'flip_vertical': 0.5, 'zoom': 0.0}
  images = np.tile(images, (16, 1, 1, 1))
  both = jax.jit(lambda keys: (augment(keys, images, 32, strengths), boxes(keys, strengths)))
  views, found = map(np.asarray, both(keys))
  views = views / 255
  start, bins = found[:, :2], (found[:, 2:] - found[:, :2]) / 32
  for row, column in ((5, 9), (16, 16), (30, 1)):
    # Red tells x, and green y.
    expected = start + bins * np.array([column + 0.5, row + 0.5])
    np.testing.assert_allclose(views[:, row, column, :2], expected, atol=0.01)
  assert 0 < np.mean(bins[:, 0] < 0) < 1 and found.min() >= -1e-6 and found.max() <= 1 + 1e-6
  with pytest.raises(ValueError, match=r'config\.augmentation\.shear = 8 makes views'):
    boxes(keys, {'shear': 8})
