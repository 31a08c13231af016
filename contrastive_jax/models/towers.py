"""Towers by name, the values of `config.model.image.tower` and `config.model.text.tower`.

A tower is an nnx module, built from its section of the config. It has

    width                             width of the pooled vectors, and of the tokens
    __call__(images, keys=None)       (pooled [B, width], tokens [B, P, width]) of a batch; keys [B]
                                      choose what is dropped in training; an `ImageTower` also takes
                                      images as patches, see `patches`, and the patches to keep
    lengths(fields, path)             positions per example that a kernel is applied to, and keys
                                      that they attend to, for counting FLOPs; of images, the number
                                      of tokens for the path ''
    describe(fields)                  a line of the model card

and, if it reads texts,

    pad_id                            id of the padding; of the class, where the fields have none

or, if it reads images,

    pooling='none'                    for no pooled vectors, None instead of [B, width], as in CoCa
    size                              side of the images, in pixels
    on_pixels                         prefixes of kernels that are applied to pixels
    constant_flops(fields)            operations per image without kernel and gradient, if any
    resize(fields, parameters, size)  the parameters for another size of the images

Static methods take the section of the config, `fields`.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from flax import nnx

from contrastive_jax.models.convnext import ConvNext
from contrastive_jax.models.fastvit import FastVit
from contrastive_jax.models.image import ImageTower
from contrastive_jax.models.nllb import NllbTower
from contrastive_jax.models.resnet import ResNet
from contrastive_jax.models.roberta import RobertaTower
from contrastive_jax.models.text import TextTower
from contrastive_jax.models.transformer import OPTIONS, choose
from contrastive_jax.models.vitamin import Vitamin

IMAGE_TOWERS: dict[str, type[nnx.Module]] = {
  'vit': ImageTower,
  'resnet': ResNet,
  'convnext': ConvNext,
  'vitamin': Vitamin,
  'fastvit': FastVit,
}
TEXT_TOWERS: dict[str, type[nnx.Module]] = {
  'transformer': TextTower,
  'roberta': RobertaTower,
  'nllb': NllbTower,
}


def image_class(fields: Mapping[str, Any]) -> Any:
  """The class of an image tower, given its section of the config."""
  return choose('image.tower', fields.get('tower', 'vit'), IMAGE_TOWERS)


def text_class(fields: Mapping[str, Any]) -> Any:
  """The class of a text tower, given its section of the config."""
  return choose('text.tower', fields.get('tower', 'transformer'), TEXT_TOWERS)


def pad_id_of(fields: Mapping[str, Any]) -> int:
  """The id of the padding that a text tower takes, given its section of the config."""
  return fields.get('pad_id', text_class(fields).pad_id)


def image_tower(fields: Mapping[str, Any], **shared) -> Any:
  """Builds an image tower; `shared` arguments are those of both towers, such as `dtype`.

  Raises:
    ValueError: if the tower does not take a field, needs another one, or a value is invalid.
  """
  return _build('image', image_class(fields), fields, shared)


def text_tower(fields: Mapping[str, Any], **shared) -> Any:
  """Builds a text tower; likewise."""
  return _build('text', text_class(fields), fields, shared)


def _build(section: str, tower: type[nnx.Module], fields: Mapping[str, Any], shared) -> Any:
  own = {name: value for name, value in fields.items() if name != 'tower'}
  parameters = inspect.signature(tower.__init__).parameters
  taken = [name for name in parameters if name not in ('self', 'dtype', 'rngs', 'fields')]
  taken += OPTIONS if 'fields' in parameters else ()
  where = f'config.model.{section}'
  if unknown := [name for name in own if name not in taken]:
    names = ', '.join(f'{where}.{name}' for name in unknown)
    raise ValueError(f'{names}: {tower.__name__} takes none of these; its fields are {taken}')
  required = [name for name in taken if name in parameters and _is_required(parameters[name])]
  if missing := [name for name in required if name not in own and name not in shared]:
    names = ', '.join(f'{where}.{name}' for name in missing)
    raise ValueError(f'{names}: missing; {tower.__name__} needs {required}')
  if given := [name for name in own if name in shared]:
    names = ', '.join(f'{where}.{name}' for name in given)
    raise ValueError(f'{names}: the model sets this itself; leave it out')
  if own.get('pooling') == 'none':
    raise ValueError(
      f"{where}.pooling = 'none' leaves no vector to compare; use another, or CoCa's poolers"
    )
  return tower(**shared, **own)


def _is_required(parameter: inspect.Parameter) -> bool:
  return parameter.default is inspect.Parameter.empty


def check_patches(model: Mapping[str, Any]) -> None:
  """Checks that a model takes images as patches, see `patches`.

  Args:
    model: the fields of the model, with its `name`.

  Raises:
    ValueError: names the field.
  """
  image = model.get('image')
  if image is None or model['name'] in ('coca', 'masked_autoencoder'):
    raise ValueError(
      f"config.model.name = {model['name']!r} takes no images as patches; use 'clip' or 'encoder'"
    )
  for field, works in (('tower', 'vit'), ('stem', 'patch'), ('rope', None)):
    if (value := image.get(field, works)) != works:
      raise ValueError(
        f'config.model.image.{field} = {value!r} takes no images as patches; use {works!r}'
      )
