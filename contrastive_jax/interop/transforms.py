"""From pictures of any kind to the pixels that a model was trained on."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from contrastive_jax.data import images as clip
from contrastive_jax.interop import Model, NoForm, tensors

Picture = Image.Image | np.ndarray | str | pathlib.Path

# Of Hugging Face's processors; transformers 5 saves the second alone, the transform a part of it.
PROCESSOR, PROCESSORS = 'preprocessor_config.json', 'processor_config.json'
_SIGLIP = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3}
# Entries that change no pixel that a model sees here, where all pictures become RGB.
_NEUTRAL = {
  *('image_processor_type', 'feature_extractor_type', 'processor_class', '_valid_processor_keys'),
  *('do_convert_rgb', 'data_format', 'input_data_format', 'return_tensors', 'default_to_square'),
  *('device', 'disable_grouping', 'auto_map'),
}


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
  """Reads what the files beside a model's weights say of its pictures.

  Where Hugging Face's say nothing, the defaults of the model's kind stand in, with a warning.

  Raises:
    NoForm: a ValueError; names the entry that has no form here.
  """
  size = model.fields['image']['size']
  if 'model_cfg' in model.source:
    return _of_open_clip(_plain(model.source.get('preprocess_cfg') or {}), size)
  if kind := model.source.get('model_type'):
    where, known = _read_processor(folder)
    if not where:
      used = "SigLIP's" if kind == 'siglip' else "CLIP's"
      logging.warning('%s has no %s: %s transform is used', folder, PROCESSOR, used)
    if kind == 'siglip':
      known = _SIGLIP | {'size': {'height': size, 'width': size}} | known
    return _of_hugging_face(where, known, size)
  return Transform()


def _read_processor(folder: pathlib.Path) -> tuple[str, Mapping[str, Any]]:
  """The name of the file that says how pictures are prepared, and its entries; else '' and none."""
  for name in (PROCESSORS, PROCESSOR):
    if (folder / name).is_file():
      found = tensors.read_json(folder / name)
      if name == PROCESSOR:
        return name, _plain(found)
      if isinstance(found.get('image_processor'), dict):  # older ones say nothing of pictures
        return f'{name}.image_processor', _plain(found['image_processor'])
  return '', {}


def _of_open_clip(given: Mapping[str, Any], size: int) -> Transform:
  how = {'shortest': False, 'squash': True}
  allowed = {
    'resize_mode': (*how,),
    'interpolation': ('bicubic',),
    'size': (size, [size, size]),
    'mode': ('RGB',),
  }
  _check('preprocess_cfg', given, allowed, {'mean', 'std', 'fill_color'})
  return Transform(
    how[given.get('resize_mode', 'shortest')],
    given.get('mean', Transform().mean),
    given.get('std', Transform().deviation),
  )


def _of_hugging_face(where: str, given: Mapping[str, Any], size: int) -> Transform:
  # What is resized to more than the model takes, and cropped, is another picture.
  shorter, both = {'shortest_edge': size}, {'height': size, 'width': size}
  squash = given.get('size') == both
  allowed = {
    'resample': (Image.Resampling.BICUBIC,),
    'size': (size, shorter, both),
    'crop_size': (size, both),
    'do_resize': (True,),
    'do_center_crop': (True, False) if squash else (True,),  # of a square nothing is cut
    'do_rescale': (True,),
    'rescale_factor': (1 / 255,),
    'do_normalize': (True,),
    'do_pad': (False,),
  }
  _check(where, given, allowed, {'image_mean', 'image_std', *_NEUTRAL})
  return Transform(
    squash,
    given.get('image_mean', Transform().mean),
    given.get('image_std', Transform().deviation),
  )


def _plain(entry):
  """Without what is None, as transformers 5 writes what it leaves open, in sizes too."""
  if not isinstance(entry, Mapping):
    return entry
  return {name: _plain(value) for name, value in entry.items() if value is not None}


def _check(
  where: str, given: Mapping[str, Any], allowed: Mapping[str, Any], free: set[str]
) -> None:
  """Refuses entries that are neither free nor allowed."""
  for name, value in given.items():
    if name not in free and value not in allowed.get(name, ()):
      works = f'; use one of {[*allowed[name]]}' if name in allowed else ''
      raise NoForm(f'{where}.{name} = {value!r} has no form here{works}')
