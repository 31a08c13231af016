"""Sources of examples by name: TFDS, WebDataset, JSON Lines, CSV, ArrayRecord, and mixtures."""

from contrastive_jax.data.sources.opening import open_source
from contrastive_jax.data.sources.source import BadExampleError, Source

__all__ = ['BadExampleError', 'Source', 'open_source']
