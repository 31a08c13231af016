"""A claim as data: what a paper says, and the comparison that measures it."""

import dataclasses
import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

FOLDER = pathlib.Path(__file__).parent

# Recall at 1 on the drawings of an unseen vendor: the mean of both directions.
RECALL = ('heldout_style/image_to_text_recall@1', 'heldout_style/text_to_image_recall@1')


@dataclasses.dataclass(frozen=True)
class Arm:
  """A config of configs/claims.py, with overrides.

  Attributes:
    method: name of the config of the method, in configs/ or configs/methods/.
    fields: overrides by path below `config`; '{folder}' is the one that `Claim.prepare` wrote to.
    label: name of the arm; '' for the method and the overrides.
  """

  method: str = 'clip'
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  label: str = ''

  def __str__(self) -> str:
    """The name of the arm."""
    fields = (f'{path.rpartition(".")[2]}={value}' for path, value in self.fields.items())
    return self.label or ' '.join([self.method, *fields])


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two arms and what decides between them.

  Attributes:
    method: the arm that the claim is about.
    baseline: the arm that it is compared with.
    says: what is compared, in a line of a table.
    delta: δ, the smallest difference that matters, in the unit of the metric.
    metrics: names in results.json, whose mean is compared.
    lower_is_better: of the metrics.
    seeds: pairs of runs.
  """

  method: Arm
  baseline: Arm = Arm()
  says: str = ''
  delta: float = 0.01
  metrics: tuple[str, ...] = RECALL
  lower_is_better: bool = False
  seeds: int = 5


@dataclasses.dataclass(frozen=True)
class Claim:
  """The comparisons that measure what a paper says of a method, its `abstract` in the catalogue.

  Attributes:
    method: what the claim is about, as tables name it.
    paper: number in `catalogue.PAPERS`, or name in `catalogue.BASES`.
    primary: the comparison that the verdict is of.
    secondary: further comparisons, by name; they have no verdict, and with one pair of runs no
      interval.
    family: name of the set of claims over which false discoveries are controlled. It is complete
      once it is measured: later claims have a family of their own.
    tuning: how the settings of all arms were chosen.
    notes: what a reader should know of the comparison.
    prepare: writes the files that its runs need into a folder.
  """

  method: str
  paper: int | str
  primary: Comparison
  family: str
  secondary: Mapping[str, Comparison] = dataclasses.field(default_factory=dict)
  tuning: str = 'none: the values of the config, for both arms'
  notes: str = ''
  prepare: Callable[[pathlib.Path], None] = lambda folder: None

  def comparisons(self) -> dict[str, Comparison]:
    """All comparisons by name, the primary first."""
    return {'primary': self.primary, **self.secondary}

  def runs(self) -> list[tuple[Arm, int]]:
    """The runs of all comparisons: arms and seeds, some of them twice."""
    return [
      (arm, seed)
      for comparison in self.comparisons().values()
      for arm in (comparison.baseline, comparison.method)
      for seed in range(comparison.seeds)
    ]


# CLIP as the family `objectives` measures it, by arithmetic and hard pairs too.
EVALUATED = {
  'evaluation.splits': ('heldout_style', 'heldout_composition', 'openmoji[skin_tone!=]'),
  'evaluation.arithmetic': ('vendor',),
  'evaluation.pairs': ('vendor', 'concept'),
  'evaluation.partners': 'train[vendor=noto|twemoji,skin_tone!=]+openmoji[skin_tone!=]',
}
CLIP = Arm('clip', EVALUATED, 'clip, by all protocols')
LONGER = Arm('clip', EVALUATED | {'total_steps': 1200}, 'clip, three times the steps')


def with_three_views(
  method: str, clip: Arm = CLIP, longer: Arm = LONGER
) -> dict[str, Comparison | dict[str, Comparison]]:
  """The comparisons with CLIP of a method that sees three views of each image."""
  says = 'CLIP with three times the steps, for equal views seen'
  return {
    'primary': Comparison(Arm(method), clip, 'equal steps', seeds=3),
    'secondary': {'equal_views': Comparison(Arm(method), longer, says, seeds=3)},
  }


def names() -> list[str]:
  """The names of all claims."""
  return sorted(path.stem for path in (FOLDER / 'papers').glob('*.py'))


def read(name: str) -> Claim:
  """The claim of experiments/claims/papers/NAME.py.

  Raises:
    ValueError: if there is no such claim.
  """
  if name not in names():
    raise ValueError(f'experiments/claims/papers has no {name}.py; use one of {names()}')
  return importlib.import_module(f'experiments.claims.papers.{name}').CLAIM


def families() -> dict[str, Sequence[str]]:
  """The names of the claims of each family."""
  found: dict[str, list[str]] = {}
  for name in names():
    found.setdefault(read(name).family, []).append(name)
  return found


def metrics() -> list[str]:
  """The metrics of all claims, some of them twice."""
  comparisons = [each for name in names() for each in read(name).comparisons().values()]
  return [metric for comparison in comparisons for metric in comparison.metrics]
