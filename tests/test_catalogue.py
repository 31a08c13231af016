"""The catalogue of papers is complete, and says built of what is there."""

import dataclasses
import importlib
import inspect
import pathlib
import pkgutil
import re
from collections import Counter

import pytest

from contrastive_jax import catalogue, methods
from contrastive_jax.catalogue import BASES, PAPERS

ROOT = pathlib.Path(__file__).parents[1]
ALL = [*PAPERS.values(), *BASES.values()]
BUILT = [paper for paper in ALL if paper.where]
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


def test_states():
  states = {number: paper.state for number, paper in PAPERS.items()}
  assert [number for number, state in states.items() if state == 'not to be built'] == [61]
  assert PAPERS[61].reason
  assert {paper.state for paper in BASES.values()} == {'built'}
  planned = [paper for paper in PAPERS.values() if paper.state == 'planned']
  assert planned
  assert not [paper.name for paper in planned if paper.where or paper.methods or paper.config]


@pytest.mark.parametrize('paper', **names(BUILT))
def test_what_is_built_is_public_and_documented(paper):
  assert not re.search(r'\._', paper.where)
  thing = pkgutil.resolve_name(paper.where)
  assert inspect.isclass(thing) or inspect.isfunction(thing)
  assert thing.__doc__ and thing.__doc__.strip()


@pytest.mark.parametrize('paper', **names([paper for paper in BUILT if paper.config]))
def test_a_config_runs_a_method_of_its_paper(paper):
  assert (ROOT / paper.config).is_file()
  recipe = importlib.import_module(paper.config.removesuffix('.py').replace('/', '.'))
  objective = recipe.get_config('smoke').objective
  assert not paper.methods or set(paper.methods) & set(objective)


def test_every_method_has_one_paper():
  counts = Counter(method for paper in ALL for method in paper.methods)
  assert counts == dict.fromkeys(methods.METHODS, 1), (
    'each name of METHODS belongs in `methods` of one row of contrastive_jax/papers.toml'
  )


def test_a_row_becomes_a_record():
  built = {'where': '"os.path"', 'methods': '["a", "b"]', 'config': '"configs/a.py"'}
  text = '\n'.join(
    [row(), row(number='2', name='"B"', **built), row('bases', number='', name='"C"')]
  )
  papers, bases = catalogue.parse(text)
  assert (papers[1].title, papers[1].state, papers[1].methods) == ('On A', 'planned', ())
  assert (papers[2].state, papers[2].methods) == ('built', ('a', 'b'))
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
    (row(config='"configs/a.py"'), r"1 A: \['config'\] needs where"),
    (row(where='"a.b"', reason='"No."'), r'1 A: where and reason exclude each other'),
    (row() + '\n' + row(name='"B"'), r'the number 1 occurs twice'),
    (row() + '\n' + row('bases', number=''), r'the name A occurs twice'),
    ('[[papers]', r'Expected'),
  ],
)
def test_a_malformed_row_is_named(text, message):
  with pytest.raises(ValueError, match=message):
    catalogue.parse(text)
