import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contrastive_jax.data.augmentation import augment

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
}


def pictures(B=4, H=16, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (B, H, H, 3)).astype(np.uint8)


def augmented(images, size, strengths, seed=0):
  return augment(jax.random.split(jax.random.key(seed), len(images)), images, size, strengths)


@pytest.mark.parametrize('strengths', [{}, dict.fromkeys(EVERYTHING, 0.0)])
def test_zero_strength_is_the_identity(strengths):
  np.testing.assert_array_equal(augmented(pictures(), 16, strengths), pictures())


@pytest.mark.parametrize('name', EVERYTHING)
def test_every_strength_changes_pictures_each_in_its_own_way(name):
  same = np.repeat(pictures(1), 64, axis=0)
  result = np.asarray(augmented(same, 16, {name: EVERYTHING[name]}))
  assert len({picture.tobytes() for picture in result}) >= 2
  assert result.min() > -1e-3 and result.max() < 255 + 1e-3


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100))
def test_a_function_of_its_key(seed):
  once, again = (augmented(pictures(), 12, EVERYTHING, seed) for _ in range(2))
  np.testing.assert_array_equal(once, again)
  assert once.shape == (4, 12, 12, 3)
  assert not np.array_equal(once, augmented(pictures(), 12, EVERYTHING, seed + 1))


def test_certain_flip_and_grey():
  flipped = augmented(pictures(), 16, {'flip': 1.0})
  np.testing.assert_allclose(flipped, pictures()[:, :, ::-1], atol=1e-2)
  grey = np.asarray(augmented(pictures(), 16, {'grey': 1.0}))
  np.testing.assert_allclose(grey[..., 0], pictures() @ [0.299, 0.587, 0.114], atol=1e-2)
  np.testing.assert_allclose(grey[..., :1], grey[..., 1:2], atol=1e-3)


def test_resampling_a_ramp_gives_a_ramp():
  """Halving a linear picture is exact: places and their centres are right."""
  ramp = np.broadcast_to(np.arange(16.0)[None, :, None, None], (1, 16, 16, 3))
  half = np.asarray(augmented(ramp, 8, {}))
  np.testing.assert_allclose(half[0, :, 4, 0], np.arange(8) * 2 + 0.5, atol=1e-4)
  np.testing.assert_allclose(augmented(ramp.swapaxes(1, 2), 8, {}), half.swapaxes(1, 2), atol=1e-4)


@pytest.mark.parametrize('name', ['degrees', 'shear', 'zoom', 'stretch', 'flip'])
def test_all_but_a_move_fix_the_centre(name):
  dot = np.full((32, 17, 17, 3), 255, np.uint8)
  dot[:, 8, 8] = 0
  result = np.asarray(augmented(dot, 17, {name: EVERYTHING[name]}))
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
  grey = np.broadcast_to(np.arange(16.0)[:, None] * 10, (2, 16, 16))[..., None].repeat(3, -1)
  np.testing.assert_allclose(augmented(grey, 16, {'hue': 0.5}), grey, atol=1e-3)
  colours = 100 + np.random.default_rng(0).uniform(-20, 20, (8, 16, 16, 3))
  turned = np.asarray(augmented(colours, 16, {'hue': 0.5}))
  chroma = [np.linalg.norm(c - c.mean(-1, keepdims=True), axis=-1) for c in (colours, turned)]
  np.testing.assert_allclose(*chroma, rtol=1e-3)


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
  grey = jnp.full((8, 4, 4, 3), 127.5)
  np.testing.assert_allclose(augmented(grey, 4, {'contrast': 1.0}), grey, atol=1e-3)


@pytest.mark.parametrize(
  ('strengths', 'message'),
  [
    ({'blur': 1.0}, r'config\.augmentation\.blur is unknown.*brightness'),
    ({'hue': 0.6}, r'config\.augmentation\.hue = 0\.6; use a number from 0 to 0\.5'),
    ({'flip': -0.1}, r'config\.augmentation\.flip = -0\.1'),
  ],
)
def test_mistakes_are_named(strengths, message):
  with pytest.raises(ValueError, match=message):
    augmented(pictures(), 16, strengths)
