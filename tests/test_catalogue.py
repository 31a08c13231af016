"""The catalogue of papers is complete, and says built of what is there."""

import dataclasses
import importlib
import inspect
import pathlib
import pkgutil
import re
from collections import Counter

import pytest

from contrastive_jax import catalogue, losses, methods
from contrastive_jax.catalogue import BASES, PAPERS
from experiments.claims import claim

ROOT = pathlib.Path(__file__).parents[1]
ALL = [*PAPERS.values(), *BASES.values()]
BUILT = catalogue.built()
# Methods that no config trains: the cosine alone has no negatives, and collapses.
NO_CONFIG = {'cosine'}
ROW = {
  'number': '1',
  'name': '"A"',
  'title': '"On A"',
  'url': '"https://arxiv.org/abs/2103.00020"',
  'topic': '"views"',
  'grade': '"V"',
  'summary': '"It is A."',
}


def names(papers):
  return {'argvalues': papers, 'ids': [paper.name for paper in papers]}


def row(kind='papers', **fields):
  given = {name: value for name, value in (ROW | fields).items() if value}
  return '\n'.join([f'[[{kind}]]', *(f'{name} = {value}' for name, value in given.items())])


def test_every_paper_has_its_number():
  assert list(PAPERS) == list(range(1, 85))
  assert all(PAPERS[number].number == number for number in PAPERS)
  assert all(BASES[name].name == name and BASES[name].number is None for name in BASES)


def test_papers_differ():
  for field in ('name', 'title', 'url'):
    counts = Counter(getattr(paper, field) for paper in ALL)
    assert not [value for value, count in counts.items() if count > 1]


def lacks(paper):
  """Yields what a paper that is told as built lacks, and what to do about it."""
  row = f'contrastive_jax/papers.toml tells {paper.name} as built, but'
  try:
    thing = pkgutil.resolve_name(paper.where)
  except (AttributeError, ImportError) as error:
    yield f'{row} {paper.where} does not import ({error}); mend `where`, or remove it'
    return
  if re.search(r'\._', paper.where) or not (inspect.isclass(thing) or inspect.isfunction(thing)):
    yield f'{row} {paper.where} is no public class or function; name one'
    return
  if not (thing.__doc__ or '').strip():
    yield f'{row} {paper.where} has no docstring, the home of its formula; write one'
  if not paper.config or not (ROOT / paper.config).is_file():
    yield f'{row} its config {paper.config!r} is missing; add configs/methods/NAME.py'
  module, name = thing.__module__.rpartition('.')[2], paper.where.rpartition('.')[2]
  if untested(thing, name, *paper.methods):
    yield f'{row} no tests/**/test_{module}.py names {name} or {paper.methods}; add its test'
  if not paper.claims and not paper.baseline:
    yield f'{row} it has no claim; add experiments/claims/papers/NAME.py, and NAME to `claims`'


def untested(thing, *names):
  """Returns whether no test of the module of `thing` has one of the names in it."""
  module = thing.__module__.rpartition('.')[2]
  mention = re.compile(rf'\b({"|".join(names)})\b')
  tests = (ROOT / 'tests').rglob(f'test_{module}.py')
  return not any(mention.search(path.read_text()) for path in tests)


def lacks_of_a_method(name, trained):
  """Yields what a method of the registry lacks; `trained` are those that a config trains."""
  thing = getattr(losses, name, methods.METHODS[name])
  module = thing.__module__.rpartition('.')[2]
  if name not in trained and name not in NO_CONFIG:
    yield f'no config has {name!r} in its objective; add configs/methods/{name}.py'
  if untested(thing, name, getattr(thing, '__name__', name)):
    yield f'no tests/**/test_{module}.py names {name!r}; add its test'
  if not any(paper.claims or paper.baseline for paper in ALL if name in paper.methods):
    yield f'{name!r} has no claim; add experiments/claims/papers/{name}.py, or `baseline`'


def misplaced(name, paper):
  """Yields what to do about a claim of `paper` that the catalogue does not name."""
  rows = [row for row in ALL if name in row.claims]
  if paper not in PAPERS and paper not in BASES:
    yield f'experiments/claims/papers/{name}.py is of the paper {paper!r}, which has no row'
  elif rows != [catalogue.find(paper)]:
    found = catalogue.find(paper).name
    yield f'add {name!r} to `claims` of {found} in contrastive_jax/papers.toml, and of no other row'


def test_states():
  states = {number: paper.state for number, paper in PAPERS.items()}
  assert [number for number, state in states.items() if state == 'not to be built'] == [61]
  assert PAPERS[61].reason
  assert {paper.state for paper in BASES.values()} <= {'built', 'planned'}
  assert 'planned' in states.values() and 'built' in states.values()


@pytest.mark.parametrize('paper', **names(BUILT))
def test_what_is_built_has_all_its_parts(paper):
  assert not [*lacks(paper)]


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'where': 'contrastive_jax.losses.decouple'}, r'does not import .*; mend `where`'),
    ({'where': 'contrastive_jax.loss.decoupled'}, r'does not import .*; mend `where`'),
    ({'where': 'contrastive_jax.catalogue.PAPERS'}, r'no public class or function'),
    ({'config': ''}, r"its config '' is missing; add configs/methods/NAME.py"),
    ({'config': 'configs/methods/none.py'}, r"its config 'configs/methods/none.py' is missing"),
    (
      {'where': 'contrastive_jax.methods.lift.streamed', 'methods': ('no_test',)},
      r'; add its test',
    ),
    ({'claims': ()}, r'no claim; add experiments/claims/papers/NAME.py'),
  ],
)
def test_what_a_paper_lacks_is_told(fields, message):
  assert re.search(message, '; '.join(lacks(dataclasses.replace(PAPERS[31], **fields))))


