"""Checks of the arguments of losses."""

import jax


def check_pairs(**embeddings: jax.Array) -> None:
  """Raises ValueError unless all arrays have one shape [B, D]; names them by their keywords."""
  shapes = {name: array.shape for name, array in embeddings.items()}
  first, *others = shapes.values()
  if any(other != first for other in others) or len(first) != 2 or 0 in first:
    names = ' and '.join(f'{name} {shape}' for name, shape in shapes.items())
    raise ValueError(f'{names}; give [B, D] of the same shape, not empty')


def check_views(views: jax.Array) -> None:
  """Raises ValueError unless `views` is [B, V, D], not empty, of at least two views."""
  if views.ndim != 3 or 0 in views.shape or views.shape[1] < 2:
    raise ValueError(f'views {views.shape}; give [B, V, D], not empty, of at least two views')


def check_share(name: str, share: float) -> None:
  """Raises ValueError unless an option is in (0, 1]."""
  if not 0 < share <= 1:
    raise ValueError(f'{name} = {share}; use a number in (0, 1]')
