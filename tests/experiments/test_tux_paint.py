"""Stamps of another domain, as Tux Paint's package lays them out."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_stamps_named_as_an_emoji_are_kept_over_white_with_their_languages(tmp_path):
  stamps = tmp_path / 'stamps' / 'animals'
  stamps.mkdir(parents=True)
  for name, description in (
    ('cat', 'A cat.\nde.utf8=Eine Katze.\nfr.utf8=\n'),
    ('other', 'A cat that is no emoji.\n'),
    ('silent', None),
  ):
    red = np.zeros((4, 8, 4), np.uint8)
    red[:, 4:] = 200, 0, 0, 255  # beside it nothing is painted
    Image.fromarray(red).save(stamps / f'{name}.png')
    if description is not None:
      (stamps / f'{name}.txt').write_text(description)
  target = tmp_path / 'target'
  command = [sys.executable, '-m', 'experiments.protocols.tux_paint']
  command += [f'--stamps={tmp_path}/stamps', f'--target={target}']
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
  assert '1 stamps, 1 captions; 0 languages' in done.stdout
  [row] = map(json.loads, (target / 'stamps.jsonl').read_text().splitlines())
  assert row == {
    'image': 'stamps/0000.png',
    'caption': 'cat',
    'names': {'de': 'Eine Katze.'},
  }
  picture = np.asarray(Image.open(target / row['image']))
  assert picture.shape == (8, 8, 3)
  assert (picture[2:6, 4:] == (200, 0, 0)).all() and (picture[:, :4] == 255).all()
  assert (picture[:2] == 255).all() and (picture[6:] == 255).all()
