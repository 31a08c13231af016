"""Settings that speed up training on CPUs; other platforms are unaffected."""

import ctypes
import os
import re

# Parameters of glibc's mallopt, and of madvise.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_HUGE_PAGES = 14
_COUNT = re.compile(r'xla_force_host_platform_device_count=(\d+)')


def split_cores(max_devices: int = 8, *, spare_threads: bool = False) -> None:
  """Makes each CPU core a device, if called before JAX's first computation.

  Data parallelism over devices is faster than XLA's threads within an operation: on two cores the
  step of a small CLIP takes three quarters of the time. If XLA_FLAGS sets the number of devices, it
  is kept.

  Args:
    max_devices: maximum number of devices. Their number is a power of two, to divide usual batches.
    spare_threads: whether a program has independent collectives, as of several losses; see
      `reserve_threads`. The step of a small CLIP takes 5% longer with spare threads.
  """
  given = os.environ.get('XLA_FLAGS', '')
  if counted := _COUNT.search(given):
    reserve_threads(int(counted[1]))
    return
  cores = min(len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1, max_devices)
  devices = 1 << (cores.bit_length() - 1)
  if devices > 1:
    flags = f'--xla_force_host_platform_device_count={devices} --xla_cpu_multi_thread_eigen=false'
    os.environ['XLA_FLAGS'] = f'{given} {flags}'.strip()
    if spare_threads:
      reserve_threads(devices)


def reserve_threads(devices: int) -> None:
  """Lets all CPU devices wait in several collectives at once; call before JAX's first computation.

  XLA runs independent collectives of a device side by side, each in a thread of one pool, which by
  default has a thread per device. With two losses on a ring, one device can take two threads, and
  the last device then gets none: the others wait for it until XLA ends the process. PJRT_NPROC, the
  size of the pool, is kept if set.
  """
  os.environ.setdefault('PJRT_NPROC', str(4 * devices))


def keep_memory() -> None:
  """Makes glibc keep freed memory in the process, in huge pages.

  By default glibc returns a program's temporaries to the system after each run, and page faults
  take a fifth of the time of a CLIP step (experiments/throughput).
  """
  libc = ctypes.CDLL(None)
  if not hasattr(libc, 'mallopt'):
    return
  libc.mallopt(_ARENA_MAX, 1)  # other arenas map large blocks regardless
  libc.mallopt(_MMAP_MAX, 0)
  libc.mallopt(_TRIM_THRESHOLD, -1)
  # Allocating half of the memory, untouched, grows the heap once for the whole run.
  page = os.sysconf('SC_PAGE_SIZE')
  size = page * os.sysconf('SC_PHYS_PAGES') // 2
  libc.malloc.restype = ctypes.c_void_p
  if block := libc.malloc(ctypes.c_size_t(size)):
    start = -(-block // page) * page
    libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size - page), _HUGE_PAGES)
    libc.free(ctypes.c_void_p(block))
