import io
import wave

import numpy as np
import pytest
from PIL import Image

from contrastive_jax.data import sounds

SECONDS = 0.5
TIME = np.arange(round(SECONDS * sounds.RATE)) / sounds.RATE


def tone(hertz, rate=sounds.RATE, seconds=SECONDS):
  return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def write(path, samples, rate=sounds.RATE):
  """Writes samples [T], or [T, channels], from -1 to 1."""
  samples = samples.reshape(len(samples), -1)
  with wave.open(str(path), 'wb') as file:
    file.setparams((samples.shape[1], 2, rate, 0, 'NONE', ''))
    file.writeframes((samples * 32_000).astype('<i2').tobytes())


def test_the_weights_of_a_frequency_sum_to_one():
  filters = sounds.mel_filters(64)
  first, last = filters.argmax(1)[[0, -1]]
  np.testing.assert_allclose(filters[:, first + 1 : last].sum(0), 1, rtol=1e-6)
  assert (sounds.mel_filters(128).sum(1) > 0).all()


@pytest.mark.parametrize('hertz', [200, 1000, 3000, 7000])
def test_a_tone_lights_the_band_that_holds_its_frequency(hertz):
  spectrogram = sounds.log_mel(tone(hertz), 8, 40)
  band = sounds.mel_filters(40)[:, round(hertz * 1024 / sounds.RATE)].argmax()
  assert (spectrogram[1:-1].argmax(1) == band).all()


def test_a_gain_changes_nothing_and_silence_is_dark():
  samples = tone(440) + np.random.default_rng(0).normal(size=len(TIME)).astype(np.float32)
  loud, quiet = (sounds.log_mel(gain * samples, 16, 32).astype(int) for gain in (8, 1 / 8))
  np.testing.assert_array_equal(loud, quiet)
  assert loud.max() == 255
  assert not sounds.log_mel(np.zeros(8000, np.float32), 4, 8).any()


def test_a_frame_is_of_its_time():
  samples = np.concatenate([np.zeros(8000, np.float32), tone(1000)])
  loudest = sounds.log_mel(samples, 10, 16).max(1)
  assert not loudest[:4].any() and (loudest[6:] > 200).all()


def test_a_picture_has_low_bands_below_and_time_to_the_right():
  spectrogram = np.arange(12, dtype=np.uint8).reshape(3, 4)
  pixels = np.asarray(Image.open(io.BytesIO(sounds.picture(spectrogram))))
  np.testing.assert_array_equal(pixels, spectrogram.T[::-1])


def test_fit_cuts_or_pads():
  assert len(sounds.fit(tone(440), 0.1)) == 1600
  padded = sounds.fit(tone(440), 1.0)
  assert len(padded) == sounds.RATE and not padded[8000:].any()


@pytest.mark.parametrize('rate', [8_000, 16_000, 44_100])
def test_a_file_of_any_rate_and_channels_is_the_same_sound(tmp_path, rate):
  pytest.importorskip('soundfile')
  samples = np.stack([tone(440, rate), np.zeros(round(SECONDS * rate), np.float32)], 1)
  write(tmp_path / 'tone.wav', samples, rate)
  found = sounds.read(str(tmp_path / 'tone.wav'), 10.0)
  assert len(found) == len(TIME)
  np.testing.assert_allclose(found[500:-500], tone(440)[500:-500], atol=0.02)
  assert len(sounds.read(str(tmp_path / 'tone.wav'), 0.25)) == len(TIME) // 2


def test_a_damaged_file_is_named(tmp_path):
  pytest.importorskip('soundfile')
  (tmp_path / 'bad.ogg').write_bytes(b'no sound')
  with pytest.raises(ValueError, match=r'bad\.ogg does not decode'):
    sounds.read(str(tmp_path / 'bad.ogg'), 1.0)


def test_without_soundfile_the_error_says_how_to_install_it(monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'soundfile', None)
  with pytest.raises(ValueError, match=r"pip install 'contrastive-jax\[sound\]'"):
    sounds.read('a.wav', 1.0)
