"""Sources of examples by name: datasets, shards, tables and folders of images, and mixtures."""

from contrastive_jax.data.sources.opening import open_source
from contrastive_jax.data.sources.source import BadExampleError, Source

__all__ = ['BadExampleError', 'Source', 'open_source']
