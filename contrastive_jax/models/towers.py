"""Towers by name, the values of `config.model.image.tower` and `config.model.text.tower`.

A tower is an nnx module, built from its section of the config. It has

    width                             width of the pooled vectors, and of the tokens
    __call__(images, keys=None)       (pooled [B, width], tokens [B, P, width]) of a batch; keys [B]
                                      choose what is dropped in training
    lengths(fields, path)             positions per example that a kernel is applied to, and keys
                                      that they attend to, for counting FLOPs; of images, the number
                                      of tokens for the path ''
    describe(fields)                  a line of the model card

and, if it reads texts,

    pad_id                            id of the padding; of the class, where the fields have none

or, if it reads images,

    size                              side of the images, in pixels
    on_pixels                         prefixes of kernels that are applied to pixels
    resize(fields, parameters, size)  the parameters for another size of the images

Static methods take the section of the config, `fields`.
"""

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
from contrastive_jax.models.transformer import choose
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
  """Builds an image tower; `shared` arguments are those of both towers, such as `dtype`."""
  return image_class(fields)(**shared, **_without_name(fields))


def text_tower(fields: Mapping[str, Any], **shared) -> Any:
  """Builds a text tower; likewise."""
  return text_class(fields)(**shared, **_without_name(fields))


def _without_name(fields):
  return {name: value for name, value in fields.items() if name != 'tower'}
