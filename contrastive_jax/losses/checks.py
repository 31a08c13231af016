"""Checks of the arguments of losses."""

import jax


def check_pairs(**embeddings: jax.Array) -> None:
  """Raises ValueError unless both arrays have one shape [B, D]; names them by their keywords."""
  shapes = {name: array.shape for name, array in embeddings.items()}
  first, second = shapes.values()
  if first != second or len(first) != 2 or 0 in first:
    names = ' and '.join(f'{name} {shape}' for name, shape in shapes.items())
    raise ValueError(f'{names}; give two [B, D] of the same shape, not empty')
