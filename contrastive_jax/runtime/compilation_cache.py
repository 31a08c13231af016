"""The cache of compiled programs on disk."""

import pathlib

import jax
from absl import logging


def keep_programs() -> None:
  """Caches compiled programs in ~/.cache/contrastive_jax, unless JAX has a cache folder already.

  Without a home folder nothing is cached.
  """
  if jax.config.jax_compilation_cache_dir is not None:
    return
  try:
    cache = pathlib.Path('~/.cache/contrastive_jax').expanduser()
  except RuntimeError as error:
    logging.warning(
      'compiled programs are not kept: %s Set HOME or JAX_COMPILATION_CACHE_DIR to keep them', error
    )
    return
  jax.config.update('jax_compilation_cache_dir', str(cache))
