"""Results of experiments: what measured them, and the tables that documents show of them.

  python -m experiments.records            # rewrites the tables of all documents, plots and pages
  python -m experiments.records --check    # fails if one of them differs from its results

A results file is {"provenance": {"commit", "versions", "device", "date"}, "results": ...}. A
document shows a table between two markers, with a hash of the results file and of the source of the
function that formats it:

  <!-- table NAME 1a2b3c4d5e6f -->

  | ... |

  <!-- end table -->

`TABLES` of experiments/EXPERIMENT/report.py holds the functions by NAME. README.md and docs/ show
a table as EXPERIMENT/NAME, and what measured RESULTS as EXPERIMENT/provenance. `FILES`, if there
are any, holds functions that return a whole file, by path.
"""

import argparse
import datetime
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
import pathlib
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parent
COMMAND = 'python -m experiments.records'

# Packages whose versions are recorded where they are installed: ours, then peers.
PACKAGES = (
  *('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'grain', 'numpy', 'pillow', 'libtpu'),
  *('faiss-cpu', 'imagecodecs', 'opencv-python-headless', 'pyspng', 'simplejpeg'),
)

_TABLE = re.compile(r'<!-- table (\S+)(?: [0-9a-f]{12})? -->\n.*?<!-- end table -->', re.DOTALL)


def provenance() -> dict[str, Any]:
  """Returns the commit, versions, device and date (UTC) of what is measured now."""
  return {
    'commit': _commit(),
    'versions': _versions(),
    'device': _device(),
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
  }


def write(path: pathlib.Path, results: Any, resumed: bool = False) -> None:
  """Writes results and their provenance to a JSON file, atomically.

  Args:
    path: the file.
    results: what was measured, of JSON's types.
    resumed: whether some of the results come from the present file. If it was measured by another
      commit, on another device or with other versions, its provenance is kept as `resumed`.
  """
  record = {'provenance': provenance(), 'results': results}
  if resumed and path.exists():
    earlier, now = read(path)['provenance'], record['provenance']
    if all(earlier[field] == now[field] for field in ('commit', 'versions', 'device')):
      record['provenance'] = earlier
    else:
      now['resumed'] = earlier
  partial = path.with_name(f'{path.name}.partial')
  partial.write_text(json.dumps(record, indent=2) + '\n', encoding='utf-8')
  partial.replace(path)


def read(path: pathlib.Path) -> dict[str, Any]:
  """Returns `provenance` and `results` of a results file."""
  return json.loads(path.read_text(encoding='utf-8'))


def rows(path: pathlib.Path) -> dict[str, Any]:
  """Returns the results of a file that has them by name; {} before there is one."""
  return read(path)['results'] if path.exists() else {}


def markdown(align: str, header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
  """Returns a Markdown table, with a letter of `align` per column: 'l' for left, 'r' for right."""
  rules = [{'l': '---', 'r': '---:'}[letter] for letter in align]
  lines = [[f' {cell} ' if cell != '' else ' ' for cell in row] for row in (header, *rows)]
  lines.insert(1, rules)
  return '\n'.join(f'|{"|".join(line)}|' for line in lines)


def block(name: str, table: Callable[[], str]) -> str:
  """Returns a table between its markers."""
  return f'<!-- table {name} {_digest(table)} -->\n\n{table()}\n\n<!-- end table -->'


def measured_by(path: pathlib.Path) -> str:
  """Returns the date, device and commit of a results file, in a sentence."""
  if not path.exists():
    return 'Not measured yet.'
  found = read(path)['provenance']
  commit = f'commit {found["commit"][:7]}'
  if 'recorded' in found:
    commit += f', {found["recorded"]}'
  earlier = found.get('resumed')
  resumed = f', in part at {earlier["commit"][:7]} on {earlier["date"]}' if earlier else ''
  return f'Measured on {found["date"]}{resumed}; {commit}; device: {found["device"]}.'


def update(
  path: pathlib.Path, tables: Mapping[str, Callable[[], str]], check: bool = False
) -> set[str]:
  """Rewrites the tables of a document from their results.

  Args:
    path: a Markdown file.
    tables: functions that return a table, by name: partials of a function of results files.
    check: whether to raise an error instead of rewriting a table.

  Returns:
    The names of the tables that the document shows.

  Raises:
    ValueError: if a table has no function or no end, or, with `check`, differs from its results.
  """
  text, shown = path.read_text(encoding='utf-8'), set()

  def replace(match: re.Match[str]) -> str:
    name = match[1]
    if name not in tables:
      raise ValueError(f'{path} shows the table {name!r}, but TABLES has only {sorted(tables)}')
    shown.add(name)
    table = block(name, tables[name])
    if check and table != match[0]:
      raise ValueError(f'{path}: the table {name!r} differs from its results; run `{COMMAND}`')
    return table

  written, count = _TABLE.subn(replace, text)
  if count != text.count('<!-- table '):
    raise ValueError(f'{path}: a table has no `<!-- end table -->`, or its first line is malformed')
  if written != text:
    path.write_text(written, encoding='utf-8')
  return shown


def update_file(path: pathlib.Path, function: Callable[[], str], check: bool = False) -> None:
  """Rewrites a file; with `check`, raises ValueError if it is missing or differs."""
  text = function()
  if path.exists() and path.read_text(encoding='utf-8') == text:
    return
  if check:
    raise ValueError(f'{path} is missing or differs from its inputs; run `{COMMAND}`')
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text, encoding='utf-8')


def update_all(check: bool = False) -> None:
  """Updates files, the README of each experiment, README.md and docs/; see `update`."""
  tables, shown = {}, set()
  for path in sorted(FOLDER.glob('*/report.py')):
    name = path.parent.name
    report = importlib.import_module(f'experiments.{name}.report')
    for file, function in getattr(report, 'FILES', {}).items():
      update_file(file, function, check)
    own = update(path.with_name('README.md'), report.TABLES, check)
    shown |= {f'{name}/{table}' for table in own}
    tables |= {f'{name}/{table}': function for table, function in report.TABLES.items()}
    if hasattr(report, 'RESULTS'):
      tables[f'{name}/provenance'] = functools.partial(measured_by, report.RESULTS)
  for document in (ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md'))):
    shown |= update(document, tables, check)
  if unseen := sorted(tables.keys() - shown):
    raise ValueError(f'no document shows the tables {unseen}; add `<!-- table NAME -->` lines')


def _digest(table: Callable[[], str]) -> str:
  """Hashes a table's inputs: the results files, and the source of the function."""
  partial = table if isinstance(table, functools.partial) else functools.partial(table)
  results = (path.read_bytes() for path in partial.args if path.exists())
  inputs = [inspect.getsource(partial.func).encode(), *results]
  return hashlib.sha256(b''.join(inputs)).hexdigest()[:12]


def _commit() -> str:
  """Returns the commit of the code, with `-modified` if tracked code differs from it."""
  # Results and documents change between experiments, and are no code.
  code = ('.', ':!experiments/*.json', ':!experiments/*.svg', ':!*.md')
  try:
    commit = _git('rev-parse', 'HEAD')
    modified = _git('status', '--porcelain', '--untracked-files=no', '--', *code)
  except (OSError, subprocess.CalledProcessError):
    return 'unknown'
  return f'{commit}-modified' if modified else commit


def _git(*arguments: str) -> str:
  return subprocess.check_output(
    ['git', *arguments], cwd=ROOT, text=True, stderr=subprocess.DEVNULL
  ).strip()


def _versions() -> dict[str, str]:
  versions = {'python': platform.python_version()}
  for package in PACKAGES:
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return versions


def _device() -> str:
  """Returns, for example, 'cpu: 2 cores of AMD EPYC with AVX2' or 'gpu: 8 x NVIDIA H200; 16 …'."""
  import jax  # Formatting tables does not need it.

  devices = jax.local_devices()
  cores = f'{os.cpu_count()} cores of {_processor()}'
  if devices[0].platform == 'cpu':
    return f'cpu: {cores}'
  return f'{devices[0].platform}: {len(devices)} x {devices[0].device_kind}; {cores}'


def _processor() -> str:
  information = pathlib.Path('/proc/cpuinfo')
  text = information.read_text() if information.exists() else ''
  model = re.search(r'^model name\s*: (.+)$', text, re.MULTILINE)
  if not model:
    return platform.processor() or platform.machine()
  vectors = {'avx2': 'AVX2', 'avx512f': 'AVX-512', 'amx_tile': 'AMX'}
  found = [name for flag, name in vectors.items() if re.search(rf'\b{flag}\b', text)]
  return f'{model[1]} with {found[-1]}' if found else model[1]


def main(arguments: Sequence[str] | None = None) -> None:
  """Rewrites or checks all tables."""
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--check', action='store_true', help='fail if a table differs')
  try:
    update_all(parser.parse_args(arguments).check)
  except ValueError as error:
    parser.exit(1, f'{error}\n')


if __name__ == '__main__':
  main()
