"""Image augmentation, by name in config.augmentation, on the device or on the host."""

from contrastive_jax.data.augmentation.strengths import (
  augment,
  augment_on_host,
  check_strengths,
)

__all__ = ['augment', 'augment_on_host', 'check_strengths']
