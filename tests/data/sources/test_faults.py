"""What is broken is skipped, counted and named, or stops the run: whatever the format."""

import io
import json
import os
import struct
import tarfile
import zlib

import numpy as np
import pytest
from absl import logging
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data.convert import convert
from contrastive_jax.data.sources import files


def picture(number):
  buffer = io.BytesIO()
  Image.new('RGB', (9, 9), (number % 256, 0, 0)).save(buffer, 'PNG')
  return buffer.getvalue()


def pack(path, samples):
  """A tar of (key, {extension: bytes}) samples."""
  with tarfile.open(path, 'w') as archive:
    for key, parts in samples:
      for extension, content in parts.items():
        member = tarfile.TarInfo(f'{key}.{extension}')
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
  return path


def good(number):
  return f'{number:05}', {'png': picture(number), 'txt': f'caption {number}'.encode()}


def batches(source, **options):
  options = {'batch_size': 50, 'captions': {'caption': 1.0}, 'crop': (0.5, 1.0)} | options
  tokenizer = lambda texts: np.zeros([len(texts), 2], np.int32)  # noqa: E731
  return data.training_batches(source, tokenizer, image_size=8, seed=0, **options)


def bomb():
  """A PNG that says it has 100,000 x 100,000 pixels."""
  header = struct.pack('>4sIIBBBBB', b'IHDR', 100_000, 100_000, 8, 2, 0, 0, 0)
  start = struct.pack('>I', 13) + header + struct.pack('>I', zlib.crc32(header))
  return picture(7)[:8] + start + picture(7)[33:]


FAULTS = {
  'bomb': {'png': bomb(), 'txt': b'a caption'},
  'truncated': {'png': picture(7)[:40], 'txt': b'a caption'},
  'lying': {'png': b'<html>404</html>', 'txt': b'a caption'},
  'empty picture': {'png': b'', 'txt': b'a caption'},
  'empty caption': {'png': picture(7), 'txt': b' \n'},
  'huge caption': {'png': picture(7), 'txt': b'word ' * 100_000},
  'not UTF-8': {'png': picture(7), 'txt': 'café'.encode('latin-1')},
  'half a surrogate pair': {'png': picture(7), 'json': b'{"caption": "\\ud83d"}'},
  'no caption': {'png': picture(7)},
  'no picture': {'txt': b'a caption'},
  'a list': {'png': picture(7), 'json': b'["caption"]'},
  'broken JSON': {'png': picture(7), 'json': b'{"caption": '},
  'a number': {'png': picture(7), 'json': b'{"caption": 7}'},
  'null': {'png': picture(7), 'json': b'{"caption": null}'},
}


@pytest.fixture(scope='module')
def faulty(tmp_path_factory):
  """A shard with each fault once among good examples, the first of all a fault."""
  place = tmp_path_factory.mktemp('faulty') / 'pairs.tar'
  samples = [good(number) for number in range(1500)]
  for step, (fault, parts) in enumerate(FAULTS.items()):
    samples[step * 100] = fault.replace(' ', '_'), parts
  return f'webdataset:{pack(place, samples)}'


def test_every_fault_is_skipped_counted_and_named(faulty, caplog):
  logging.use_absl_handler()
  iterator, skips = batches(data.open_source(faulty, 'train'))
  with caplog.at_level('WARNING'):
    seen = np.concatenate([next(iterator)['id'] for _ in range(30)])
  bad = {step * 100 for step in range(len(FAULTS))}
  assert not bad & set(seen)
  assert {record.args[0] for record in caplog.records if 'skipped' in record.msg} == bad
  assert len(bad) <= skips.skipped < 2 * len(bad)


def test_convert_drops_and_names_them(faulty, tmp_path):
  report = convert(faulty, str(tmp_path / 'target'), shard_size=400)
  assert [number for number, _ in report['skipped']] == [i * 100 for i in range(len(FAULTS))]
  assert report['written'] == 1500 - len(FAULTS)
  kept = data.open_source(report['name'], 'train')
  assert kept.values('caption') == [f'caption {i}' for i in range(1500) if i % 100 or i >= 1400]
  state = json.loads((tmp_path / 'target/train.convert.json').read_text())
  assert [pair for shard in state['shards'] for pair in shard['skipped']] == report['skipped']


def test_over_one_percent_stops_training_and_conversion(tmp_path):
  samples = [good(i) if i % 20 else (f'{i:05}', {'png': b'', 'txt': b'x'}) for i in range(200)]
  name = f'webdataset:{pack(tmp_path / "pairs.tar", samples)}'
  iterator, _ = batches(data.open_source(name, 'train'))
  with pytest.raises(ValueError, match='cannot be used, over 1%'):
    for _ in range(5):
      next(iterator)
  with pytest.raises(ValueError, match='cannot be used, over 1%'):
    convert(name, str(tmp_path / 'target'))
  assert convert(name, str(tmp_path / 'target'), tolerated=0.1)['written'] == 190


def test_evaluation_of_a_bad_example_is_refused(faulty):
  place = 100 * [*FAULTS].index('no caption')
  source = data.open_source(faulty, f'train[{place}:{place + 1}]')
  with pytest.raises(ValueError, match=r'example 0 cannot be used: .*has only'):
    source.values('caption')
  with pytest.raises(ValueError, match='example 0 cannot be evaluated'):
    data.evaluation_images(source, 8)


