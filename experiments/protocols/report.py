"""The tables of results.json."""

import functools
import pathlib
import re

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')

# Metrics of the README; results.json has subgroups, languages and other cutoffs too.
SHOWN = re.compile(r'(?!.*(subgroup|names)_).*(@1|accuracy|per_class_recall|exact_match|cider)')
NAMES = {
  'clip-default': 'CLIP',
  'clip-info_nce': 'InfoNCE alone',
  'siglip-default': 'SigLIP',
  'coca-default': 'CoCa',
}
# The table of README.md: (row, metrics, chance).
OVERVIEW = (
  (
    '**style of an unseen vendor**, 1,599 concepts: image to text, recall@1',
    ['heldout_style/image_to_text_recall@1'],
    '0.06%',
  ),
  ('text to image, recall@1', ['heldout_style/text_to_image_recall@1'], '0.06%'),
  ('zero-shot, 9 groups', ['heldout_style/zero_shot_group_accuracy@1'], '11.1%'),
  ('k-NN (k = 20)', ['heldout_style/group_neighbours_accuracy'], ''),
  ('linear probe', ['heldout_style/group_linear_probe_accuracy'], ''),
  ('16-shot', ['heldout_style/group_16_shot_accuracy'], ''),
  ('captions, exact match', ['heldout_style/caption_exact_match'], ''),
  (
    '**unseen combinations of role and skin tone**, 322: image to text, recall@1',
    ['heldout_composition/image_to_text_recall@1'],
    '0.3%',
  ),
  ('text to image, recall@1', ['heldout_composition/text_to_image_recall@1'], '0.3%'),
  (
    'Winoground-style pairs (skin tone): text, image, group score',
    [f'heldout_composition/pairs_{score}_accuracy' for score in ('text', 'image', 'group')],
    '25%, 25%, 16.7%',
  ),
  ('captions, exact match', ['heldout_composition/caption_exact_match'], ''),
  (
    "**Tux Paint's stamps**, 112 images, 98 names: image to text, recall@1",
    ['stamps/image_to_text_recall@1'],
    '1.0%',
  ),
  ('text to image, recall@1', ['stamps/text_to_image_recall@1'], '1.0%'),
)


def protocols(path: pathlib.Path) -> str:
  """Returns a row per metric and a column per run."""
  found = records.rows(path)
  runs = {name: found[name] for name in (*NAMES, *found) if name in found}
  metrics = dict.fromkeys(name for run in runs.values() for name in run if SHOWN.fullmatch(name))
  rows = ([name, *(_cell(run, name) for run in runs.values())] for name in metrics)
  header = ['', *(NAMES.get(name, name) for name in runs)]
  return records.markdown('l' + 'r' * len(runs), header, rows)


def overview(path: pathlib.Path) -> str:
  """Returns the main metrics of the default runs, beside chance."""
  runs = records.rows(path)
  rows = []
  for row, metrics, chance in OVERVIEW:
    cells = ([_cell(runs[run], metric) for metric in metrics] for run in NAMES)
    rows.append([row, *map(', '.join, cells), chance])
  return records.markdown('l' + 'r' * (len(NAMES) + 1), ['', *NAMES.values(), 'chance'], rows)


def _cell(run: dict[str, float], metric: str) -> str:
  if metric not in run:
    return ''
  return f'{run[metric]:.2f}' if metric.endswith('cider') else f'{run[metric]:.1%}'


TABLES = {
  'protocols': functools.partial(protocols, RESULTS),
  'overview': functools.partial(overview, RESULTS),
}
