"""LiT beside CLIP from the start."""

import pathlib
import subprocess
import sys

from experiments import side_by_side
from experiments.claims.claim import CLIP, Arm, Claim, Comparison

STEPS = 1200
INIT = {'init_from': '{folder}/lit_tower/export'}
LIT = Arm('lit', INIT, 'lit')


def prepare(folder: pathlib.Path) -> None:
  """Trains an image tower by SimCLR on the images of the recipe, and exports its weights."""
  run = folder / 'lit_tower'
  if not (run / 'provenance.json').exists():
    fields = {'seed': 0, 'total_steps': STEPS}
    launch = side_by_side.Launch('the tower of LiT', run, 'configs/claims.py:simclr', fields)
    side_by_side.train(launch, side_by_side.CORES[0])
  if not (run / 'export').exists():
    command = [sys.executable, 'launch.py', '--mode=export', f'--workdir={run}']
    subprocess.run(command, cwd=side_by_side.ROOT, check=True)


CLAIM = Claim(
  method='LiT',
  paper='LiT',
  primary=Comparison(LIT, CLIP, 'a locked image tower, beside CLIP from the start', seeds=3),
  family='objectives',
  notes=f'SimCLR trained the image tower for {STEPS} steps on the images of the recipe, once for '
  'all seeds: the paper has towers of far more images than pairs. What the lock does beside the '
  'start from these weights is left aside.',
  prepare=prepare,
)
