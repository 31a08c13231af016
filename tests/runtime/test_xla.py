import os
import subprocess
import sys

import pytest

from contrastive_jax.runtime import xla


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_gpu_enable_latency_hiding_scheduler=false')
  monkeypatch.delenv('LIBTPU_INIT_ARGS', raising=False)


def test_flags_of_the_environment_come_last():
  xla.set_flags('overlap,vmem')
  assert os.environ['XLA_FLAGS'].startswith('--xla_gpu_enable_latency_hiding_scheduler=true ')
  assert os.environ['XLA_FLAGS'].endswith(' --xla_gpu_enable_latency_hiding_scheduler=false')
  assert '--xla_tpu_scoped_vmem_limit_kib=98304' in os.environ['LIBTPU_INIT_ARGS'].split()


def test_no_name_sets_no_flag():
  before = dict(os.environ)
  xla.set_flags('')
  assert dict(os.environ) == before


def test_an_unknown_name_is_an_error_that_lists_the_sets():
  with pytest.raises(ValueError, match=r"config.xla_flags = 'fast': .* use \['overlap', 'vmem'\]"):
    xla.set_flags('fast')


def test_xla_knows_the_flags_of_gpus():
  """An unknown flag ends the process."""
  flags = ' '.join(flag for _, of_gpus in xla.FLAG_SETS.values() for flag in of_gpus)
  subprocess.run(
    [sys.executable, '-c', 'import jax; jax.devices()'],
    env={**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'},
    check=True,
    timeout=120,
  )
