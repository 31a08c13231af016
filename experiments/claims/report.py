"""The tables, the plot and the pages that show the results."""

import functools

from contrastive_jax import catalogue
from experiments.claims import claim, pages, plot, results, tables

_PATHS = [results.path_of(name) for name in claim.names()]

TABLES = {
  'rule': tables.rule,
  'overview': functools.partial(tables.overview, *_PATHS),
  'details': functools.partial(pages.details, *_PATHS),
  'papers': functools.partial(pages.papers, *_PATHS),
  'bases': functools.partial(pages.bases, *_PATHS),
  **{path.stem: functools.partial(tables.comparisons, path) for path in _PATHS},
}
FILES = {
  claim.FOLDER / 'verdicts.svg': functools.partial(plot.draw, *_PATHS),
  **{pages.path_of(paper): functools.partial(pages.page, paper) for paper in catalogue.built()},
}
