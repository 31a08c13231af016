"""The recipe is configs/methods/reweighted.py; this file keeps its earlier path."""

from configs.methods.reweighted import VARIANTS, get_config

__all__ = ['VARIANTS', 'get_config']
