"""The outputs of a model for a batch."""

import jax
from flax import struct


@struct.dataclass
class Outputs:
  """Outputs of a model for a batch; losses take them by name.

  Attributes:
    image: [B, D] unit vectors.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    bias: scalar bias of similarities, or None.
    caption_logits: [B, L-1, V], position t predicts token t+1; None without a captioner.
    hidden: [B, L-1, C], states before the captioner's output matrix; or None.
    vocabulary: [V, C], the captioner's output matrix; or None.
    second: [B, D] unit vectors of a second view of each image; None with one view.
  """

  image: jax.Array
  text: jax.Array
  scale: jax.Array
  bias: jax.Array | None = None
  caption_logits: jax.Array | None = None
  hidden: jax.Array | None = None
  vocabulary: jax.Array | None = None
  second: jax.Array | None = None

  def embeddings(self) -> 'Outputs':
    """Returns the outputs without those per token."""
    return self.replace(caption_logits=None, hidden=None, vocabulary=None)
