"""The table of results.json."""

import collections
import functools
import pathlib

from experiments import records

RESULTS = pathlib.Path(__file__).with_name('results.json')
# Families of timm's networks by a part of their names.
_FAMILIES = {
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


TABLES = {'configs': functools.partial(configs, RESULTS)}
