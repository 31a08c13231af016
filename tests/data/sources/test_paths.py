"""A path is the file of that name, whatever letters it has, before it is anything else."""

import io
import json
import zipfile

import fsspec
import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data.sources import files

FOLDERS = ('data[1]', 'std::set', 'my run {a,b}', 'a#b%20c', '{m}', '12:30', 'simplecache::x')


@pytest.mark.parametrize('folder', FOLDERS)
@pytest.mark.parametrize('style', ['webdataset', 'arrayrecord', 'jsonl'])
def test_files_in_a_folder_of_any_name_are_found(tmp_path, write, examples, folder, style):
  name = write(style, examples)
  place = tmp_path / folder
  place.mkdir()
  for path in tmp_path.glob('pairs-*'):
    path.rename(place / path.name)
  ending = name.rpartition('.')[2]
  for pattern in ('pairs-00000', 'pairs-*') if '{a,b}' not in folder else ('pairs-00000',):
    source = data.open_source(f'{style}:{place}/{pattern}.{ending}', 'train')
    assert source.values('caption')[:10] == [e['caption'] for e in examples[:10]]


def test_images_of_any_name_are_read_by_rows(tmp_path):
  names = [
    'std::vector.png',
    'simplecache::r.png',
    'file:n.png',
    'c?d*.png',
    '[l].png',
    '{a,b}.png',
  ]
  pictures = []
  for number, name in enumerate(names):
    buffer = io.BytesIO()
    Image.new('RGB', (9, 9), (number, 0, 0)).save(buffer, 'PNG')
    (tmp_path / name).write_bytes(buffer.getvalue())
    pictures.append(buffer.getvalue())
  rows = [json.dumps({'image': name, 'caption': 'a text'}) for name in names]
  (tmp_path / 'train.jsonl').write_text('\n'.join(rows))
  source = data.open_source(f'jsonl:{tmp_path}/train.jsonl', 'train')
  assert source.values('image') == pictures


@pytest.mark.parametrize('style', ['webdataset', 'jsonl', 'csv', 'arrayrecord', 'karpathy'])
@pytest.mark.parametrize(
  'pattern',
  [
    '{0}/one.x::{0}/two.x',
    '{0}/*.x::{0}/*.x',
    '{0}/{{one,two}}.x::{0}/one.x',
    'memory://a::s3://b',
  ],
)
def test_paths_joined_as_open_clip_joins_them_are_refused(tmp_path, style, pattern):
  for name in ('one.x', 'two.x'):
    (tmp_path / name).write_bytes(b'')
  name = f'{style}:{pattern.format(tmp_path)}'
  with pytest.raises(ValueError, match=r"'::' joins no paths here: .*FORMAT:A\*0\.5\+FORMAT:B"):
    data.open_source(name, 'train')


def test_chains_of_fsspec_are_paths(tmp_path):
  with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
    archive.writestr('in/x.txt', 'zipped')
  fsspec.filesystem('memory').pipe('/chains/x.txt', b'kept')
  for path, content in (
    (f'zip://in/x.txt::{tmp_path}/a.zip', b'zipped'),
    ('filecache::memory://chains/x.txt', b'kept'),
  ):
    assert files.find(path) == [path] and files.read(path) == content
  with pytest.raises(ValueError, match='has a wildcard in a chain of protocols; use braces'):
    files.find('filecache::memory://chains/*.txt')
