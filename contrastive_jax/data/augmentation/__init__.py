"""Image augmentation, by name in config.augmentation, on the device or on the host."""

from contrastive_jax.data.augmentation.strengths import (
  COLORS,
  augment,
  augment_on_host,
  augment_patches,
  boxes,
  check_boxes,
  check_strengths,
)

__all__ = [
  'COLORS',
  'augment',
  'augment_on_host',
  'augment_patches',
  'boxes',
  'check_boxes',
  'check_strengths',
]
