"""The report of a run: metrics, curves, retrievals and mistakes in one HTML file.

The page loads nothing from the network: images are data URIs, curves are inline SVG, and a content
security policy forbids everything else except the script of the search box. This module collects
the content, and `templates/report.html` lays it out.
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
from etils import epath
from PIL import Image

from contrastive_jax.evaluation.embedded import EmbeddedSplit
from contrastive_jax.report import curves, embedding_map, examples, formatting, plots, search

HEADLINES = 6

_MEANINGS = {
  'alignment': 'Mean squared distance of an image and its caption, from 0 to 4.',
  'uniformity': 'How evenly the embeddings cover the sphere: 0 if all are equal, −4 if all are '
  'orthogonal.',
  'modality_gap': 'Distance of the mean image embedding and the mean caption embedding.',
  'separability': 'Accuracy of a linear classifier of the modality on held-out embeddings: 50% if '
  'images and captions mix, 100% if a plane separates them.',
  'effective_rank': 'Number of directions in use: exp of the entropy of the singular values of the '
  'centered embeddings.',
  'collapsed_dimensions': 'Number of directions with less than a thousandth of the mean '
  'variance; N embeddings leave all but N − 1 directions empty.',
  'hard_negative_share': 'Share of the nearest 1% of captions in the gradient that repels captions '
  'from an image, at the model’s temperature.',
  'tolerance': 'Mean cosine similarity of two images of one class.',
}
_THUMBNAIL_SIZE = 128  # pixels, twice the largest size at which the page shows an image
_PAGE = pathlib.Path(__file__).parent / 'templates'


def write(
  path: str | pathlib.Path,
  *,
  title: str,
  summary: Mapping[str, Any],
  results: Mapping[str, float],
  metrics: Sequence[Mapping[str, float]],
  splits: Sequence[EmbeddedSplit],
) -> None:
  """Writes the report of a run as one self-contained HTML file.

  Examples are drawn with a fixed seed, independently of any score.

  Args:
    path: the file to write.
    title: the run's name.
    summary: facts about the run by name, in display order.
    results: metrics of the final evaluation by '<split>/<measure>'. Recalls and accuracies are
      fractions, shown in percent; a name ending in '@k' or '_top<k>' is one column of its measure's
      row; other names are shown verbatim.
    metrics: the lines of metrics.jsonl, each with its 'step'. May be empty.
    splits: the splits from which to show examples. May be empty.
  """
  splits = [split for split in splits if len(split.captions)]
  scales = [line['train/scale'] for line in metrics if 'train/scale' in line]
  shown = [
    examples.collect(split)
    | {
      'space': embedding_map.plot_space(split, scales[-1] if scales else None),
      'search': search.build_index(split, len(splits)) if split.images is not None else None,
    }
    for split in splits
  ]
  has_search = any(split['search'] for split in shown)
  page = render(
    'report.html',
    script='search.js' if has_search else None,
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
  epath.Path(path).write_text(page, encoding='utf-8')  # of a bucket too


def render(template: str, *, script: str | None = None, **shown: Any) -> str:
  """Renders a page from a template; all text is escaped.

  Args:
    template: file name of the template.
    script: file name of the only script that the page may run; None for no script.
    **shown: variables of the template.
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
  environment.filters.update(label=formatting.label, decimal=_decimal, thumbnail=thumbnail)
  return environment


def thumbnail(image: np.ndarray) -> str:
  """Encodes an image [S, S, 3] uint8 as a data URI of at most 128 pixels."""
  resized = Image.fromarray(image)
  resized.thumbnail((_THUMBNAIL_SIZE, _THUMBNAIL_SIZE))
  return search.data_uri(resized, quality=88)


def _decimal(value: float) -> str:
  return f'{value:.2f}'.replace('-', '−')


def _headlines(results, splits) -> list[dict]:
  """Returns the results at cutoff 1, and for recalls the chance level."""
  chances = {split.name: f'{100 / len(set(split.captions)):.2g}%' for split in splits}
  first = [formatting.parse_metric(*result) for result in results.items()]
  return [
    {'metric': metric, 'chance': chances.get(metric.group) if 'recall' in metric.measure else None}
    for metric in first
    if metric.cutoff == 1 and formatting.is_fraction(metric.name)
  ][:HEADLINES]


def _meanings(results) -> dict[str, str]:
  """Returns the explanations of the diagnostics among the results, by measure."""
  found = [formatting.parse_metric(*result) for result in results.items()]
  measures = {(metric.modality or (metric.measure,))[0] for metric in found}
  words = {}
  if any(metric.modality and metric.modality[1] == 'first' for metric in found):
    words = {'picture': 'first text', 'caption': 'second text'}

  def reword(meaning):
    return functools.reduce(lambda text, word: text.replace(*word), words.items(), meaning)

  return {
    name: reword(meaning)
    for name, meaning in _MEANINGS.items()
    if any(re.fullmatch(f'{name}(_.+)?', measure) for measure in measures)
  }


def _tables(results, splits) -> list[dict]:
  """Returns a table per split: measures by cutoff or modality, and the other measures."""
  sizes = {split.name: (len(split.captions), len(set(split.captions))) for split in splits}
  tables = {}
  for metric in (formatting.parse_metric(*result) for result in results.items()):
    group = metric.group
    table = tables.setdefault(
      group,
      {'group': group, 'sizes': sizes.get(group), 'cutoffs': set()}
      | {kind: {} for kind in ('rows', 'modal', 'others')},
    )
    if metric.cutoff is not None:
      table['cutoffs'].add(metric.cutoff)
      table['rows'].setdefault(metric.measure, {})[metric.cutoff] = metric
    elif metric.modality:
      measure, modality = metric.modality
      table['modal'].setdefault(measure, {})[modality] = metric
    else:
      table['others'][metric.measure] = metric
  return [
    table
    | {
      'cutoffs': sorted(table['cutoffs']),
      'modalities': sorted({side for row in table['modal'].values() for side in row}),
    }
    for table in tables.values()
  ]
