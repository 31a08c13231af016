"""From pictures of any kind to the pixels that a model was trained on."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from contrastive_jax.data import images as clip
from contrastive_jax.interop import Model, NoForm, tensors

Picture = Image.Image | np.ndarray | str | pathlib.Path

# Of Hugging Face's processors, whose file holds the whole transform.
PROCESSOR = 'preprocessor_config.json'
_SIGLIP = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3}


class Transform(NamedTuple):
  """How a picture becomes pixels, and pixels what a model takes; by default as CLIP does.

  Attributes:
    squash: bring both sides to S, whatever the picture's aspect, as SigLIP does; else the shorter
      one, and cut out the centre.
    mean: [3] of the channels, from 0 to 1.
    deviation: [3] of the channels.
  """

  squash: bool = False
  mean: Sequence[float] = tuple(clip.MEAN)
  deviation: Sequence[float] = tuple(clip.STANDARD_DEVIATION)

  def pixels(self, picture: Picture, size: int) -> np.ndarray:
    """A picture, see `open_picture`, as uint8 [S, S, 3]."""
    image = open_picture(picture)
    if not self.squash:
      return clip.resize(image, size)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC).convert('RGB'))

  def normalize(self, pixels):
    """float32 [..., 3] of pixels [..., 3], values from 0 to 255."""
    return clip.normalize(pixels, *np.array([self.mean, self.deviation], np.float32))


def open_picture(picture: Picture) -> Image.Image:
  """Opens a picture as PIL has it: upright, with 8 bits per channel, see `images.upright`.

  Args:
    picture: PIL's, the path of a file, or an array [H, W, 3], uint8, or floats from 0 to 1. A file
      and what `PIL.Image.open` makes of it are the same picture.

  Raises:
    ValueError: if it is none of these, or the file cannot be read.
  """
  if isinstance(picture, Image.Image):
    return clip.upright(picture)
  if isinstance(picture, str | pathlib.Path):
    try:
      return clip.upright(pathlib.Path(picture).read_bytes())
    except (OSError, ValueError) as error:
      raise ValueError(f'{picture}: {error}') from error
  array = np.asarray(picture)
  if array.ndim != 3 or array.shape[2] != 3 or not array.size:
    raise ValueError(
      f'a picture is a {type(picture).__name__} of shape {array.shape}; give a PIL image, the path '
      'of a file, or an array [H, W, 3]'
    )
  if array.dtype == np.uint8:
    return Image.fromarray(array)
  if not np.issubdtype(array.dtype, np.floating) or not np.all((array >= 0) & (array <= 1)):
    raise ValueError(
      f'a picture is {array.dtype} with values from {array.min():.4g} to {array.max():.4g}; give '
      'uint8, or floats from 0 to 1, not yet normalised'
    )
  return Image.fromarray(np.round(array * 255).astype(np.uint8))


def read_transform(folder: pathlib.Path, model: Model) -> Transform:
  """What the files beside a model's weights say of its pictures; where they say nothing, CLIP's.

  Raises:
    NoForm: a ValueError; names the entry that has no form here.
  """
  if 'model_cfg' in model.source:
    return _of_open_clip(model.source.get('preprocess_cfg') or {})
  if kind := model.source.get('model_type'):
    known = tensors.read_json(folder / PROCESSOR) if (folder / PROCESSOR).is_file() else {}
    size = model.fields['image']['size']
    if kind == 'siglip':
      known = _SIGLIP | {'size': {'height': size, 'width': size}} | known
    return _of_hugging_face(known, size)
  return Transform()


def _of_open_clip(given: Mapping[str, Any]) -> Transform:
  how = {'shortest': False, 'squash': True}
  _check('preprocess_cfg', given, 'resize_mode', 'shortest', how)
  _check('preprocess_cfg', given, 'interpolation', 'bicubic', ('bicubic',))
  return Transform(
    how[given.get('resize_mode', 'shortest')],
    given.get('mean', Transform().mean),
    given.get('std', Transform().deviation),
  )


def _of_hugging_face(given: Mapping[str, Any], size: int) -> Transform:
  _check(PROCESSOR, given, 'resample', Image.Resampling.BICUBIC, (Image.Resampling.BICUBIC,))
  # What is resized to more than the model takes, and cropped, is another picture.
  shorter, both = {'shortest_edge': size}, {'height': size, 'width': size}
  _check(PROCESSOR, given, 'size', size, (size, shorter, both))
  return Transform(
    given.get('size') == both,
    given.get('image_mean', Transform().mean),
    given.get('image_std', Transform().deviation),
  )


def _check(where, given, name, default, allowed) -> None:
  if (value := given.get(name, default)) not in allowed:
    raise NoForm(f'{where}.{name} = {value!r} has no form here; use one of {[*allowed]}')
