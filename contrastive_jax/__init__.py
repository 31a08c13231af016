"""Contrastive image-text pretraining in JAX; `load` opens a trained model.

>>> import contrastive_jax
>>> model = contrastive_jax.load('runs/clip-default')  # doctest: +SKIP
"""

import typing

if typing.TYPE_CHECKING:
  from contrastive_jax.pretrained import Pretrained, SearchResult, load

__all__ = ['Pretrained', 'SearchResult', 'load']


def __getattr__(name: str):
  """Imports what joins all stages when it is first asked for, so that losses alone stay light."""
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from contrastive_jax import pretrained

  return getattr(pretrained, name)
