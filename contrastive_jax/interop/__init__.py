"""Weights in and out: open_clip, OpenAI, Hugging Face, and our own form."""

from contrastive_jax.interop.export import export_run
from contrastive_jax.interop.hugging_face import read_hugging_face, write_hugging_face
from contrastive_jax.interop.initial import initial_parameters, read
from contrastive_jax.interop.model import Model
from contrastive_jax.interop.open_clip import read_open_clip, write_open_clip
from contrastive_jax.interop.openai import read_openai
from contrastive_jax.interop.own import read_model, write_model
from contrastive_jax.interop.table import NoForm

__all__ = [
  'Model',
  'NoForm',
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
