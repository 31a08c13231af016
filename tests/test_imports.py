"""A batch flows one way through the folders, and so do the imports."""

import ast
import functools
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = 'contrastive_jax'

# Folders that a folder may import, beside itself.
ALLOWED = {
  'data': ('runtime',),
  'losses': (),
  'sharding': (),
  'runtime': (),
  'models': ('losses', 'sharding'),
  'methods': ('losses', 'models'),
  'interop': ('data', 'models'),
  'training': ('data', 'interop', 'methods', 'models', 'runtime', 'sharding'),
  'evaluation': ('data', 'losses', 'models', 'sharding'),
  'report': ('evaluation',),
  'tasks': ('data', 'evaluation', 'losses', 'models', 'runtime', 'sharding', 'training'),
  'planning': ('data', 'methods', 'models', 'runtime', 'sharding', 'training'),
}


def module(path: pathlib.Path) -> str:
  """The dotted name of a file."""
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module(path): path for path in sorted((ROOT / PACKAGE).rglob('*.py'))}


@functools.cache
def imports(path: pathlib.Path) -> list[str]:
  """Modules of ours that a file imports, at the top or within a function."""
  found = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names if alias.name in MODULES]
    if isinstance(node, ast.ImportFrom) and node.module:
      names = [f'{node.module}.{alias.name}' for alias in node.names]
      found += [name if name in MODULES else node.module for name in names]
  return found


def folder(name: str) -> str | None:
  """The folder of a module; None for the files at the top, which join the folders."""
  parts = name.split('.')
  return parts[1] if len(parts) > 1 and f'{PACKAGE}.{parts[1]}' in folders() else None


@functools.cache
def folders() -> set[str]:
  """Packages right below ours."""
  found = {name for name, path in MODULES.items() if path.name == '__init__.py'}
  return {name for name in found if name.count('.') == 1}


def test_every_folder_has_its_place():
  assert {name.split('.')[1] for name in folders()} == set(ALLOWED)


@pytest.mark.parametrize('name', ALLOWED)
def test_no_import_runs_up(name):
  for importer, path in MODULES.items():
    if folder(importer) == name:
      used = {folder(target) for target in imports(path) if target.startswith(PACKAGE)}
      used |= {'the top' for target in imports(path) if target in MODULES and not folder(target)}
      used -= {None, name}
      assert used <= set(ALLOWED[name]), f'{importer} imports {sorted(used - set(ALLOWED[name]))}'


def test_no_modules_import_in_a_circle():
  graph = {
    name: {target for target in imports(path) if MODULES.get(target, path).name != '__init__.py'}
    for name, path in MODULES.items()
    if path.name != '__init__.py'
  }
  graphlib.TopologicalSorter(graph).prepare()


def test_only_experiments_import_experiments():
  for path in (*MODULES.values(), *(ROOT / 'configs').rglob('*.py'), ROOT / 'launch.py'):
    assert not [name for name in imports(path) if name.startswith('experiments')], path


def test_configs_import_nothing_of_the_package():
  for path in (ROOT / 'configs').rglob('*.py'):
    assert not [target for target in imports(path) if target.startswith(PACKAGE)], path


def test_the_catalogue_imports_nothing_of_the_package():
  path = MODULES[f'{PACKAGE}.catalogue']
  assert not [target for target in imports(path) if target.startswith(PACKAGE)]
