import io
import pathlib
import struct
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contrastive_jax.data import images

PARITY = pathlib.Path(__file__).parent / 'parity' / 'preprocess'
EXPECTED = np.load(PARITY / 'expected.npz')
MODES = ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'I', 'F', 'I;16']
FORMATS = ['BMP', 'GIF', 'JPEG', 'PNG', 'WEBP']

sizes = st.integers(1, 40)
seeds = st.integers(0, 2**32)


def picture(width, height, mode='RGB', seed=0):
  pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
  image = Image.fromarray(pixels)
  # Pillow reaches some modes only by way of others.
  if mode in ('I', 'F', 'I;16'):
    image = image.convert('L').convert('I')
  elif mode == 'LA':
    image = image.convert('L')
  return image.convert(mode)


def encode(image, form):
  buffer = io.BytesIO()
  image.save(buffer, form)
  return buffer.getvalue()


def claim_size(png, width, height):
  """The same PNG with another size in its header, correctly summed."""
  header = b'IHDR' + struct.pack('>II', width, height) + png[24:29]
  return png[:12] + header + struct.pack('>I', zlib.crc32(header)) + png[33:]


# Evaluation


@pytest.mark.parametrize('key', EXPECTED.files)
def test_preprocess_equals_open_clips(key):
  name, size = key.split('@')
  image = images.preprocess(Image.open(PARITY / name), int(size))
  # float16 holds the expected values to a tenth of the distance between two pixel values.
  np.testing.assert_allclose(image, EXPECTED[key].astype(np.float32), atol=1.1e-3, rtol=0)


@given(width=sizes, height=sizes, mode=st.sampled_from(MODES), size=sizes)
def test_any_mode_and_size_becomes_a_square(width, height, mode, size):
  source = picture(width, height, mode)
  pixels = images.resize(source, size)
  image = images.preprocess(source, size)
  assert pixels.shape == image.shape == (size, size, 3)
  assert pixels.dtype == np.uint8
  assert image.dtype == np.float32
  assert np.isfinite(image).all()


@given(side=sizes, seed=seeds)
def test_resize_leaves_a_square_of_that_size_alone(side, seed):
  image = picture(side, side, seed=seed)
  np.testing.assert_array_equal(images.resize(image, side), image)


@given(margin=st.integers(0, 9), side=sizes)
def test_resize_crops_the_centre(margin, side):
  image = picture(side + 2 * margin, side)
  np.testing.assert_array_equal(images.resize(image, side), np.asarray(image)[:, margin:][:, :side])


def test_a_sliver_is_refused_before_it_fills_the_memory():
  with pytest.raises(ValueError, match='1 x 100000'):
    images.resize(Image.new('L', (1, 100_000)), 224)


def test_normalize_is_the_same_on_the_device():
  pixels = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
  host, device = images.normalize(pixels), jax.jit(images.normalize)(jnp.asarray(pixels))
  assert isinstance(host, np.ndarray)
  assert host.dtype == device.dtype == np.float32
  np.testing.assert_allclose(host, device, atol=1e-6)


def test_normalize_inverts():
  pixels = np.arange(256 * 3, dtype=np.uint8).reshape(16, 16, 3)
  back = (images.normalize(pixels) * images.STANDARD_DEVIATION + images.MEAN) * 255
  np.testing.assert_allclose(back, pixels, atol=1e-4)


# Decoding


@pytest.mark.parametrize('form', ['BMP', 'PNG', 'GIF'])
def test_decode_inverts_lossless_encoding(form):
  image = picture(9, 5).quantize(16).convert('RGB')
  np.testing.assert_array_equal(images.decode(encode(image, form)), image)


def test_decode_drops_transparency():
  image = Image.new('RGBA', (4, 4), (200, 100, 50, 0))
  assert images.decode(encode(image, 'PNG')).getpixel((0, 0)) == (200, 100, 50)


@pytest.mark.parametrize('form', FORMATS)
def test_a_truncated_picture_is_refused(form):
  encoded = encode(picture(64, 64), form)
  for length in (0, 1, 20, len(encoded) // 2, len(encoded) - 100):
    with pytest.raises(ValueError, match=f'{length} bytes does not decode'):
      images.decode(encoded[:length])


@settings(deadline=None)
@given(form=st.sampled_from(FORMATS), data=st.data())
def test_a_damaged_picture_decodes_or_is_refused(form, data):
  encoded = bytearray(encode(picture(20, 20), form))
  for _ in range(4):
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
  try:
    assert images.decode(bytes(encoded)).mode == 'RGB'
  except ValueError as error:
    assert 'does not decode' in str(error) or 'pixels' in str(error)


@pytest.mark.parametrize('side', [8193, 60_000])
@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_an_absurdly_large_picture_is_refused_unread(side):
  bomb = claim_size(encode(picture(4, 4), 'PNG'), side, side)
  with pytest.raises(ValueError, match=f'limit .*{images.MAX_PIXELS}'):
    images.decode(bomb)


# Crops


@given(side=sizes, seed=seeds)
def test_the_whole_area_is_the_identity(side, seed):
  image = picture(side, side)
  rng = np.random.default_rng(seed)
  np.testing.assert_array_equal(images.random_resized_crop(image, side, rng, area=(1, 1)), image)


@given(width=st.integers(8, 60), height=st.integers(8, 60), share=st.floats(0.05, 1), seed=seeds)
def test_a_crop_has_the_area_asked_for(width, height, share, seed):
  # A picture whose two first channels are its coordinates shows which box was cut.
  columns, rows = np.meshgrid(np.arange(width) * 4, np.arange(height) * 4)
  image = Image.fromarray(np.stack([columns, rows, rows], axis=-1).astype(np.uint8))
  crop = images.random_resized_crop(image, 64, np.random.default_rng(seed), area=(share, share))
  # Away from the edges, where the filter is cut short, a ramp stays a ramp.
  inner = np.asarray(crop).astype(float)[16:48, 16:48]
  box_width = (inner[:, -1, 0] - inner[:, 0, 0]).mean() / 31 * 64 / 4
  box_height = (inner[-1, :, 1] - inner[0, :, 1]).mean() / 31 * 64 / 4
  assert box_width * box_height == pytest.approx(share * width * height, rel=0.25, abs=6)


@pytest.mark.parametrize('area', [(0, 1), (0.5, 1.5), (0.9, 0.5)])
def test_an_impossible_crop_is_named(area):
  with pytest.raises(ValueError, match='area = '):
    images.random_resized_crop(picture(8, 8), 8, np.random.default_rng(0), area=area)
