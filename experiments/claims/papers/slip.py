"""SLIP beside CLIP."""

from experiments.claims.claim import Claim, with_three_views

CLAIM = Claim(method='SLIP', paper='SLIP', family='image-text', **with_three_views('slip'))
