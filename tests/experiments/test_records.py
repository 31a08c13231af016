"""Results files say what measured them, and the tables of documents are those of the results."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from experiments import records

FIELDS = {'commit', 'versions', 'device', 'date'}
SCRIPTS = sorted(
  f'experiments.{path.parent.name}.{path.stem}'
  for path in records.FOLDER.glob('*/*.py')
  if 'app.run(main)' in path.read_text()
)
# One process imports all scripts, each with flags of its own, and prints what --help shows.
PRINT_HELP = """
import importlib, sys
from absl import flags

for name in sys.argv[1:]:
  earlier = set(flags.FLAGS)
  script = importlib.import_module(name)
  print('SCRIPT', script.__doc__, flags.FLAGS.module_help(script))
  for flag in set(flags.FLAGS) - earlier:
    delattr(flags.FLAGS, flag)
"""


def seconds(path):
  rows = ([name, f'{value:.1f}'] for name, value in records.read(path)['results'].items())
  return records.markdown('lr', ['', 'seconds'], rows)


def make_document(folder):
  """Writes results and a document that shows them; returns the document and its tables."""
  results, document = folder / 'results.json', folder / 'README.md'
  records.write(results, {'ours': 1.25, 'theirs': 2.5})
  document.write_text('Before.\n\n<!-- table seconds -->\n<!-- end table -->\n\nAfter.\n')
  tables = {'seconds': functools.partial(seconds, results)}
  assert records.update(document, tables) == {'seconds'}
  return document, tables


def test_tables_of_all_documents_are_those_of_the_results():
  records.main(['--check'])


def test_results_say_what_measured_them():
  paths = [p for p in records.FOLDER.glob('*/*.json') if p.with_name('report.py').exists()]
  assert paths
  for path in paths:
    record = records.read(path)
    assert set(record) == {'provenance', 'results'}, path
    assert set(record['provenance']) >= FIELDS, path
    assert re.fullmatch('[0-9a-f]{40}(-modified)?', record['provenance']['commit']), path


def test_provenance_has_all_fields():
  found = records.provenance()
  assert set(found) == FIELDS
  assert re.fullmatch('[0-9a-f]{40}(-modified)?|unknown', found['commit'])
  assert {'python', 'jax', 'jaxlib', 'flax', 'optax', 'numpy'} <= set(found['versions'])
  assert re.fullmatch(rf'cpu: {os.cpu_count()} cores of \S.*', found['device'])
  assert re.fullmatch(r'\d{4}-\d\d-\d\d', found['date'])


def test_commit_is_marked_if_code_differs_from_it(tmp_path, monkeypatch):
  monkeypatch.setattr(records, 'ROOT', tmp_path)
  code, results = tmp_path / 'code.py', tmp_path / 'experiments' / 'one' / 'results.json'
  results.parent.mkdir(parents=True)
  assert records.provenance()['commit'] == 'unknown'
  for path in (code, results):
    path.write_text('1')
  author = ('-c', 'user.name=A', '-c', 'user.email=a@example.com')
  for command in (('init', '-q'), ('add', '.'), (*author, 'commit', '-q', '-m', 'Start')):
    subprocess.run(['git', *command], cwd=tmp_path, check=True)
  commit = records.provenance()['commit']
  results.write_text('2')
  assert records.provenance()['commit'] == commit
  code.write_text('2')
  assert records.provenance()['commit'] == f'{commit}-modified'


def test_resumed_results_keep_the_earlier_provenance(tmp_path):
  path = tmp_path / 'results.json'
  records.write(path, [1], resumed=True)
  first = records.read(path)
  records.write(path, [1, 2], resumed=True)
  assert records.read(path) == {'provenance': first['provenance'], 'results': [1, 2]}
  earlier = first['provenance'] | {'device': 'cpu: 1 core of an abacus'}
  path.write_text(json.dumps({'provenance': earlier, 'results': [1]}))
  for results in ([1, 2], [1, 2, 3]):
    records.write(path, results, resumed=True)
    assert records.read(path)['provenance'] == first['provenance'] | {'resumed': earlier}
  records.write(path, [4])
  assert 'resumed' not in records.read(path)['provenance']


def test_a_sentence_says_what_measured_a_file(tmp_path):
  path = tmp_path / 'results.json'
  found = {'commit': 'a' * 40, 'device': 'cpu: an abacus', 'date': '2026-01-02'}
  path.write_text(json.dumps({'provenance': found}))
  said = 'Measured on 2026-01-02; commit aaaaaaa; device: cpu: an abacus.'
  assert records.measured_by(path) == said
  found['resumed'] = {'commit': 'b' * 40, 'date': '2026-01-01'}
  path.write_text(json.dumps({'provenance': found}))
  assert 'on 2026-01-02, in part at bbbbbbb on 2026-01-01; commit aaa' in records.measured_by(path)


def test_a_document_shows_the_table_between_its_markers(tmp_path):
  document, tables = make_document(tmp_path)
  first, *lines = document.read_text().splitlines()[2:-2]
  assert re.fullmatch('<!-- table seconds [0-9a-f]{12} -->', first)
  rows = ['| | seconds |', '|---|---:|', '| ours | 1.2 |', '| theirs | 2.5 |']
  assert lines == ['', *rows, '', '<!-- end table -->']
  records.update(document, tables, check=True)


@pytest.mark.parametrize(
  ('name', 'before', 'after'),
  [
    ('README.md', '| ours | 1.2 |', '| ours | 1.1 |'),
    ('results.json', '2.5', '2.6'),
    ('results.json', '1.25', '1.249'),  # within the rounding of the table
  ],
)
def test_a_changed_number_is_noticed(tmp_path, name, before, after):
  document, tables = make_document(tmp_path)
  path = tmp_path / name
  path.write_text(path.read_text().replace(before, after))
  changed = document.read_text()
  with pytest.raises(ValueError, match=r"README.md: the table 'seconds' differs .* -m experiments"):
    records.update(document, tables, check=True)
  assert document.read_text() == changed
  records.update(document, tables)
  records.update(document, tables, check=True)


@pytest.mark.parametrize(
  ('before', 'after', 'message'),
  [
    ('table seconds', 'table minutes', r"'minutes', but TABLES has only \['seconds'\]"),
    ('<!-- end table -->', '', 'no `<!-- end table -->`'),
  ],
)
def test_a_broken_marker_is_an_error(tmp_path, before, after, message):
  document, tables = make_document(tmp_path)
  document.write_text(document.read_text().replace(before, after))
  with pytest.raises(ValueError, match=message):
    records.update(document, tables)


def test_the_command_checks_and_mends_all_documents(tmp_path, monkeypatch, capsys):
  readme, front = tmp_path / 'augmentation' / 'README.md', tmp_path / 'README.md'
  readme.parent.mkdir()
  for name in ('README.md', 'report.py'):
    shutil.copy(records.FOLDER / 'augmentation' / name, readme.parent)
  names = ('augmentation/milliseconds', 'augmentation/provenance')
  front.write_text('\n'.join(f'<!-- table {name} -->\n<!-- end table -->\n' for name in names))
  monkeypatch.setattr(records, 'FOLDER', tmp_path)
  monkeypatch.setattr(records, 'ROOT', tmp_path)

  def fails(*arguments):
    with pytest.raises(SystemExit) as exit_:
      records.main(arguments)
    assert exit_.value.code == 1
    return capsys.readouterr().err

  said = fails('--check')
  assert f'{front}' in said and "'augmentation/milliseconds'" in said and records.COMMAND in said
  records.main([])
  records.main(['--check'])
  readme.write_text(readme.read_text().replace('13.5', '12.5'))
  said = fails('--check')
  assert f'{readme}' in said and "'milliseconds'" in said and records.COMMAND in said
  for document in (readme, front):
    document.write_text('No table.')
  assert f'no document shows the tables {[*names]}' in fails()


def test_every_script_is_a_module_with_help():
  done = subprocess.run(
    [sys.executable, '-c', PRINT_HELP, *SCRIPTS],
    cwd=records.ROOT,
    env=os.environ | {'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  said = dict(zip(SCRIPTS, done.stdout.split('SCRIPT')[1:], strict=True))
  for name, text in said.items():
    assert re.search(f'python .*{name}', text), text
