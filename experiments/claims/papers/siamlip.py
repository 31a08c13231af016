"""SiamLIP beside CLIP."""

from experiments.claims.claim import Claim, with_three_views

CLAIM = Claim(method='SiamLIP', paper=11, family='objectives', **with_three_views('siamlip'))