def test_a_baseline_needs_no_claim():
  assert BASES['CLIP'].baseline and not BASES['CLIP'].claims
  (message,) = lacks(dataclasses.replace(BASES['CLIP'], baseline=False))
  assert 'CLIP' in message and 'no claim' in message


@pytest.mark.parametrize('name', claim.names())
def test_a_claim_is_named_by_its_paper(name):
  assert not [*misplaced(name, claim.read(name).paper)]


@pytest.mark.parametrize('paper', **names([paper for paper in ALL if paper.claims]))
def test_every_claim_of_a_paper_exists(paper):
  missing = set(paper.claims) - set(claim.names())
  assert not missing, f'add {sorted(missing)} to experiments/claims/papers, or remove the names'
  assert paper.claim == paper.claims[0]


@pytest.mark.parametrize(
  ('name', 'paper', 'message'),
  [
    ('decoupled', 85, 'papers/decoupled.py is of the paper 85, which has no row'),
    ('decoupled', 'DCL', "is of the paper 'DCL', which has no row"),
    ('new', 31, "add 'new' to `claims` of DCL / DCLW"),
    ('decoupled', 12, "add 'decoupled' to `claims` of CoCa"),
  ],
)
def test_a_claim_without_its_row_is_told(name, paper, message):
  (found,) = misplaced(name, paper)
  assert message in found


@pytest.mark.parametrize('paper', **names([paper for paper in BUILT if paper.config]))
def test_a_config_runs_a_method_of_its_paper(paper):
  assert (ROOT / paper.config).is_file()
  recipe = importlib.import_module(paper.config.removesuffix('.py').replace('/', '.'))
  objective = recipe.get_config('smoke').get('objective', ())
  assert not paper.methods or set(paper.methods) & set(objective)


@pytest.fixture(scope='module')
def trained():
  """The methods that the configs train."""
  found = set()
  for path in (ROOT / 'configs').rglob('*.py'):
    recipe = importlib.import_module('.'.join(path.relative_to(ROOT).with_suffix('').parts))
    for variant in recipe.VARIANTS:
      found |= {*recipe.get_config(variant).get('objective', ())}
  return found


@pytest.mark.parametrize('name', sorted(methods.METHODS))
def test_a_method_has_all_its_parts(name, trained):
  assert not [*lacks_of_a_method(name, trained)]


def test_what_a_method_lacks_is_told():
  (message,) = lacks_of_a_method('byolip', set())
  assert 'add configs/methods/byolip.py' in message


def test_every_method_has_one_paper():
  counts = Counter(method for paper in ALL for method in paper.methods)
  assert counts == dict.fromkeys(methods.METHODS, 1), (
    'each name of METHODS belongs in `methods` of one row of contrastive_jax/papers.toml'
  )


def test_a_row_becomes_a_record():
  built = {'where': '"os.path"', 'methods': '["a", "b"]', 'config': '"configs/a.py"'}
  built |= {'claims': '["c", "d"]', 'baseline': 'true'}
  part = {'built': '"A half."', 'methods': '["e"]', 'config': '"configs/e.py"'}
  text = '\n'.join(
    [
      row(),
      row(number='2', name='"B"', **built),
      row(number='3', name='"D"', **part),
      row('bases', number='', name='"C"'),
    ]
  )
  papers, bases = catalogue.parse(text)
  assert (papers[1].title, papers[1].state, papers[1].methods) == ('On A', 'planned', ())
  assert (papers[1].claim, papers[1].claims) == ('', ())
  assert (papers[2].state, papers[2].methods) == ('built', ('a', 'b'))
  assert (papers[2].claim, papers[2].claims, papers[2].baseline) == ('c', ('c', 'd'), True)
  assert (papers[3].state, papers[3].built) == ('planned', 'A half.')
  assert bases['C'].number is None
  with pytest.raises(dataclasses.FrozenInstanceError):
    papers[1].title = 'On B'


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (row(year='2024'), r"1 A: \['year'\] is unknown; use some of .*'title'"),
    (row('bases'), r"1 A: \['number'\] is unknown"),
    (row('others'), r"\['others'\] is unknown; use \[\[papers\]\] or \[\[bases\]\]"),
    (row(title='', url=''), r"1 A: \['title', 'url'\] is missing"),
    (row(number=''), r"base A: \['number'\] is missing"),
    (row(number='"1"'), r"1 A: number = '1'; use int"),
    (row(summary='3'), r'1 A: summary = 3; use str'),
    (row(title='""'), r'1 A: title is empty'),
    (row(topic='"art"'), r"1 A: topic = 'art'; use one of .*'views'"),
    (row(grade='"V; P"'), r"1 A: grade = 'V; P'; use one of \('V', 'P', 'U'\)"),
    (row(grade='""'), r"1 A: grade = ''; use one of"),
    (row(url='"arxiv.org"'), r"1 A: url = 'arxiv.org'; use https://"),
    (row(config='"configs/a.py"'), r"1 A: \['config'\] needs where, or built"),
    (row(claims='["a"]', built='"A half."'), r'1 A: claims needs where'),
    (row(baseline='"yes"'), r"1 A: baseline = 'yes'; use bool"),
    (row(where='"a.b"', reason='"No."'), r'1 A: where and reason exclude each other'),
    (row() + '\n' + row(name='"B"'), r'the number 1 occurs twice'),
    (row() + '\n' + row('bases', number=''), r'the name A occurs twice'),
    ('[[papers]', r'Expected'),
  ],
)
def test_a_malformed_row_is_named(text, message):
  with pytest.raises(ValueError, match=message):
    catalogue.parse(text)
