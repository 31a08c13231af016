"""Initial weights of a run, from a folder of any supported format (`config.init_from`)."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from contrastive_jax.interop import hugging_face, native, open_clip, tensors
from contrastive_jax.interop.fields import TRAINING
from contrastive_jax.interop.model import (
  Model,
  shapes_of,
  stack_layers,
  unstack_layers,
  with_defaults,
)
from contrastive_jax.interop.table import UnsupportedError
from contrastive_jax.interop.transforms import Transform, read_transform

# Fields that may differ, and fields whose differences show in the shapes of parameters.
_IGNORED = (
  *('scale', 'image/interpolation'),
  *(f'{tower}/{name}' for tower in ('image', 'text') for name in TRAINING),
)
_SEEN_IN_SHAPES = ('image/mlp_ratio', 'text/mlp_ratio')


def read(folder: str | pathlib.Path, *, image_size: int | None = None) -> Model:
  """Reads a folder of open_clip's, Hugging Face's or our native format.

  Args:
    folder: holds a config and weights.
    image_size: side of the images in pixels; default the config's.

  Raises:
    ValueError: if the format is unknown, or raised by its reader.
  """
  folder = pathlib.Path(folder)
  if (folder / open_clip.CONFIG).is_file():
    return open_clip.read_open_clip(folder, image_size=image_size)
  if (folder / 'checkpoints').is_dir():
    raise ValueError(
      f'{folder} is the workdir of a run; export it with --mode=export --workdir={folder}, and '
      f'give {folder / "export"}'
    )
  if not (folder / native.CONFIG).is_file():
    raise ValueError(f'{folder} holds no {open_clip.CONFIG} and no {native.CONFIG}')
  is_ours = tensors.read_json(folder / native.CONFIG).get('format') == native.FORMAT
  form = native.read_model if is_ours else hugging_face.read_hugging_face
  return form(folder, image_size=image_size)


def initial_parameters(
  folder: str | pathlib.Path,
  fields: Mapping[str, Any],
  *,
  towers: Sequence[str] = (),
  field: str = 'init_from',
  mean: Sequence[float] = (),
  std: Sequence[float] = (),
) -> Any:
  """Reads the parameters in a folder for the model of a config.

  Position embeddings are interpolated if the image size differs.

  Args:
    folder: a folder for `read`, or ''.
    fields: the config's model, the arguments of `models.definition.define`.
    towers: parts of the model to read, 'image' or 'text', of a folder that may hold another model
      around them; () for all of it.
    field: the field of the config that gives the folder, for errors.
    mean: of the images in training, `config.data.mean`; a warning says where the weights had
      another normalization.
    std: likewise, `config.data.std`.

  Returns:
    A nested dict of NumPy arrays, like `define(**fields).init`, of the towers; None for ''.

  Raises:
    ValueError: if the folder does not hold this model; names the fields or the parameters.
  """
  if not folder:
    return None
  model = read(folder, image_size=fields['image']['size'] if 'image' in fields else None)
  theirs, ours = with_defaults(model.fields), with_defaults(fields)
  for each in (theirs, ours):
    for name in ('bias', 'image/layer_scale', 'text/layer_scale'):
      each[name] = each.get(name) is not None
    if each.get('text/causal'):
      each['text/mask_padding'] = False  # a causal token never attends to it
  differing = [
    f'config.model.{name.replace("/", ".")} is {ours.get(name)!r}, there {theirs.get(name)!r}'
    for name in sorted(ours.keys() | theirs.keys())
    if name not in (*_IGNORED, *_SEEN_IN_SHAPES) and ours.get(name) != theirs.get(name)
    if _is_part(name, towers)
  ]
  if not differing:
    flat, shapes = unstack_layers(model.parameters), shapes_of(fields)
    differing = [
      f'{name} has the shape {list(shape)}, there {list(flat[name].shape)}'
      for name, shape in shapes.items()
      if _is_part(name, towers) and flat[name].shape != shape
    ]
  if differing:
    raise ValueError(
      f'config.{field} = {str(folder)!r} holds another model; make config.model the same: '
      f'{"; ".join(differing)}'
    )
  _warn_of_normalization(pathlib.Path(folder), model, mean, std)
  return stack_layers(flat, fields, towers)


def _is_part(path: str, towers: Sequence[str]) -> bool:
  """Whether a field or a parameter belongs to one of some towers, () for all of the model."""
  return not towers or path.partition('/')[0] in towers


def _warn_of_normalization(folder: pathlib.Path, model: Model, mean, std) -> None:
  try:
    transform = read_transform(folder, model)
  except UnsupportedError:  # for other reasons, such as another resizing
    return
  theirs = *transform.mean, *transform.std
  ours = *(mean or Transform().mean), *(std or Transform().std)
  if 'image' in model.fields and not np.allclose(theirs, ours, atol=1e-4):
    logging.warning(
      '%s has images normalized by the mean %s and the standard deviation %s; to do the same, set '
      'config.data.mean and config.data.std',
      folder,
      tuple(transform.mean),
      tuple(transform.std),
    )
