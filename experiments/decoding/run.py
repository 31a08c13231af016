"""Compares image decoders by speed and by robustness.

pip install opencv-python-headless pyspng simplejpeg imagecodecs
python -m experiments.decoding.run
"""

import concurrent.futures
import functools
import importlib
import io
import json
import struct
import time
import zlib

import numpy as np
from absl import app
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data import images
from experiments import records
from experiments.decoding import report

SIZE, THREADS, REPEATS, SECONDS = 224, 2, 4, 0.3


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
  """Draws photo-like noise, with a 1/f amplitude spectrum, and edges."""
  rng = np.random.default_rng(seed)
  frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
  frequency[0, 0] = np.inf
  spectrum = np.fft.rfft2(rng.normal(size=(height, width, 3)), axes=(0, 1))
  pixels = np.fft.irfft2(spectrum / frequency[..., None], (height, width), axes=(0, 1))
  pixels = pixels @ [[1, 0.8, 0.7], [0.2, 0.4, 0.3], [0.1, 0.1, 0.3]]
  pixels = 128 + 50 * pixels / pixels.std()
  pixels[height // 3 : height // 2, width // 4 : width // 2] += 60
  return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, form: str, **options) -> bytes:
  """Encodes an image."""
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


# Decoders: bytes -> uint8 [H, W, 3], or a PIL image. No side of the result falls below
# `least`.


def by_pil(encoded: bytes, least: int | None = None) -> Image.Image:
  """Decodes by PIL, JPEG at a reduced scale."""
  image = Image.open(io.BytesIO(encoded))
  if least:
    image.draft(None, (least, least))
  image.load()
  return image if image.mode == 'RGB' else image.convert('RGB')


