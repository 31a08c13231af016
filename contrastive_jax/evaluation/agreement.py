"""What the processes of an evaluation tell each other about their shares of a split."""

import jax
import numpy as np
from jax.experimental import multihost_utils

_MESSAGE_BYTES = 4096  # of an error message that is gathered


def raise_together(error: ValueError | None) -> None:
  """Raises the error of any process on all of them, which must all call this; None for no error."""
  if jax.process_count() > 1:
    message = str(error or '').encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b'\0')
    gathered = multihost_utils.process_allgather(np.frombuffer(message, np.uint8))
    messages = [bytes(row).rstrip(b'\0').decode(errors='replace') for row in np.asarray(gathered)]
    if error is None and any(messages):
      error = ValueError(next(filter(None, messages)))
  if error is not None:
    raise error


def merge_rows(values: np.ndarray) -> np.ndarray:
  """Merges uint8 values [N, ...] of which each process holds its rows, and zeros elsewhere."""
  if jax.process_count() == 1:
    return values
  return np.asarray(multihost_utils.process_allgather(values)).max(axis=0)
