"""What makes a CPU a better device; other platforms are left alone."""

import ctypes
import os

# Of glibc's mallopt.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def split_cores(most: int = 8) -> None:
  """Makes each core of a CPU a device of its own, if called before JAX's first computation.

  XLA cuts a batch over devices better than an operation over threads: on two cores the step of a
  small CLIP takes three quarters of the time. Other platforms are left alone, and so is a CPU whose
  devices are counted in XLA_FLAGS.

  Args:
    most: devices; so many as divide a usual batch, the greatest power of two of the cores.
  """
  given = os.environ.get('XLA_FLAGS', '')
  if 'xla_force_host_platform_device_count' in given:
    return
  cores = min(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1, most)
  devices = 1 << (cores.bit_length() - 1)
  if devices > 1:
    flags = f'--xla_force_host_platform_device_count={devices} --xla_cpu_multi_thread_eigen=false'
    os.environ['XLA_FLAGS'] = f'{given} {flags}'.strip()


def keep_memory() -> None:
  """Lets the process keep the memory that it frees, where glibc allots it.

  Left alone, glibc gives a program's temporaries back to the system after each run, which hands
  them out anew page by page: half the time of a small model's step (experiments/throughput).
  """
  if mallopt := getattr(ctypes.CDLL(None), 'mallopt', None):
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
