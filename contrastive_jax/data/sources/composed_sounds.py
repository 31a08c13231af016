"""Pairs of named sounds, one after the other: CompA's order of sounds [1], on installed packages.

Each example is a spectrogram as a picture, with a caption such as 'cow bell, then snare'. The order
alone tells it from 'snare, then cow bell', which is in the same split. The composition is ours: the
authors join and overlay sounds of AudioSet.

References:
  [1] Ghosh et al., CompA: Addressing the Gap in Compositional Reasoning in Audio-Language Models,
    2024, https://arxiv.org/abs/2310.08753.
"""

import functools
import glob
import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrastive_jax.data import sounds
from contrastive_jax.data.sources.row_ids import RowRange
from contrastive_jax.data.sources.source import BadExampleError

# Patterns of sounds by the Debian package that installs them.
INSTALLED = {
  'sonic-pi-samples': ('/usr/share/sonic-pi/samples/*',),
  'sound-theme-freedesktop': ('/usr/share/sounds/freedesktop/stereo/*',),
  'oxygen-sounds': ('/usr/share/sounds/Oxygen-*',),
  'tuxpaint-stamps-default': tuple(
    f'/usr/share/tuxpaint/stamps/{topic}/**/*'
    for topic in ('animals', 'hobbies', 'household', 'naturalforces', 'vehicles')
  ),
}
# Differences of the numbers of the two names of an example, in a circle of all names.
_STEPS = {'heldout': (1,), 'validation': (2,), 'train': range(3, 11)}
_SIDE = 64  # frames, and bands
_SECONDS = 1.5  # of each of the two sounds, at most


def open_folder(folder: str, split: str) -> 'ComposedSounds':
  """Opens a split of the sounds in a folder and those below it; '' for those of `INSTALLED`.

  Raises:
    ValueError: if there are too few sounds, or there is no such split.
  """
  if folder:
    found = _list(f'{glob.escape(folder)}/**/*')
    where = f'{folder} has'
  else:
    found = [path for patterns in INSTALLED.values() for each in patterns for path in _list(each)]
    where = f'apt-get install {" ".join(INSTALLED)}: the installed packages have'
  names: dict[str, list[str]] = {}
  for path in found:
    names.setdefault(name_of(path), []).append(path)
  if len(names) < 7:
    raise ValueError(f'{where} sounds of {len(names)} names; 7 or more are needed for three splits')
  if split not in _STEPS:
    raise ValueError(f'there is no split {split!r}; use one of {[*_STEPS]}')
  return ComposedSounds(names, split)


def _list(pattern: str) -> list[str]:
  """Returns the sounds of a pattern, but for Tux Paint's spoken descriptions, in order."""
  return [
    path
    for path in sorted(glob.glob(pattern, recursive=True))
    if path.rpartition('.')[2] in sounds.ENDINGS and not re.search(r'_desc[_.][^/]*$', path)
  ]


def name_of(path: str) -> str:
  """Returns the name of a sound, without the number of a variant and the name of a theme.

  >>> name_of('/usr/share/sounds/Oxygen-Sys-Log-In.ogg'), name_of('perc_bell2.flac')
  ('sys log in', 'perc bell')
  """
  stem = os.path.basename(path).rpartition('.')[0].lower().removeprefix('oxygen-')
  words = re.sub(r'[\W_]+', ' ', stem).strip()
  return re.sub(r'(?<=\w) ?\d+$', '', words)


class ComposedSounds(Sequence):
  """Examples of two sounds in order, by number.

  The names are in a circle, shuffled. An example joins a sound and the one `step` after or before
  it. A split consists of all examples of its steps: it has each sound equally often as the first
  and as the second, and each order of two sounds. No two sounds meet in two splits.

  Attributes:
    bytes: at most the size of the pictures.
    row_ranges: the examples.
  """

  def __init__(self, names: Mapping[str, Sequence[str]], split: str):
    """Composes a split.

    Args:
      names: paths by the name of the sound; of several recordings, the examples take turns.
      split: 'train', 'validation' or 'heldout'.
    """
    digest = lambda name: hashlib.blake2b(name.encode()).digest()  # noqa: E731
    self._names, self._paths = sorted(names, key=digest), dict(names)
    most = (len(names) - 1) // 2  # a larger step is a smaller one backward
    steps = [step for step in _STEPS[split] if step <= most]
    self._steps = [signed for step in steps for signed in (step, -step)]
    self.bytes = len(self) * _SIDE**2
    self.row_ranges = [RowRange(f'composed sounds: {split}', 0, len(self))]

  def __len__(self) -> int:
    return len(self._names) * len(self._steps)

  def __getitem__(self, number: int) -> dict[str, Any]:
    """Returns the fields of an example with the encoded picture of its spectrogram.

    Raises:
      BadExampleError: if a sound cannot be read.
    """
    try:
      parts = [_read(path) for path in self._files(number)]
    except ValueError as error:
      raise BadExampleError(str(error)) from error
    joined = sounds.fit(np.concatenate(parts), 2 * _SECONDS)
    return self.fields(number) | {'image': sounds.picture(sounds.log_mel(joined, _SIDE, _SIDE))}

  def fields(self, number: int) -> dict[str, Any]:
    """Returns the `caption`, its `parts`, the `wrong` captions, and the `pair` without its order.

    The wrong captions are the swapped order, and two with another sound for one of the two.
    """
    first, second = self._pair(number)
    rng = np.random.default_rng(number)
    drawn = rng.choice(self._names, 4, replace=False).tolist()
    third, fourth, *_ = (name for name in drawn if name not in (first, second))
    wrong = [(second, first), (first, third), (fourth, second)]
    return {
      'caption': _caption(first, second),
      'parts': [first, second],
      'wrong': [_caption(*pair) for pair in wrong],
      'pair': ' and '.join(sorted((first, second))),
    }

  def where(self, number: int) -> str:
    """Returns the paths of the sounds."""
    return ', then '.join(self._files(number))

  def _pair(self, number: int) -> tuple[str, str]:
    row, place = divmod(number, len(self._names))
    return self._names[place], self._names[(place + self._steps[row]) % len(self._names)]

  def _files(self, number: int) -> list[str]:
    recordings = [self._paths[name] for name in self._pair(number)]
    return [paths[number % len(paths)] for paths in recordings]


def _caption(first: str, second: str) -> str:
  return f'{first}, then {second}'


@functools.lru_cache(maxsize=1024)
def _read(path: str) -> np.ndarray:
  return sounds.read(path, _SECONDS)
