"""What the claims of distillation share: a teacher, and students of half the width."""

import pathlib

from experiments import side_by_side
from experiments.claims.claim import Arm

TEACHER = 'teacher'  # CLIP on the recipe, in a folder beside the runs
HALF = {'model.embed': 32, 'model.image.width': 32, 'model.text.width': 32}
CLIP = Arm('clip', HALF, 'clip of half the width')
NOTES = (
  'The teacher is the CLIP of the recipe, trained once; the students have half the width. A step '
  'with a teacher takes its forward pass besides, which equal steps leave aside.'
)


def prepare(folder: pathlib.Path) -> None:
  """Trains the teacher."""
  workdir = folder / TEACHER
  if not (workdir / side_by_side.RESULTS).exists():
    launch = side_by_side.Launch('the teacher', workdir, 'configs/claims.py:clip', {'seed': 0})
    side_by_side.train_all([launch], 1, lambda: None)


def student(method: str) -> Arm:
  """A student with the teacher."""
  return Arm(method, {'teacher': f'{{folder}}/{TEACHER}', **HALF}, f'{method} of half the width')
