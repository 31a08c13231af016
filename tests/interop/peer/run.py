"""Runs scripts where open_clip is installed: here, or in the interpreter OPEN_CLIP_PYTHON."""

import functools
import os
import pathlib
import subprocess
import sys

import pytest

PYTHON = os.environ.get('OPEN_CLIP_PYTHON', sys.executable)


@functools.cache
def _has_open_clip() -> bool:
  return not subprocess.run([PYTHON, '-c', 'import open_clip'], capture_output=True).returncode


def run(script: str, *arguments) -> str:
  """Runs a script of this folder and returns what it prints; skips the test without open_clip."""
  if not _has_open_clip():
    pytest.skip(f'{PYTHON} has no open_clip; set OPEN_CLIP_PYTHON to an interpreter that has')
  command = [PYTHON, pathlib.Path(__file__).with_name(script), *map(str, arguments)]
  return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
