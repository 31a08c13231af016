"""How each view of an image is augmented, by the config."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from contrastive_jax.data.augmentation import augment, augment_patches, boxes, check_boxes

# Images [B, H, H, 3], or patches of them.
Preprocess = Callable[[jax.Array, Any], Any]


def preprocesses(config: ConfigDict, size: int, normalize: Callable) -> list[Preprocess]:
  """(keys [B], images [B, H, H, 3]) -> images [B, S, S, 3] of a model, per view.

  Args:
    config: of the run.
    size: S, the side of the model's images; patches keep theirs.
    normalize: pixels from 0 to 255 -> the model's images.
  """

  def of_view(strengths: dict[str, float]) -> Preprocess:
    if config.data.sequence_lengths:
      return lambda keys, patches: normalize(augment_patches(keys, patches, strengths))
    return lambda keys, images: normalize(augment(keys, images, size, strengths))

  return [of_view(strengths_of(config, view)) for view in range(config.views)]


def locators(config: ConfigDict) -> list[Callable[[jax.Array], jax.Array]]:
  """(keys [B] of `preprocesses`) -> the boxes [B, 4] of the views in the images, per view.

  Raises:
    ValueError: if the views are no boxes, see `data.augmentation.boxes`.
  """
  for number in ('', *config.view_augmentation):
    field = f'view_augmentation.{number}' if number else 'augmentation'
    check_boxes(strengths_of(config, int(number or 0)), field)
  return [
    functools.partial(boxes, strengths=strengths_of(config, view)) for view in range(config.views)
  ]


def strengths_of(config: ConfigDict, view: int) -> dict[str, float]:
  """The strengths of a view: the last of `config.view_augmentation` up to its number.

  None for images that the host augments.
  """
  if config.augment_on == 'host':
    return {}
  numbers = [number for number in map(int, config.view_augmentation) if number <= view]
  section = config.view_augmentation[str(max(numbers))] if numbers else config.augmentation
  return section.to_dict()
