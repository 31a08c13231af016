"""The folder of a run has one process."""

import pathlib
import subprocess
import sys

import pytest
from ml_collections import ConfigDict

from contrastive_jax.training import workdir

ROOT = pathlib.Path(workdir.__file__).parents[2]
HOLDER = """
import pathlib, sys
from ml_collections import ConfigDict
from contrastive_jax.training import workdir
workdir.claim(pathlib.Path(sys.argv[1]), ConfigDict({'seed': 0}))
print('claimed', flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
  command = [sys.executable, '-c', HOLDER, str(tmp_path)]
  pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
  with subprocess.Popen(command, cwd=ROOT, **pipes) as first:
    assert first.stdout.readline() == 'claimed\n'
    with pytest.raises(ValueError, match='is in use by another process'):
      workdir.claim(tmp_path, ConfigDict({'seed': 0}))
    first.kill()
  workdir.claim(tmp_path, ConfigDict({'seed': 0}))
  workdir.claim(tmp_path, ConfigDict({'seed': 0}))


@pytest.mark.parametrize('where', ['file/run', '/proc/run'])
def test_a_workdir_that_cannot_be_written_is_named(tmp_path, where):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r'workdir .*run cannot be written: .*choose another'):
    workdir.claim(tmp_path / where, ConfigDict({'seed': 0}))
