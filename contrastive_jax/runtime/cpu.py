"""What makes a CPU a better device; other platforms are left alone."""

import ctypes
import os

# Of glibc's mallopt, and of madvise.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_HUGE_PAGES = 14


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
  """Lets the process keep the memory that it frees, in huge pages, where glibc allots it.

  Left alone, glibc gives a program's temporaries back to the system after each run, which hands
  them out anew, page by page: a fifth of the time of a step of CLIP (experiments/throughput).
  """
  libc = ctypes.CDLL(None)
  if not hasattr(libc, 'mallopt'):
    return
  libc.mallopt(_ARENA_MAX, 1)  # another arena than the first maps large blocks whatever is said
  libc.mallopt(_MMAP_MAX, 0)
  libc.mallopt(_TRIM_THRESHOLD, -1)
  # A block as large as half of the memory, of which nothing is touched, makes the heap grow once.
  page = os.sysconf('SC_PAGE_SIZE')
  size = page * os.sysconf('SC_PHYS_PAGES') // 2
  libc.malloc.restype = ctypes.c_void_p
  if block := libc.malloc(ctypes.c_size_t(size)):
    start = -(-block // page) * page
    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size - page), _HUGE_PAGES)
    libc.free(ctypes.c_void_p(block))
