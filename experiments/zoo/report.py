"""The tables of results.json."""

import collections
import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')
# Families of timm's networks by a part of their names.
_FAMILIES = {
  'naflexvit': "timm's NaFlexVit",
  '_siglip_': "timm's SigLIP and SigLIP 2",
  '_pe_core_': "timm's PE-Core",
  'eva': "timm's EVA01 and EVA02",
  'fastvit': "timm's FastViT",
  'vitamin': "timm's ViTamin",
  'convnext': "timm's ConvNeXt",
}


def _image(name: str) -> str:
  own = f"open_clip's {name}"
  timm = next((family for part, family in _FAMILIES.items() if part in name), f"timm's {name}")
  return own if name in ('ViT', 'ResNet') else timm


def _reason(error: str) -> str:
  """The entry that is not supported, without a long value, and why."""
  entry, why = error.split(' is not supported', 1)
  entry = entry if len(entry) < 80 else entry.partition(' = ')[0]
  return entry if why.startswith(';') else f'{entry}{why}'


def _grouped(values: dict[str, str]) -> list[list[str]]:
  """Rows of a value and the names that have it."""
  groups = collections.defaultdict(list)
  for name, value in values.items():
    groups[value].append(name)
  return [[value, ', '.join(names)] for value, names in sorted(groups.items())]


def configs(path: pathlib.Path) -> str:
  """Returns the configs by tower: those that are read, and the others."""
  found = records.read(path)['results']['configs']
  groups = collections.defaultdict(lambda: ([], []))
  for name, row in found.items():
    text = '' if row['text'] == 'transformer' else f', {row["text"]}'
    groups[f'{_image(row["image"])}{text}'][bool(row['error'])].append(name)
  rows = [
    [tower, ', '.join(read), ', '.join(others)] for tower, (read, others) in sorted(groups.items())
  ]
  total = sum(not row['error'] for row in found.values())
  return records.markdown('lll', ['towers', f'read: {total} of {len(found)}', 'not read'], rows)


def repository(path: pathlib.Path) -> str:
  """Returns the configs that the release lacks and that are read, by tower."""
  results = records.read(path)['results']
  found = results['repository']
  total = sum(not row['error'] for row in found.values())
  newer = {
    name: _image(row['image'])
    for name, row in found.items()
    if name not in results['configs'] and not row['error']
  }
  return records.markdown('ll', ['towers', f'read: {total} of {len(found)}'], _grouped(newer))


def refused(path: pathlib.Path) -> str:
  """Returns the configs of the repository that are not read, by the entry that is refused."""
  found = records.read(path)['results']['repository']
  reasons = {name: _reason(row['error']) for name, row in found.items() if row['error']}
  return records.markdown('ll', ['entry', 'configs that have it'], _grouped(reasons))


TABLES = {
  table.__name__: functools.partial(table, RESULTS) for table in (configs, repository, refused)
}
