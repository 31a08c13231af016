"""Image transforms of pretrained models."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from PIL import Image

from contrastive_jax.data import Patches, patchify
from contrastive_jax.data import images as clip
from contrastive_jax.interop import native, tensors
from contrastive_jax.interop.model import Model
from contrastive_jax.interop.table import UnsupportedError

ImageLike = Image.Image | np.ndarray | str | pathlib.Path

# Files of Hugging Face's processors; transformers 5 saves only the second, which holds the first.
PROCESSOR, PROCESSORS = 'preprocessor_config.json', 'processor_config.json'
_RESAMPLINGS = {'bicubic': Image.Resampling.BICUBIC, 'bilinear': Image.Resampling.BILINEAR}
_SIGLIP = {'image_mean': [0.5] * 3, 'image_std': [0.5] * 3}
# Entries without effect on the pixels, as all images become RGB.
_NEUTRAL = {
  *('image_processor_type', 'feature_extractor_type', 'processor_class', '_valid_processor_keys'),
  *('do_convert_rgb', 'data_format', 'input_data_format', 'return_tensors', 'default_to_square'),
  *('device', 'disable_grouping', 'auto_map'),
}


class Transform(NamedTuple):
  """Resizing and normalization; by default CLIP's.

  Attributes:
    squash: resize both sides to S, ignoring the aspect, as SigLIP does; otherwise resize the
      shorter side and crop the center.
    mean: [3], per channel, on the scale from 0 to 1.
    std: [3], per channel, on the scale from 0 to 1.
    interpolation: 'bicubic' or 'bilinear'.
  """

  squash: bool = False
  mean: Sequence[float] = tuple(clip.MEAN)
  std: Sequence[float] = tuple(clip.STANDARD_DEVIATION)
  interpolation: str = 'bicubic'

  def pixels(self, image: ImageLike, size: int) -> np.ndarray:
    """Resizes an image, see `open_image`; returns uint8 [S, S, 3]."""
    opened = open_image(image)
    resampling = _RESAMPLINGS[self.interpolation]
    if not self.squash:
      return clip.resize(opened, size, resampling)
    return np.asarray(opened.resize((size, size), resampling).convert('RGB'))

  def patches(self, image: ImageLike, length: int, patch: int) -> Patches:
    """Resizes an image at its own aspect, whatever `squash`, and cuts it, see `data.patchify`."""
    resampling = _RESAMPLINGS[self.interpolation]
    return patchify(open_image(image), length, patch, resampling=resampling)

  def normalize(self, pixels):
    """Normalizes pixels [..., 3] from 0 to 255, or `Patches`; returns float32."""
    return clip.normalize(pixels, *np.array([self.mean, self.std], np.float32))


def open_image(image: ImageLike) -> Image.Image:
  """Opens an image with PIL: upright, with 8 bits per channel, see `images.upright`.

  Args:
    image: a PIL image, the path of a file, or an array [H, W, 3], uint8 or floats from 0 to 1. A
      path and the PIL image opened from it give the same result.

  Raises:
    ValueError: if it is of another kind, or the file cannot be read.
  """
  if isinstance(image, Image.Image):
    return clip.upright(image)
  if isinstance(image, str | pathlib.Path):
    try:
      return clip.upright(pathlib.Path(image).read_bytes())
    except (OSError, ValueError) as error:
      raise ValueError(f'{image}: {error}') from error
  array = np.asarray(image)
  if array.ndim != 3 or array.shape[2] != 3 or not array.size:
    raise ValueError(
      f'an image is a {type(image).__name__} of shape {array.shape}; give a PIL image, the path '
      'of a file, or an array [H, W, 3]'
    )
  if array.dtype == np.uint8:
    return Image.fromarray(array)
  if not np.issubdtype(array.dtype, np.floating) or not np.all((array >= 0) & (array <= 1)):
    raise ValueError(
      f'an image is {array.dtype} with values from {array.min():.4g} to {array.max():.4g}; give '
      'uint8, or floats from 0 to 1, not yet normalized'
    )
  return Image.fromarray(np.round(array * 255).astype(np.uint8))


def read_transform(folder: pathlib.Path, model: Model) -> Transform:
  """Reads the transform from the files beside a model's weights.

  If Hugging Face's files have none, the default of the model's type is used, with a warning.

  Raises:
    UnsupportedError: a ValueError; names the entry that is not supported.
  """
  if 'image' not in model.fields:
    return Transform()
  size = model.fields['image']['size']
  if 'model_cfg' in model.source:
    given = _plain(model.source.get('preprocess_cfg') or {})
    if model.sequence_length:  # of images as patches, whose size is another
      given = {name: value for name, value in given.items() if name != 'size'}
    return _of_open_clip(given, size)
  if kind := model.source.get('model_type'):
    where, known = _read_processor(folder)
    if not where:
      used = "SigLIP's" if kind == 'siglip' else "CLIP's"
      logging.warning('%s has no %s: %s transform is used', folder, PROCESSOR, used)
    if kind == 'siglip':
      known = _SIGLIP | {'size': {'height': size, 'width': size}} | known
    return _of_hugging_face(where, known, size)
  if (config := folder / native.CONFIG).is_file():
    return _of_open_clip(tensors.read_json(config).get('preprocess_cfg', {}), size)
  return Transform()


def _read_processor(folder: pathlib.Path) -> tuple[str, Mapping[str, Any]]:
  """Returns the name and entries of the file that configures the transform; '' and {} if none."""
  for name in (PROCESSORS, PROCESSOR):
    if (folder / name).is_file():
      found = tensors.read_json(folder / name)
      if name == PROCESSOR:
        return name, _plain(found)
      if isinstance(found.get('image_processor'), dict):  # older ones lack it
        return f'{name}.image_processor', _plain(found['image_processor'])
  return '', {}


def _of_open_clip(given: Mapping[str, Any], size: int) -> Transform:
  how = {'shortest': False, 'squash': True}
  allowed = {
    'resize_mode': (*how,),
    'interpolation': (*_RESAMPLINGS,),
    'size': (size, [size, size]),
    'mode': ('RGB',),
  }
  _check('preprocess_cfg', given, allowed, {'mean', 'std', 'fill_color'})
  return Transform(
    how[given.get('resize_mode', 'shortest')],
    given.get('mean', Transform().mean),
    given.get('std', Transform().std),
    given.get('interpolation', 'bicubic'),
  )


def _of_hugging_face(where: str, given: Mapping[str, Any], size: int) -> Transform:
  # Resizing to more than the model takes, and cropping, is not supported.
  shorter, both = {'shortest_edge': size}, {'height': size, 'width': size}
  squash = given.get('size') == both
  allowed = {
    'resample': (*_RESAMPLINGS.values(),),
    'size': (size, shorter, both),
    'crop_size': (size, both),
    'do_resize': (True,),
    'do_center_crop': (True, False) if squash else (True,),  # a crop of a square is the identity
    'do_rescale': (True,),
    'rescale_factor': (1 / 255,),
    'do_normalize': (True,),
    'do_pad': (False,),
  }
  _check(where, given, allowed, {'image_mean', 'image_std', *_NEUTRAL})
  return Transform(
    squash,
    given.get('image_mean', Transform().mean),
    given.get('image_std', Transform().std),
    Image.Resampling(given.get('resample', Image.Resampling.BICUBIC)).name.lower(),
  )


def _plain(entry):
  """Drops entries that are None, nested ones too; transformers 5 writes them for defaults."""
  if not isinstance(entry, Mapping):
    return entry
  return {name: _plain(value) for name, value in entry.items() if value is not None}


def _check(
  where: str, given: Mapping[str, Any], allowed: Mapping[str, Any], free: set[str]
) -> None:
  """Raises for an entry that is not `free` and has a value that is not `allowed`."""
  for name, value in given.items():
    if name not in free and value not in allowed.get(name, ()):
      works = f'; use one of {[*allowed[name]]}' if name in allowed else ''
      raise UnsupportedError(f'{where}.{name} = {value!r} is not supported{works}')
