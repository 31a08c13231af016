"""The page that a run leaves behind: figures, curves, retrievals and mistakes in one HTML file.

The page asks nothing of the network. Pictures are data URIs, curves are inline SVG, and a content
security policy forbids the rest but the one script that searches. This module decides what is
shown, `page/report.html` how it looks.
"""

import base64
import functools
import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe
import numpy as np
from PIL import Image

from contrastive_jax.evaluation.embedded import Retrieved
from contrastive_jax.report import curves, embedding_map, examples, formatting, plots, search

HEADLINES = 6

_MEANINGS = {
  'alignment': 'The mean squared distance of a picture and its caption, from 0 to 4.',
  'uniformity': 'How evenly the embeddings cover the sphere: 0 where all coincide, −4 where all '
  'are orthogonal.',
  'modality_gap': 'The distance of the mean picture and the mean caption.',
  'separability': 'How often a linear classifier tells pictures from captions that it has not '
  'seen: in half the cases where they mix, in all where a plane parts them.',
  'effective_rank': 'The number of directions in use: exp of the entropy of the centred '
  'embeddings’ singular values.',
  'collapsed_dimensions': 'The number of directions with less than a thousandth of the mean '
  'variance; N embeddings leave all but N − 1 directions empty.',
  'hard_negative_share': 'How much of the gradient that pushes captions away from a picture falls '
  'to the nearest 1% of them, at the model’s temperature.',
  'tolerance': 'The mean cosine of two pictures of one class.',
}
_PICTURE_SIZE = 128  # pixels: twice the largest size at which the page shows a picture
_PAGE = pathlib.Path(__file__).parent / 'templates'


def write(
  path: str | pathlib.Path,
  *,
  title: str,
  summary: Mapping[str, Any],
  results: Mapping[str, float],
  metrics: Sequence[Mapping[str, float]],
  splits: Sequence[Retrieved],
) -> None:
  """Writes the report of a run as one self-contained HTML file.

  The examples on the page are drawn with a fixed seed, before any score is known.

  Args:
    path: the file to write.
    title: the run's name.
    summary: facts about the run, by name, in the order in which to show them.
    results: the final evaluation, numbers by '<split>/<measure>'. Recalls and accuracies are
      fractions and shown as percent; a name ending in '@k' or '_top<k>' is one column of its
      measure's row; names of any other form are shown as they are.
    metrics: the lines of metrics.jsonl: 'step', and what was measured at it. May be empty.
    splits: the splits from which to show examples. May be empty.
  """
  splits = [split for split in splits if len(split.captions)]
  scales = [line['train/scale'] for line in metrics if 'train/scale' in line]
  shown = [
    examples.exhibits(split)
    | {
      'space': embedding_map.exhibit(split, scales[-1] if scales else None),
      'search': search.stored(split, len(splits)),
    }
    for split in splits
  ]
  page = render(
    'report.html',
    script='search.js' if splits else None,
    title=title,
    summary=summary,
    headlines=_headlines(results, splits),
    tables=_tables(results, splits),
    meanings=_meanings(results),
    panels=curves.panels(metrics),
    splits=shown,
    gradient=examples.gradient(),
    seed=examples.SEED,
    points=plots.POINTS,
  )
  pathlib.Path(path).write_text(page, encoding='utf-8')


def render(template: str, *, script: str | None = None, **shown: Any) -> str:
  """A page of the folder `page`, in which every text is escaped.

  Args:
    template: its file.
    script: the file of the one script that the page may run; None for no script at all.
    **shown: what the template shows.
  """
  code = (_PAGE / script).read_text(encoding='utf-8') if script else ''
  digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
  return (
    _environment()
    .get_template(template)
    .render(
      style=markupsafe.Markup((_PAGE / 'style.css').read_text(encoding='utf-8')),
      script=markupsafe.Markup(code),
      script_source=f"'sha256-{digest}'" if script else "'none'",
      **shown,
    )
  )


@functools.cache
def _environment() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_PAGE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters.update(label=formatting.label, decimal=_decimal, picture=picture)
  return environment


def picture(image: np.ndarray) -> str:
  """A [S, S, 3] uint8 image as a data URI."""
  thumbnail = Image.fromarray(image)
  thumbnail.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE))
  return search.data_uri(thumbnail, quality=88)


def _decimal(value: float) -> str:
  return f'{value:.2f}'.replace('-', '−')


def _headlines(results, splits) -> list[dict]:
  """The results at cut-off 1; for a recall also a guess's, one in as many as there are captions."""
  chances = {split.name: f'{100 / len(set(split.captions)):.2g}%' for split in splits}
  first = [formatting.figure(*result) for result in results.items()]
  return [
    {'figure': figure, 'chance': chances.get(figure.group) if 'recall' in figure.measure else None}
    for figure in first
    if figure.cutoff == 1 and formatting.is_fraction(figure.name)
  ][:HEADLINES]


def _meanings(results) -> dict[str, str]:
  """What the measures of the space among the results say, by measure."""
  found = [formatting.figure(*result) for result in results.items()]
  measures = {(figure.modality or (figure.measure,))[0] for figure in found}
  return {
    name: meaning
    for name, meaning in _MEANINGS.items()
    if any(re.fullmatch(f'{name}(_.+)?', measure) for measure in measures)
  }


def _tables(results, splits) -> list[dict]:
  """One table a split: a row a measure, a column a cut-off or modality; and the other measures."""
  sizes = {split.name: (len(split.captions), len(set(split.captions))) for split in splits}
  tables = {}
  for figure in (formatting.figure(*result) for result in results.items()):
    group = figure.group
    table = tables.setdefault(
      group,
      {'group': group, 'sizes': sizes.get(group), 'cutoffs': set()}
      | {kind: {} for kind in ('rows', 'modal', 'others')},
    )
    if figure.cutoff is not None:
      table['cutoffs'].add(figure.cutoff)
      table['rows'].setdefault(figure.measure, {})[figure.cutoff] = figure
    elif figure.modality:
      measure, modality = figure.modality
      table['modal'].setdefault(measure, {})[modality] = figure
    else:
      table['others'][figure.measure] = figure
  return [table | {'cutoffs': sorted(table['cutoffs'])} for table in tables.values()]
