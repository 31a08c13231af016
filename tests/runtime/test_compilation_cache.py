"""A user without a home folder, as in a container that runs under an id of its own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
WITHOUT_A_HOME = """
import os, pwd

def unknown(uid):
  raise KeyError(uid)

pwd.getpwuid = unknown
assert os.path.expanduser('~') == '~'
import jax, launch
from contrastive_jax.evaluation.captioning import score_captions
from contrastive_jax.runtime import compilation_cache
compilation_cache.keep_programs()
print(jax.config.jax_compilation_cache_dir, score_captions(['a cat'], [['a cat']])['rouge_l'])
"""


def test_without_a_home_all_works_but_that_programs_are_not_kept():
  without = ('HOME', 'JAX_COMPILATION_CACHE_DIR', 'NLTK_DATA')
  done = subprocess.run(
    [sys.executable, '-c', WITHOUT_A_HOME],
    env={name: value for name, value in os.environ.items() if name not in without},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.stdout == 'None 1.0\n', done.stderr
  assert 'compiled programs are not kept' in done.stderr and 'Set HOME' in done.stderr