@pytest.mark.parametrize('cut', [0.2, 0.5, 0.9])
@pytest.mark.parametrize('fine', [-700, -300, 0, 200, 512])
def test_a_truncated_tar_keeps_what_is_before_the_cut(tmp_path, caplog, cut, fine):
  logging.use_absl_handler()
  samples = [good(number) for number in range(20)]
  content = pack(tmp_path / 'pairs.tar', samples).read_bytes()
  end = int(cut * 20) * 2048 + fine  # A sample takes two headers and two blocks.
  (tmp_path / 'pairs.tar').write_bytes(content[:end])
  with caplog.at_level('WARNING'):
    source = data.open_source(f'webdataset:{tmp_path}/pairs.tar', 'train')
  caption = lambda number: len(f'caption {number}')  # noqa: E731
  whole = sum(i * 2048 + 1536 + caption(i) <= end for i in range(20))
  assert source.values('caption') == [f'caption {i}' for i in range(whole)]
  assert any('pairs.tar is cut off' in record.getMessage() for record in caplog.records)


def test_a_whole_tar_says_nothing(tmp_path, caplog):
  pack(tmp_path / 'pairs.tar', map(good, range(3)))
  with caplog.at_level('WARNING'):
    data.open_source(f'webdataset:{tmp_path}/pairs.tar', 'train')
  assert not caplog.records


def test_a_compressed_tar_is_refused(tmp_path):
  with tarfile.open(tmp_path / 'pairs.tar', 'w:gz') as archive:
    archive.addfile(tarfile.TarInfo('a.txt'))
  with pytest.raises(ValueError, match='unpack it'):
    data.open_source(f'webdataset:{tmp_path}/pairs.tar', 'train')


def test_a_shard_lost_while_training_stops_the_run(tmp_path):
  for shard in range(2):
    pack(tmp_path / f'{shard}.tar', (good(100 * shard + i) for i in range(100)))
  iterator, _ = batches(data.open_source(f'webdataset:{tmp_path}/{{0,1}}.tar', 'train'))
  (tmp_path / '1.tar').unlink()
  with pytest.raises(ValueError, match=r'cannot be used, over 1%.*1\.tar'):
    for _ in range(5):
      next(iterator)


def test_folders_dots_and_capitals_in_names(tmp_path):
  """A key is the path up to the first dot of the file's name, as in webdataset."""
  samples = [
    ('a.b/1', {'PNG': picture(1), 'txt': b'one', 'cls': b'7'}),
    ('a/1', {'jpg': picture(2), 'seg.png': b'a mask', 'json': b'{"caption": "two", "id": "x"}'}),
    ('a/.hidden', {'png': b'', 'txt': b''}),
  ]
  source = data.open_source(f'webdataset:{pack(tmp_path / "pairs.tar", samples)}', 'train')
  assert [source[i] for i in range(len(source))] == [
    {'id': 0, 'image': picture(1), 'caption': 'one'},
    {'id': 1, 'image': picture(2), 'caption': 'two'},
  ]


def rows_of(tmp_path, name, text, newline=''):
  for number in range(3):
    (tmp_path / f'{number}.png').write_bytes(picture(number))
  (tmp_path / name).write_text(text, encoding='utf-8', newline=newline)
  source = data.open_source(f'{name.split(".")[-1]}:{tmp_path / name}', 'train')
  return [source[i] for i in range(len(source))]


@pytest.mark.parametrize('newline', ['\n', '\r\n'])
@pytest.mark.parametrize('mark', ['', '\ufeff'])
def test_csv_has_quotes_lines_and_tabs(tmp_path, newline, mark):
  expected = ['one, two', 'a "word"\u2028there', f'two{newline}lines']
  text = f'{mark}filepath,title\n0.png,"one, two"\n1.png,"a ""word""\u2028there"\n\n'
  text += '2.png,"two\nlines"\n'
  read = rows_of(tmp_path, 'pairs.csv', text, newline)
  assert [example['caption'] for example in read] == expected
  assert [example['image'] for example in read] == [picture(i) for i in range(3)]
  tabs = rows_of(tmp_path, 'tabs.csv', 'title\tfilepath\twidth\na, b\t1.png\t9')
  assert tabs == [{'id': 0, 'image': picture(1), 'caption': 'a, b', 'width': '9'}]


def test_a_bad_row_is_one_bad_example(tmp_path):
  whole = tmp_path / '2.png'
  lines = [
    '{"file_name": "0.png", "text": "zero"}',
    '',
    '{"file_name": "gone.png", "text": "one"}',
    '{"file_name": "1.png", "text": ',
    '{"text": "three"}',
    '["0.png", "four"]',
    json.dumps({'file_name': str(whole), 'text': 'five'}),
  ]
  read = rows_of(tmp_path, 'pairs.jsonl', '\n'.join(lines))
  assert [example.get('caption') for example in read] == ['zero', None, None, None, None, 'five']
  assert [example['id'] for example in read if 'error' in example] == [1, 2, 3, 4]
  assert read[5]['image'] == picture(2)
  table = rows_of(tmp_path, 'pairs.csv', 'image,caption\n0.png,a,b\n1.png\n2.png,c\n')
  assert ['error' in example for example in table] == [True, True, False]


def test_what_is_no_file_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe.png')
  images = ['0.png', '/dev/zero', 'pipe.png', str(tmp_path)]
  lines = [json.dumps({'file_name': image, 'text': 'a text'}) for image in images]
  read = rows_of(tmp_path, 'pairs.jsonl', '\n'.join(lines))
  assert ['error' in example for example in read] == [False, True, True, True]


def test_a_huge_cell_is_one_bad_example(tmp_path):
  read = rows_of(tmp_path, 'pairs.csv', f'image,caption\n0.png,{"x" * 200_000}\n1.png,one\n')
  assert [len(example['caption']) for example in read] == [200_000, 3]


def test_what_is_written_is_whole_or_not_there(tmp_path):
  with pytest.raises(RuntimeError), files.atomic_write(str(tmp_path / 'a')) as partial:
    open(partial, 'w').close()
    raise RuntimeError
  assert not [*tmp_path.iterdir()]
