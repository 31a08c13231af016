"""Laws of images that are decoded where they are indexed."""

import io

import numpy as np
import pytest
from PIL import Image

from contrastive_jax.data import decoded, images
from contrastive_jax.data.decoded import DecodedImages

N, SIZE = 9, 8


def encoded(number):
  noise = np.random.default_rng(number).integers(0, 255, (12, 16, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(noise).save(buffer, 'PNG')
  return buffer.getvalue()


SOURCE = [{'id': number, 'image': encoded(number)} for number in range(N)]
PIXELS = np.stack([images.resize(images.decode(e['image']), SIZE) for e in SOURCE])


@pytest.fixture(params=[1, 4], autouse=True)
def cores(request, monkeypatch):
  monkeypatch.setattr(decoded, 'available_cores', lambda: request.param)


@pytest.fixture
def calls(monkeypatch):
  decode, seen = images.decode, []
  monkeypatch.setattr(images, 'decode', lambda data: seen.append(data) or decode(data))
  return seen


@pytest.mark.parametrize('limit', [0, 2**28])
@pytest.mark.parametrize(
  'rows', [3, -1, slice(None), slice(2, 20, 3), slice(5, 5), [4, 4, 0], np.array([[1, 2], [3, 8]])]
)
def test_indexing_equals_an_array(monkeypatch, limit, rows):
  monkeypatch.setattr(decoded, 'CACHED_BYTES', limit)
  lazy = DecodedImages(SOURCE, SIZE)
  for _ in range(2):
    np.testing.assert_array_equal(lazy[rows], PIXELS[rows], strict=True)
  assert (lazy.shape, lazy.dtype, lazy.ndim, len(lazy)) == (PIXELS.shape, PIXELS.dtype, 4, N)


def test_it_converts_and_iterates_like_an_array():
  lazy = DecodedImages(SOURCE, SIZE)
  np.testing.assert_array_equal(np.asarray(lazy), PIXELS, strict=True)
  np.testing.assert_array_equal([*lazy], PIXELS)
  with pytest.raises(IndexError):
    lazy[N]


@pytest.mark.parametrize(('limit', 'expected'), [(3 * SIZE**2 * N - 1, 9), (3 * SIZE**2 * N, 5)])
def test_only_asked_rows_are_decoded_and_small_splits_once(monkeypatch, calls, limit, expected):
  monkeypatch.setattr(decoded, 'CACHED_BYTES', limit)
  lazy = DecodedImages(SOURCE, SIZE)
  lazy[1:5], lazy[2], lazy[3:7:3]
  lazy[[4, 1]]
  assert len(calls) == expected


def test_the_error_is_that_of_the_first_bad_row():
  source = [dict(example) for example in SOURCE]
  for bad in (6, 4):
    source[bad]['image'] = source[bad]['image'][:40]
  source[5] = {'id': 5, 'error': 'gone'}
  with pytest.raises(ValueError, match='example 4 cannot be evaluated: example 4: '):
    DecodedImages(source, SIZE)[:]
  with pytest.raises(ValueError, match='example 5 cannot be evaluated: gone'):
    DecodedImages(source, SIZE)[5:]
