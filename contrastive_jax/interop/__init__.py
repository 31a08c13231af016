"""Reads and writes weights of open_clip, OpenAI, Hugging Face, and our native format."""

from contrastive_jax.interop.export import export_run
from contrastive_jax.interop.hugging_face import read_hugging_face, write_hugging_face
from contrastive_jax.interop.init_from import initial_parameters, read
from contrastive_jax.interop.model import Model
from contrastive_jax.interop.native import read_model, write_model
from contrastive_jax.interop.open_clip import check_open_clip, read_open_clip, write_open_clip
from contrastive_jax.interop.openai import read_openai
from contrastive_jax.interop.table import UnsupportedError

__all__ = [
  'Model',
  'UnsupportedError',
  'check_open_clip',
  'export_run',
  'initial_parameters',
  'read',
  'read_hugging_face',
  'read_model',
  'read_open_clip',
  'read_openai',
  'write_hugging_face',
  'write_model',
  'write_open_clip',
]
