"""Runs a script in two processes that join each other."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def run(script: str, *arguments: str, devices: int = 1) -> tuple[list[int], list[str]]:
  """Runs a script twice, as `script COORDINATOR NUMBER *arguments`.

  Args:
    script: Python code.
    *arguments: its further arguments.
    devices: number of simulated devices of each process.

  Returns:
    Statuses, and what the processes printed.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    coordinator = f'127.0.0.1:{free.getsockname()[1]}'
  flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={devices}'
  started = [
    subprocess.Popen(
      [sys.executable, '-c', script, coordinator, str(number), *arguments],
      env=os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags},
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for number in range(2)
  ]
  try:
    printed = [process.communicate(timeout=120)[0] for process in started]
  finally:
    for process in started:
      process.kill()
  return [process.returncode for process in started], printed
