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
from PIL import Image, ImageOps

from contrastive_jax.data import images

PARITY = pathlib.Path(__file__).parent / 'parity' / 'preprocess'
EXPECTED = np.load(PARITY / 'expected.npz')
PATTERNS = np.load(PARITY / 'patterns.npz')
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


def pattern(width, height, mode):
  """A picture that every version of every library draws alike: waves, ever shorter, and noise."""
  x, y = np.meshgrid(np.arange(width), np.arange(height))
  pixels = np.stack([x * x // 40 + 2 * y, y * y // 30 + 5 * x, x * y // 20 + x * 7919 % 31], -1)
  image = Image.fromarray((127 - np.abs(pixels % 256 - 128)).astype(np.uint8) * 2)
  if mode in ('I', 'F', 'I;16'):
    image = Image.fromarray(np.asarray(image.convert('L')).astype(np.int32) * 3 - 99)
  elif mode == 'LA':
    image = image.convert('L')
  image = image.convert(mode)
  if mode in ('LA', 'RGBA'):
    image.putalpha(Image.fromarray((x * 5 + y * 3).astype(np.uint8)))
  return image


def encode(image, form, **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def smooth(width, height):
  """A picture that looks the same at every scale: red to the right, green down, blue an arch."""
  x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
  pixels = np.stack([x, y, 4 * x * (1 - x) * y], axis=-1)
  return Image.fromarray((255 * pixels).round().astype(np.uint8))


def turned(orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return exif


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


@pytest.mark.parametrize('key', PATTERNS.files)
def test_preprocess_equals_open_clips_on_slivers_and_odd_modes(key):
  width, height, mode, size, step = key.split(',')
  image = images.preprocess(pattern(int(width), int(height), mode), int(size))
  levels = (image * images.STANDARD_DEVIATION + images.MEAN)[:: int(step), :: int(step)] * 255
  np.testing.assert_allclose(levels, PATTERNS[key], atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('size', [32, 224, 256, 336])
def test_preprocess_equals_the_installed_open_clips(mode, size):
  transform = pytest.importorskip('open_clip.transform').image_transform
  theirs = transform(size, False, tuple(images.MEAN), tuple(images.STANDARD_DEVIATION))
  for width, height in ((1, 1), (1, 9), (9, 1), (size, size), (size + 1, size), (size, size - 1)):
    image = pattern(width, height, mode)
    there = theirs(image).numpy().transpose(1, 2, 0)
    np.testing.assert_allclose(images.preprocess(image, size), there, atol=1e-5)


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


@pytest.mark.parametrize('form', ['GIF', 'PNG', 'WEBP'])
def test_of_an_animation_the_first_frame_counts(form):
  first, second = (picture(9, 5, seed=seed).quantize(16).convert('RGB') for seed in (0, 1))
  options = {'lossless': True} if form == 'WEBP' else {}
  encoded = encode(first, form, save_all=True, append_images=[second], **options)
  assert Image.open(io.BytesIO(encoded)).n_frames == 2
  np.testing.assert_array_equal(images.decode(encoded), first)


@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16'])
def test_every_mode_of_a_png_becomes_rgb(mode):
  """Colors that all of them can hold: black, white; of 16 bits the upper eight."""
  pixels = np.random.default_rng(0).integers(0, 2, (6, 7), np.uint8) * 255
  image = Image.fromarray(pixels)
  if mode == 'I;16':
    image = Image.fromarray(pixels.astype(np.uint16) * 257)
  encoded = encode(image if mode == 'I;16' else image.convert('RGB').convert(mode), 'PNG')
  assert Image.open(io.BytesIO(encoded)).mode == mode
  expected = np.repeat(pixels[..., None], 3, axis=2)
  np.testing.assert_array_equal(images.decode(encoded), expected)


def test_sixteen_bits_are_scaled_and_not_clipped():
  levels = np.arange(0, 65536, 257, np.uint16).reshape(16, 16)
  pixels = np.asarray(images.decode(encode(Image.fromarray(levels), 'PNG')))
  np.testing.assert_array_equal(pixels, np.arange(256).reshape(16, 16, 1).repeat(3, 2))


@pytest.mark.parametrize('mode', ['L', 'RGB', 'CMYK'])
def test_every_mode_of_a_jpeg_becomes_rgb(mode):
  image = smooth(64, 48).convert(mode)
  pixels = np.asarray(images.decode(encode(image, 'JPEG', quality=95)), int)
  assert np.abs(pixels - np.asarray(image.convert('RGB'), int)).mean() < 2


@pytest.mark.parametrize('form', ['JPEG', 'PNG', 'WEBP'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_decode_brings_a_picture_upright(form, orientation):
  """What is stored the other way round, as a camera held otherwise does, shows the same."""
  image = smooth(64, 32)
  there = {6: 8, 8: 6}.get(orientation, orientation)
  stored = image.transpose(images._UPRIGHT[there]) if there > 1 else image
  encoded = encode(stored, form, exif=turned(orientation), quality=95)
  decoded = images.decode(encoded)
  assert decoded.size == image.size
  assert np.abs(np.asarray(decoded, int) - np.asarray(image, int)).mean() < 3
  assert ImageOps.exif_transpose(decoded).size == image.size
  np.testing.assert_array_equal(decoded, ImageOps.exif_transpose(Image.open(io.BytesIO(encoded))))


@pytest.mark.filterwarnings('ignore::UserWarning')
@settings(deadline=None, max_examples=50)
@given(form=st.sampled_from(['JPEG', 'PNG', 'WEBP']), data=st.data())
def test_damaged_exif_costs_no_picture(form, data):
  exif = bytearray(turned(6).tobytes())
  for _ in range(3):
    exif[data.draw(st.integers(6, len(exif) - 1))] = data.draw(st.integers(0, 255))
  decoded = images.decode(encode(picture(20, 10), form, exif=bytes(exif)))
  assert sorted(decoded.size) == [10, 20]


@pytest.mark.parametrize('form', ['JPEG', 'PNG'])
def test_a_large_jpeg_is_decoded_no_larger_than_needed(form):
  """At the least fraction that leaves twice the size asked for; other formats have no fractions."""
  encoded = encode(smooth(320, 240), form)
  for size, fraction in ((10, 8), (15, 8), (16, 4), (30, 4), (31, 2), (60, 2), (61, 1), (300, 1)):
    image = images.decode(encoded, size)
    assert image.size == ((320 // fraction, 240 // fraction) if form == 'JPEG' else (320, 240))
    there, here = (images.resize(image, size) for image in (images.decode(encoded), image))
    assert np.abs(there.astype(float) - here).mean() < 1


@pytest.mark.parametrize('form', FORMATS)
def test_a_truncated_picture_is_refused(form):
  encoded, rng = encode(picture(64, 64), form), np.random.default_rng(0)
  for length in (0, 1, 20, len(encoded) // 2, len(encoded) - 100):
    for read in (images.decode, lambda cut: images.random_resized_crop(cut, 8, rng)):
      with pytest.raises(ValueError, match=f'{length} bytes does not decode'):
        read(encoded[:length])


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


@pytest.mark.parametrize('form', ['PNG', 'JPEG'])
@given(side=st.integers(1, 80), share=st.floats(0.05, 1), seed=seeds)
@settings(deadline=None, max_examples=30)
def test_a_crop_of_the_bytes_is_the_crop_of_the_picture(form, side, share, seed):
  encoded = encode(smooth(300, 200), form)
  there, here = (
    images.random_resized_crop(
      source, side, np.random.default_rng(seed), area=(share, 1), aspect=(0.2, 2)
    )
    for source in (images.decode(encoded), encoded)
  )
  if form == 'PNG':
    np.testing.assert_array_equal(there, here)
  assert np.abs(there.astype(float) - here).mean() < 2


@pytest.mark.parametrize('orientation', range(2, 9))
def test_a_crop_of_a_turned_picture_is_a_crop_of_the_upright_one(orientation):
  encoded = encode(smooth(320, 160), 'JPEG', exif=turned(orientation))
  for seed in range(4):
    there, here = (
      images.random_resized_crop(
        source, 8, np.random.default_rng(seed), area=(0.3, 1), aspect=(0.4, 0.5)
      )
      for source in (images.decode(encoded), encoded)
    )
    assert np.abs(there.astype(float) - here).mean() < 2


@pytest.mark.parametrize('area', [(0, 1), (0.5, 1.5), (0.9, 0.5)])
def test_an_impossible_crop_is_named(area):
  with pytest.raises(ValueError, match='area = '):
    images.random_resized_crop(picture(8, 8), 8, np.random.default_rng(0), area=area)
