"""The papers that the methods come from, read from `papers.toml`.

>>> PAPERS[26].name, PAPERS[26].state, PAPERS[26].where
('iSogCLR', 'built', 'contrastive_jax.methods.isogclr.ISogClr')
>>> BASES['CLIP'].methods
('info_nce',)
"""

import dataclasses
import importlib.resources
import tomllib
from collections.abc import Mapping
from typing import Any

TOPICS = (
  'image-text',
  'views',
  'labels',
  'pixels',
  'text retrieval',
  'towers',
  'compression',
  'search',
  'graphs',
)
GRADES = ('V', 'P', 'U')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paper:
  """A paper, and where its method is.

  Attributes:
    name: short name of the method.
    title: of the paper.
    url: its address.
    topic: one of `TOPICS`.
    summary: what it is, in a sentence.
    grade: how the formula was checked: 'V' read line by line in a public source, 'P' in part, 'U'
      our reading; '' for a paper that will not be built.
    checked: what the grade covers, and what is less sure; '' for all of it.
    abstract: the claim, quoted from the abstract; '' for none.
    number: in `PAPERS`; None in `BASES`.
    where: dotted name of the class or function whose docstring has the formula; '' unless built.
      What is built has a config, a test, and a claim or `baseline`.
    built: what part is built, also of a planned paper; '' for all of it, or for none.
    methods: names in `config.objective`.
    config: path of a config that runs it, from the root of the repository; '' for none.
    claims: names of its claims in experiments/claims, the main one first.
    baseline: whether it is what others are compared with, and needs no claim.
    reason: why it will not be built; '' for any other paper.
  """

  name: str
  title: str
  url: str
  topic: str
  summary: str
  grade: str
  checked: str = ''
  abstract: str = ''
  number: int | None = None
  where: str = ''
  built: str = ''
  methods: tuple[str, ...] = ()
  config: str = ''
  claims: tuple[str, ...] = ()
  baseline: bool = False
  reason: str = ''

  @property
  def state(self) -> str:
    """'built', 'planned' or 'not to be built'."""
    return 'built' if self.where else 'not to be built' if self.reason else 'planned'

  @property
  def claim(self) -> str:
    """The first of `claims`; '' for none."""
    return self.claims[0] if self.claims else ''


_FIELDS = {field.name: field for field in dataclasses.fields(Paper)}
_REQUIRED = [name for name, field in _FIELDS.items() if field.default is dataclasses.MISSING]
_OF_A_PART = ('methods', 'config')
_TYPES = {'number': int, 'methods': list, 'claims': list, 'baseline': bool}


def parse(text: str) -> tuple[dict[int, Paper], dict[str, Paper]]:
  """Returns the papers by number, and those outside of the list by name.

  Args:
    text: TOML, with a table `[[papers]]` or `[[bases]]` per paper, whose keys are the fields of
      `Paper`.

  Raises:
    ValueError: if a field is unknown, missing or out of range, or if a number or a name occurs
      twice.
  """
  tables = tomllib.loads(text)
  if unknown := tables.keys() - {'papers', 'bases'}:
    raise ValueError(f'papers.toml: {sorted(unknown)} is unknown; use [[papers]] or [[bases]]')
  papers = _index('number', [_paper(table, ['number']) for table in tables.get('papers', [])])
  bases = _index('name', [_paper(table, []) for table in tables.get('bases', [])])
  _index('name', [*papers.values(), *bases.values()])
  return papers, bases


def _paper(table: Mapping[str, Any], more: list[str]) -> Paper:
  """The record of a row, whose required fields are `_REQUIRED` and `more`."""
  row = f'papers.toml, {table.get("number", "base")} {table.get("name", "without a name")}'
  known = [name for name in _FIELDS if name != 'number' or more]
  if unknown := sorted(table.keys() - set(known)):
    raise ValueError(f'{row}: {unknown} is unknown; use some of {known}')
  if missing := [name for name in (*_REQUIRED, *more) if name not in table]:
    raise ValueError(f'{row}: {missing} is missing')
  for name, value in table.items():
    kind = _TYPES.get(name, str)
    if not isinstance(value, kind):
      raise ValueError(f'{row}: {name} = {value!r}; use {kind.__name__}')
    if not value and name in _REQUIRED and name != 'grade':
      raise ValueError(f'{row}: {name} is empty')
  lists = {name: tuple(table.get(name, ())) for name in ('methods', 'claims')}
  paper = Paper(**{**table, **lists})
  if paper.topic not in TOPICS:
    raise ValueError(f'{row}: topic = {paper.topic!r}; use one of {TOPICS}')
  if paper.grade not in GRADES and (paper.grade or not paper.reason):
    raise ValueError(f'{row}: grade = {paper.grade!r}; use one of {GRADES}')
  if not paper.url.startswith('https://'):
    raise ValueError(f'{row}: url = {paper.url!r}; use https://')
  if paper.where and paper.reason:
    raise ValueError(f'{row}: where and reason exclude each other')
  if paper.claims and not paper.where:
    raise ValueError(f'{row}: claims needs where, the dotted name of what is built')
  given = [name for name in _OF_A_PART if getattr(paper, name)]
  if given and not (paper.where or paper.built):
    raise ValueError(f'{row}: {given} needs where, or built to say which part of it is built')
  return paper


def _index(field: str, papers: list[Paper]) -> dict[Any, Paper]:
  found = {}
  for paper in papers:
    if (key := getattr(paper, field)) in found:
      raise ValueError(f'papers.toml: the {field} {key} occurs twice')
    found[key] = paper
  return found


PAPERS, BASES = parse(
  (importlib.resources.files(__package__) / 'papers.toml').read_text(encoding='utf-8')
)


def find(key: int | str) -> Paper:
  """The paper of a number, or the base of a name.

  Raises:
    KeyError: if there is none.
  """
  return PAPERS[key] if isinstance(key, int) else BASES[key]


def built() -> list[Paper]:
  """The papers that are built, numbered ones first."""
  return [paper for paper in (*PAPERS.values(), *BASES.values()) if paper.state == 'built']
