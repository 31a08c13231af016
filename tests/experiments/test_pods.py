"""What a scheduler hears from experiments/pods/run.sh: finished, go on, or failed."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

RUN = pathlib.Path(__file__).parents[2] / 'experiments' / 'pods' / 'run.sh'
FINISH = 'touch "$WORKDIR/results.json"'
# Says that it has started, and at a SIGTERM saves for a while, as launch.py does.
SAVE = 'trap "sleep 0.5; exit 0" TERM; echo started; while true; do sleep 0.05; done'


def start(workdir, program, url=None):
  """Runs the script with `program`, of shell, in the place of Python and launch.py."""
  python = workdir / 'python'
  python.write_text(f'#!/bin/sh\n{program}\n')
  python.chmod(0o755)
  return subprocess.Popen(
    [RUN, '--config=configs/clip.py'],
    env=os.environ | {'WORKDIR': url or str(workdir), 'PYTHON': str(python)},
    stdout=subprocess.PIPE,
    text=True,
  )


@pytest.mark.parametrize(
  ('program', 'status'),
  [
    (FINISH, 0),
    ('exit 0', 75),  # another process got the signal, and all of them saved
    ('exit 1', 1),
    (f'{FINISH}; exit 1', 1),
  ],
)
def test_its_status_says_how_the_run_stands(tmp_path, program, status):
  assert start(tmp_path, program).wait(timeout=30) == status


def test_launch_py_gets_the_arguments_and_the_workdir(tmp_path):
  process = start(tmp_path, f'shift; echo "$@"; {FINISH}')
  assert process.communicate()[0] == f'--workdir={tmp_path} --config=configs/clip.py\n'


def test_a_finished_run_is_not_started_again(tmp_path):
  (tmp_path / 'results.json').write_text('{}')
  assert start(tmp_path, 'exit 1').wait(timeout=30) == 0


@pytest.mark.parametrize(('program', 'status'), [('touch "$FOLDER/results.json"', 0), (':', 75)])
def test_a_workdir_may_be_a_url(tmp_path, monkeypatch, program, status):
  monkeypatch.setenv('FOLDER', str(tmp_path))
  process = start(
    tmp_path, f'[ "$1" = -c ] && exec {sys.executable} "$@"; {program}', f'file://{tmp_path}'
  )
  assert process.wait(timeout=60) == status


@pytest.mark.parametrize('signals', [1, 3])
def test_sigterm_reaches_the_process_which_may_save(tmp_path, signals):
  process = start(tmp_path, f'echo $$ > "$WORKDIR/id"; {SAVE}')
  assert process.stdout.readline() == 'started\n'
  for _ in range(signals):
    process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 75
  with pytest.raises(ProcessLookupError):
    os.kill(int((tmp_path / 'id').read_text()), 0)


def test_a_process_that_sigterm_ends_before_it_listens_goes_on(tmp_path):
  process = start(tmp_path, 'echo started; exec sleep 30')
  assert process.stdout.readline() == 'started\n'
  process.send_signal(signal.SIGTERM)
  assert process.wait(timeout=30) == 75
