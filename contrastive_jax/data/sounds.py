"""Sounds: decoded to one channel, and their log-mel spectrograms as pictures.

Files are decoded by soundfile, an optional package whose wheel has libsndfile: WAV, FLAC, Ogg
Vorbis, Opus and MP3.
"""

import functools
import io

import numpy as np
from PIL import Image

RATE = 16_000  # samples per second of all sounds here
ENDINGS = ('flac', 'mp3', 'oga', 'ogg', 'opus', 'wav')  # of files that readers know
_WINDOW = 1024  # samples of a frame, 64 ms
_HANN = np.hanning(_WINDOW).astype(np.float32)
_RANGE = 80.0  # decibels between the loudest place of a spectrogram and 0


def read(path: str, seconds: float) -> np.ndarray:
  """Decodes the start of a file, as the mean of its channels, with a peak of 1, or silence.

  Args:
    path: of a local file.
    seconds: at most so much is read.

  Returns:
    float32 [T], T samples at `RATE`.

  Raises:
    ValueError: if the file does not decode, or soundfile is not installed.
  """
  soundfile = _soundfile()
  try:
    with soundfile.SoundFile(path) as file:
      rate = file.samplerate
      channels = file.read(round(seconds * rate), dtype='float32', always_2d=True)
  except (OSError, RuntimeError) as error:  # soundfile's own are RuntimeErrors
    raise ValueError(f'{path} does not decode: {error}') from error
  samples = _resample(channels.mean(1), rate)
  peak = np.abs(samples).max(initial=0.0)
  if not np.isfinite(peak):
    raise ValueError(f'{path} has samples that are not finite')
  return samples / peak if peak else samples


def _soundfile():
  try:
    import soundfile
  except (ImportError, OSError) as error:  # OSError without libsndfile
    raise ValueError(
      f"sounds need soundfile ({error}); install it: pip install 'contrastive-jax[sound]'"
    ) from error
  return soundfile


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
  """Resamples [T] from a rate to `RATE`, by cutting or padding the spectrum."""
  count = round(len(samples) * RATE / rate)
  if rate == RATE or not count:
    return samples
  return np.fft.irfft(np.fft.rfft(samples), count).astype(np.float32) * (count / len(samples))


def fit(samples: np.ndarray, seconds: float) -> np.ndarray:
  """Cuts samples [T] at a number of seconds, or pads them with silence."""
  count = round(seconds * RATE)
  return np.pad(samples[:count], (0, max(0, count - len(samples))))


def log_mel(samples: np.ndarray, frames: int, bands: int) -> np.ndarray:
  """Computes the power per frame and mel band, in decibels below the loudest.

  Args:
    samples: [T] at `RATE`. A gain changes nothing.
    frames: number of frames, Hann windows of 64 ms that divide the sound evenly.
    bands: number of bands, see `mel_filters`.

  Returns:
    uint8 [frames, bands]: 255 at the loudest place, 0 at 80 decibels below it, and in silence.
  """
  centers = np.round((np.arange(frames) + 0.5) * len(samples) / frames).astype(int)
  padded = np.pad(samples, _WINDOW // 2)
  windows = padded[centers[:, None] + np.arange(_WINDOW)] * _HANN
  # By einsum, since the threads of a BLAS would compete with those of the pipeline.
  power = np.einsum('fk,mk->fm', np.square(np.abs(np.fft.rfft(windows))), mel_filters(bands))
  if not (loudest := power.max()):
    return np.zeros((frames, bands), np.uint8)
  floor = 10 ** (-_RANGE / 10)
  decibels = 10 * np.log10(np.maximum(power / loudest, floor))
  return np.round(255 * (1 + decibels / _RANGE)).astype(np.uint8)


@functools.lru_cache
def mel_filters(bands: int) -> np.ndarray:
  """Weights [bands, 513] of the frequencies of a frame, triangles on HTK's mel scale.

  Neighbors overlap by half: between the first and the last center the weights of a frequency sum to
  1.

  Args:
    bands: at most 128, so that each holds a frequency.
  """
  mel = 2595 * np.log10(1 + np.fft.rfftfreq(_WINDOW, 1 / RATE) / 700)
  step = mel[-1] / (bands + 1)
  centers = step * np.arange(1, bands + 1)
  return np.maximum(0, 1 - np.abs(mel - centers[:, None]) / step).astype(np.float32)


def picture(spectrogram: np.ndarray) -> bytes:
  """Encodes a spectrogram [frames, bands] as a gray PNG: time to the right, low bands below."""
  file = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(spectrogram.T[::-1])).save(file, 'PNG')
  return file.getvalue()