def by_cv2(encoded: bytes, least: int | None = None) -> np.ndarray:
  """Decodes by OpenCV, which takes a scale instead of a size: the header is read first."""
  import cv2

  flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
  if least:
    width, height = Image.open(io.BytesIO(encoded)).size
    factor = next((f for f in (8, 4, 2) if min(width, height) // least >= f), 1)
    flags |= {1: 0, 2: 17, 4: 33, 8: 65}[factor] & ~cv2.IMREAD_COLOR
  image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
  if image is None:
    raise ValueError('imdecode gives nothing')
  return image


def by_simplejpeg(encoded: bytes, least: int | None = None) -> np.ndarray:
  """Decodes by simplejpeg, with its own libjpeg-turbo."""
  import simplejpeg

  return simplejpeg.decode_jpeg(encoded, min_height=least or 0, min_width=least or 0)


def by_pyspng(encoded: bytes) -> np.ndarray:
  """Decodes by pyspng, with libspng."""
  import pyspng

  return pyspng.load(encoded, format='RGB')


def by_imagecodecs(encoded: bytes) -> np.ndarray:
  """Decodes by imagecodecs, with the format from the first bytes."""
  import imagecodecs

  if encoded[:2] == b'\xff\xd8':
    return imagecodecs.jpeg8_decode(encoded, outcolorspace='RGB')
  if encoded[:4] == b'RIFF':
    return imagecodecs.webp_decode(encoded, hasalpha=False)
  return imagecodecs.png_decode(encoded)


DECODERS = {
  'JPEG': {
    'PIL': by_pil,
    'cv2': by_cv2,
    'simplejpeg': by_simplejpeg,
    'imagecodecs': by_imagecodecs,
    'PIL, shrunk': functools.partial(by_pil, least=2 * SIZE),
    'cv2, shrunk': functools.partial(by_cv2, least=2 * SIZE),
    'simplejpeg, shrunk': functools.partial(by_simplejpeg, least=2 * SIZE),
    'PIL, shrunk further': functools.partial(by_pil, least=SIZE),
    'simplejpeg, shrunk further': functools.partial(by_simplejpeg, least=SIZE),
  },
  'PNG': {'PIL': by_pil, 'cv2': by_cv2, 'pyspng': by_pyspng, 'imagecodecs': by_imagecodecs},
  'WEBP': {'PIL': by_pil, 'cv2': by_cv2, 'imagecodecs': by_imagecodecs},
}


def to_input(decode, encoded: bytes) -> np.ndarray:
  """Decodes, and resizes by PIL as in the pipeline: uint8 [SIZE, SIZE, 3]."""
  image = decode(encoded)
  return images.resize(Image.fromarray(image) if isinstance(image, np.ndarray) else image, SIZE)


def rates(functions: dict, threads: int, clock) -> dict[str, float]:
  """Returns calls per second of the clock, the best of several rounds in turn."""
  best = dict.fromkeys(functions, 0.0)
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    for _ in range(REPEATS):
      for name, function in functions.items():
        start, calls = clock(), 0
        while clock() - start < SECONDS:
          list(pool.map(lambda _, function=function: function(), range(4 * threads)))
          calls += 4 * threads
        best[name] = max(best[name], calls / (clock() - start))
  return best


def speed() -> dict[str, dict]:
  """Returns images per second, and the mean distance from PIL, per image and decoder."""
  small, medium, large = (photo(*size) for size in ((320, 256), (1280, 960), (2048, 1536)))
  pictures = {
    'JPEG, 2048 x 1536': encode(large, 'JPEG', quality=90),
    'JPEG, 1280 x 960': encode(medium, 'JPEG', quality=90),
    'JPEG, 320 x 256': encode(small, 'JPEG', quality=90),
    'PNG, 1280 x 960': encode(medium, 'PNG'),
    'PNG, 320 x 256': encode(small, 'PNG'),
    'WEBP, 1280 x 960': encode(medium, 'WEBP'),
    'WEBP, emoji, 64 x 64': data.open_source('emoji', 'train')[0]['image'],
  }
  table = {}
  for name, encoded in pictures.items():
    decoders = DECODERS[name.split(',')[0]]
    inputs = {k: functools.partial(to_input, decode, encoded) for k, decode in decoders.items()}
    there = inputs['PIL']().astype(float)
    row = {'kilobytes': len(encoded) / 1000}
    # CPU time excludes other work on the machine.
    row['a core'] = rates(inputs, 1, time.process_time)
    row['two threads'] = rates(inputs, THREADS, time.perf_counter)
    row['distance'] = {k: np.abs(inputs[k]() - there).mean() for k in inputs}
    table[name] = row
    print(name, json.dumps(row, indent=2), flush=True)
  return table


def awkward() -> dict[str, bytes]:
  """Makes files that occur in data from the web."""
  image, exif = photo(96, 64), Image.Exif()
  exif[0x0112] = 6
  ramp = Image.fromarray(np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16))
  alpha = image.copy()
  alpha.putalpha(Image.linear_gradient('L').resize(image.size))
  jpeg, png = encode(image, 'JPEG'), encode(image, 'PNG')
  lie = b'IHDR' + struct.pack('>II', 60_000, 60_000) + png[24:29]
  return {
    'JPEG, CMYK': encode(image.convert('CMYK'), 'JPEG'),
    'JPEG, grey': encode(image.convert('L'), 'JPEG'),
    'JPEG, progressive': encode(image, 'JPEG', progressive=True),
    'JPEG, EXIF turned': encode(image, 'JPEG', exif=exif),
    'JPEG, cut': jpeg[: len(jpeg) // 2],
    'JPEG, no end marker': jpeg[:-2],
    'PNG, 16-bit grey': encode(ramp, 'PNG'),
    'PNG, grey': encode(image.convert('L'), 'PNG'),
    'PNG, palette': encode(image.quantize(64), 'PNG'),
    'PNG, alpha': encode(alpha, 'PNG'),
    'PNG, cut': png[: len(png) // 2],
    'PNG, bomb': png[:12] + lie + struct.pack('>I', zlib.crc32(lie)) + png[33:],
    'WEBP, alpha': encode(alpha, 'WEBP', lossless=True),
    'WEBP, animated': encode(
      image, 'WEBP', save_all=True, append_images=[image.rotate(90)], lossless=True
    ),
    'WEBP, cut': encode(image, 'WEBP')[:300],
  }


def outcome(decode, encoded: bytes) -> str:
  """Returns the mean distance from `images.decode`, or the failure."""
  try:
    there = np.asarray(images.decode(encoded)).astype(float)
  except ValueError:
    there = None
  try:
    here = np.asarray(decode(encoded))
  except Exception as error:  # each library raises its own
    return f'refused ({type(error).__name__})'
  if here.dtype != np.uint8 or here.ndim != 3 or here.shape[2] != 3:
    return f'{here.dtype} {list(here.shape)}'
  if there is None:
    return 'taken'
  if here.shape != there.shape:
    return f'another shape, {list(here.shape)}'
  return f'{np.abs(here - there).mean():.2f}'


def main(_):
  """Writes and prints both tables."""
  for library in report.LIBRARIES:
    importlib.import_module(library)  # A missing one would count as refusing every file.
  results = {'awkward': {}, 'speed': {}}
  for name, encoded in awkward().items():
    plain = {k: d for k, d in DECODERS[name.split(',')[0]].items() if 'shrunk' not in k}
    results['awkward'][name] = {k: outcome(decode, encoded) for k, decode in plain.items()}
    print(f'{name:20}', results['awkward'][name], flush=True)
  results['speed'] = speed()
  records.write(report.RESULTS, results)
  for table in report.TABLES.values():
    print(f'\n{table()}')


if __name__ == '__main__':
  app.run(main)
