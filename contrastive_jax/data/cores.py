"""The CPU cores of this process."""

import os
import pathlib

_QUOTA = pathlib.Path('/sys/fs/cgroup/cpu.max')  # of a container, such as '400000 100000'


def available_cores() -> int:
  """Returns the number of cores in the affinity mask, or the quota of the container if smaller."""
  if hasattr(os, 'sched_getaffinity'):
    cores = len(os.sched_getaffinity(0))
  else:
    cores = os.cpu_count() or 1
  try:
    quota, period = map(int, _QUOTA.read_text().split())
  except (OSError, ValueError):  # no container, or no quota ('max')
    return cores
  return max(1, min(cores, quota // period))
