"""What a model computes from a batch."""

import jax
from flax import struct


@struct.dataclass
class Outputs:
  """What a model says of a batch; the losses take these by name.

  Attributes:
    image: [B, D] unit vectors.
    text: [B, D] unit vectors.
    scale: scalar, the inverse temperature.
    bias: scalar added to each similarity, or None.
    caption_logits: [B, L-1, V], position t predicts token t+1; None without a captioner.
    hidden: [B, L-1, C], what the captioner's output matrix makes the logits of; or None.
    vocabulary: [V, C], that matrix; or None.
    second: [B, D] unit vectors of a second view of each image; None where a step draws one alone.
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
    """Without what is said of single tokens."""
    return self.replace(caption_logits=None, hidden=None, vocabulary=None)
