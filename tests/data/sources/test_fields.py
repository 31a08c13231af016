"""Fields are read without images: by selections, classes, captions and tokenizers."""

import io
import itertools
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.evaluation.splits import captions_of

KINDS = ('cat', 'dog', 'cat', 'cow')


def picture(row):
  buffer = io.BytesIO()
  noise = np.random.default_rng(row).integers(0, 255, (48, 48, 3), np.uint8)
  Image.fromarray(noise).save(buffer, 'PNG')
  return buffer.getvalue()


def write_tar(folder, order):
  """A shard whose samples have their files in some order."""
  with tarfile.open(folder / 'train.tar', 'w') as archive:
    for row, kind in enumerate(KINDS):
      fields = json.dumps({'kind': kind}).encode()
      parts = {'png': picture(row), 'txt': f'caption {row}'.encode(), 'json': fields}
      for ending in order:
        member = tarfile.TarInfo(f'{row:03}.{ending}')
        member.size = len(parts[ending])
        archive.addfile(member, io.BytesIO(parts[ending]))
  return f'webdataset:{folder}/train.tar'


def write_table(folder, table):
  rows = [{'image': f'{row}.png', 'caption': f'caption {row}'} for row in range(len(KINDS))]
  for row, kind in zip(rows, KINDS, strict=True):
    row['kind'] = kind
    (folder / row['image']).write_bytes(picture(rows.index(row)))
  if table:
    lines = [','.join(rows[0]), *(','.join(row.values()) for row in rows)]
  else:
    lines = map(json.dumps, rows)
  path = folder / ('train.csv' if table else 'train.jsonl')
  path.write_text('\n'.join(lines) + '\n')
  return f'{path.suffix[1:]}:{path}'


def write_karpathy(folder):
  entries = [
    {'split': 'train', 'filename': f'{row}.png', 'sentences': [{'raw': f'caption {row}'}]}
    for row in range(len(KINDS))
  ]
  for row, entry in enumerate(entries):
    (folder / entry['filename']).write_bytes(picture(row))
  (folder / 'dataset.json').write_text(json.dumps({'images': entries}))
  return f'karpathy:{folder}/dataset.json'


WRITERS = {
  **{
    '-'.join(order): lambda folder, order=order: write_tar(folder, order)
    for order in itertools.permutations(('png', 'txt', 'json'))
  },
  'png-json': lambda folder: write_tar(folder, ('png', 'json')),
  'csv': lambda folder: write_table(folder, True),
  'jsonl': lambda folder: write_table(folder, False),
  'karpathy': write_karpathy,
}


@pytest.mark.parametrize('name', WRITERS)
def test_fields_are_those_of_the_example_without_a_byte_of_its_image(tmp_path, name, bytes_read):
  source = data.open_source(WRITERS[name](tmp_path), 'train')
  whole = [source[row] for row in range(len(source))]
  source.cached = False  # as large data
  source._kept.clear()
  bytes_read.clear()
  for row, example in enumerate(whole):
    image = example.pop('image')
    assert source.fields(row) == example
  # Headers of a tar take a block per file.
  assert sum(bytes_read) < 2_000 * len(whole) < len(image) * len(whole) / 2
  split = name.split('-')[1:2] == ['png']  # the image lies between the texts
  assert len(bytes_read) == len(whole) * (0 if name == 'karpathy' else 2 if split else 1)


@pytest.mark.parametrize('name', ['csv', 'jsonl', 'karpathy'])
def test_images_that_are_gone_still_have_fields(tmp_path, name):
  opened = WRITERS[name](tmp_path)
  for path in tmp_path.glob('*.png'):
    path.unlink()
  source = data.open_source(opened, 'train')
  if name == 'karpathy':
    assert source.values('captions') == [[f'caption {row}'] for row in range(4)]
    return
  assert source.values('kind') == list(KINDS)
  assert captions_of(source, 'caption') == [f'caption {row}' for row in range(4)]
  chosen = data.open_source(opened, 'train[kind=cat]')
  assert chosen.values('caption') == ['caption 0', 'caption 2']
  mixed = data.open_source(f'{opened}*1+{opened}*1', 'train')
  assert mixed.fields(0) == source.fields(0)
  assert 'cannot be read' in source[0]['error']


def test_values_of_images_are_read(tmp_path):
  source = data.open_source(WRITERS['jsonl'](tmp_path), 'train')
  assert source.values('image') == [picture(row) for row in range(4)]
