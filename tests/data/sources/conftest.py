import json
import struct

import pytest
from array_record.python.array_record_module import ArrayRecordReader

from contrastive_jax import data
from contrastive_jax.data import emoji
from contrastive_jax.data.sources import array_record, files, parquet, rows, webdataset
from tests.data.sources.writers import FOLDERS, write_folder, write_images
from tests.doubles import slow_but

WRITERS = {
  'arrayrecord': ('array_record', array_record.write),
  'jsonl': ('jsonl', rows.write),
  'parquet': ('parquet', parquet.write),
  'webdataset': ('tar', webdataset.write),
}


@pytest.fixture(scope='session')
def examples():
  """A few of the emoji, with texts, lists and a nested field, whose ids count from 0."""
  source = data.open_source('emoji', 'heldout_style[:24]')
  return [source[i] for i in range(len(source))]


@pytest.fixture
def write(tmp_path):
  """A function that writes examples in a format, `size` a file, and gives the name to open."""

  def write_as(style, examples, size=10):
    ending, write_file = WRITERS[style]
    for number in range(-(-len(examples) // size)):
      part = examples[number * size : (number + 1) * size]
      write_file(str(tmp_path / f'pairs-{number:05}.{ending}'), part)
    return f'{style}:{tmp_path}/pairs-*.{ending}'

  return write_as


@pytest.fixture
def bytes_read(monkeypatch):
  """A list of the numbers of bytes that each read of a file returns."""
  read, sizes = files.read, []

  def count(*arguments):
    sizes.append(len(content := read(*arguments)))
    return content

  monkeypatch.setattr(files, 'read', count)
  return sizes


@pytest.fixture(scope='session')
def prepared_as_tfrecord(tmp_path_factory):
  """The folder of a TFDS data set `pairs`, in the tfrecord format: the smallest emoji split."""
  folder = tmp_path_factory.mktemp('tfds')
  place = folder / 'pairs/1.0.0'
  place.mkdir(parents=True)
  information = json.loads((emoji.PREPARED / 'dataset_info.json').read_text())
  splits = [s for s in information['splits'] if s['name'] == 'heldout_composition']
  information |= {'fileFormat': 'tfrecord', 'name': 'pairs', 'splits': splits}
  (place / 'dataset_info.json').write_text(json.dumps(information))
  (place / 'features.json').write_bytes((emoji.PREPARED / 'features.json').read_bytes())
  (records,) = emoji.PREPARED.glob('*composition*')
  with open(place / 'pairs-heldout_composition.tfrecord-00000-of-00001', 'wb') as file:
    for record in ArrayRecordReader(str(records)).read_all():
      # Checksums are not read, so zeros stand for them.
      file.write(struct.pack('<Q4x', len(record)) + record + bytes(4))
  return folder


FORMS = ['csv', 'emoji', 'karpathy', 'mixture', 'tfrecord', *WRITERS, *FOLDERS]
QUICK = 'emoji', 'mixture', 'parquet', 'webdataset'


@pytest.fixture(params=slow_but(FORMS, *QUICK))
def open_anew(request, examples, write, prepared_as_tfrecord, tmp_path):
  """A function that opens twenty or more examples in one of the forms that a source has."""
  if request.param in WRITERS:
    name, split = write(request.param, examples), 'train'
  elif request.param in FOLDERS:
    name, split = write_folder(request.param, tmp_path, examples), 'train'
  elif request.param == 'karpathy':
    write_images(tmp_path, examples)
    entries = [
      {'filename': f'{i}.png', 'split': 'train', 'sentences': [{'raw': t} for t in example['tags']]}
      for i, example in enumerate(examples)
    ]
    (tmp_path / 'pairs.json').write_text(json.dumps({'images': entries}))
    name, split = f'karpathy:{tmp_path}/pairs.json', 'train'
  elif request.param == 'csv':
    write_images(tmp_path, examples)
    lines = [f'{i}.png,{example["caption"]}\n' for i, example in enumerate(examples)]
    (tmp_path / 'pairs.csv').write_text('image,caption\n' + ''.join(lines))
    name, split = f'csv:{tmp_path}/pairs.csv', 'train[1:]+train[:1]'
  else:
    name, split = {
      'emoji': ('emoji', 'heldout_style[group=food-drink]+heldout_style[group=activities]'),
      'tfrecord': ('pairs', 'heldout_composition[:50]'),
      'mixture': ('emoji*2+pairs*1', 'heldout_composition[:20]'),
    }[request.param]
  return lambda: data.open_source(name, split, str(prepared_as_tfrecord))
