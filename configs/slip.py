"""The recipe is configs/methods/slip.py; this file keeps its earlier path."""

from configs.methods.slip import VARIANTS, get_config

__all__ = ['VARIANTS', 'get_config']
