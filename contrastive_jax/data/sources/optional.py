"""Loads the modules of sources that need the optional package pyarrow."""

import importlib
import types


def load(module: str) -> types.ModuleType:
  """Returns a module of this folder.

  Raises:
    ValueError: if pyarrow is not installed.
  """
  try:
    return importlib.import_module(f'contrastive_jax.data.sources.{module}')
  except ImportError as error:
    raise ValueError(
      f"this format needs pyarrow ({error}); install it: pip install 'contrastive-jax[parquet]'"
    ) from error
