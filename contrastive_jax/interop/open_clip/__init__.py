"""Reads and writes open_clip's models: open_clip_config.json and open_clip_model.safetensors.

Both styles of config are read: open_clip's published `model_cfg`, in which `custom_text` and
`multimodal_cfg` determine the kind of model, and the newer one with an explicit `kind`.

Each kind of tower has a file, and a row in `towers.IMAGE` or `towers.TEXT`.
"""

from contrastive_jax.interop.open_clip.config import check_open_clip
from contrastive_jax.interop.open_clip.folder import (
  CONFIG,
  WEIGHTS,
  from_tensors,
  read_open_clip,
  write_open_clip,
)

__all__ = [
  'CONFIG',
  'WEIGHTS',
  'check_open_clip',
  'from_tensors',
  'read_open_clip',
  'write_open_clip',
]
