"""Eight simulated devices for all tests, whose programs compile fast and once."""

import gc
import os

import hypothesis
import jax
import pytest

from contrastive_jax.runtime import cpu

# It makes what a test expects, with CLIP_benchmark, which is not installed here.
collect_ignore = ['evaluation/clip_benchmark/make.py']
collect_ignore_glob = ['interop/peer/*.py']  # which run where open_clip is

# Before any computation: all of this is fixed once the backend starts.
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
cpu.reserve_threads(8)
# The time goes to compiling, not to running, so machine code is made in haste. The level leaves
# fusions and buffers as they are; whether the emitters' flag does was not compared. So the programs
# tested are not compiled quite as a user's are. Child processes inherit the flags.
HASTE = ['--xla_backend_optimization_level=0']
if jax.__version_info__ < (0, 11):  # later versions may not know them, and unknown flags are fatal
  HASTE += ['--xla_cpu_use_fusion_emitters=false', '--xla_cpu_parallel_codegen_split_count=1']
os.environ['XLA_FLAGS'] = ' '.join([os.environ.get('XLA_FLAGS', ''), *HASTE])


# A slow machine is no failure.
hypothesis.settings.register_profile('suite', deadline=None)
hypothesis.settings.load_profile('suite')


# Folders whose files take longest: they start first, so that both processes end together.
LONG = ('tests/training/', 'tests/methods/', 'tests/test_launch.py', 'tests/models/')


def pytest_collection_modifyitems(items):
  """Orders the files; `--dist loadfile` hands them out in order."""
  items.sort(key=lambda item: not item.nodeid.startswith(LONG))


def pytest_collection_finish():
  """Spares the garbage collector what lives until the end: the imported modules."""
  gc.collect()
  gc.freeze()
  gc.set_threshold(10_000, 20, 20)


@pytest.fixture(scope='session', autouse=True)
def compile_once(tmp_path_factory):
  """Tests that build the same program share its compilation, other processes too."""
  folder = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    folder = folder.parent  # which the workers share
  for name, value in (
    ('jax_compilation_cache_dir', str(folder / 'compiled')),
    ('jax_persistent_cache_min_compile_time_secs', 0.1),
  ):
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
  """The database of one synset, {car, auto}, in WordNet's format."""
  folder = tmp_path / 'corpora' / 'wordnet'
  folder.mkdir(parents=True)
  for part in ('adj', 'adv', 'noun', 'verb'):
    for name in (f'data.{part}', f'index.{part}', f'{part}.exc'):
      (folder / name).write_text('')
  for name in ('cntlist.rev', 'index.sense'):
    (folder / name).write_text('')
  (folder / 'lexnames').write_text('00\tnoun.artifact\t1\n')
  header = '  1 a database for tests\n'
  synset = f'{len(header):08} 00 n 02 car 0 auto 0 000 | a motor vehicle  \n'
  (folder / 'data.noun').write_text(header + synset)
  lines = [f'{word} n 1 0 1 0 {len(header):08}  \n' for word in ('auto', 'car')]
  (folder / 'index.noun').write_text(''.join(lines))
  monkeypatch.setattr('nltk.data.path', [str(tmp_path)])
