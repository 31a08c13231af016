"""Whatever a tar holds is an example, good or bad, or is counted and named in the log."""

import io
import tarfile

import pytest
from absl import logging
from PIL import Image

from contrastive_jax import data


def picture(number, style='PNG'):
  buffer = io.BytesIO()
  Image.new('RGB', (9, 9), (number % 256, 0, 0)).save(buffer, style)
  return buffer.getvalue()


def pack(path, members, **options):
  """A tar of members by name: bytes, or the name that a link leads to."""
  with tarfile.open(path, 'w', **options) as archive:
    for name, content in members:
      member = tarfile.TarInfo(name)
      if isinstance(content, str):
        member.type, member.linkname = tarfile.LNKTYPE, content
        archive.addfile(member)
      else:
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
  return path


def pairs(*names):
  members = []
  for number, name in enumerate(names):
    members += [(f'{name}.png', picture(number)), (f'{name}.txt', f'caption {number}'.encode())]
  return members


@pytest.fixture
def read(tmp_path, caplog):
  """A function from members to the examples and what the log says."""
  logging.use_absl_handler()

  def read_members(members, **options):
    pack(tmp_path / 'a.tar', members, **options)
    with caplog.at_level('WARNING'):
      source = data.open_source(f'webdataset:{tmp_path}/a.tar', 'train')
      examples = [source[i] for i in range(len(source))]
    return examples, ' '.join(record.getMessage() for record in caplog.records)

  return read_members


def captions(examples):
  return [example.get('caption') for example in examples]


@pytest.mark.parametrize(
  'names',
  [
    ('1', '2.05', '3'),
    ('4.05 track', '4.06 track', 'a.b/4.05 track'),
    ('frame.0', 'frame.1', 'frame.10', 'frame.2'),
  ],
)
def test_a_name_with_dots_is_an_example(names, read):
  examples, told = read(pairs(*names))
  assert captions(examples) == [f'caption {number}' for number in range(len(names))]
  assert [example['image'] for example in examples] == [picture(i) for i in range(len(names))]
  assert not told


def test_a_part_of_an_example_that_is_not_read_is_counted_and_named(read):
  more = [('1.seg.png', b'a mask'), ('1.cls', b'7'), ('1.jpg', picture(5, 'JPEG'))]
  examples, told = read(pairs('0') + pairs('1') + more + pairs('2'))
  assert [example['image'] for example in examples] == [picture(0)] * 3
  assert '3 files are passed over, the first is' in told and 'a.tar: 1.seg.png' in told


def test_files_without_a_key_part_no_example(read):
  """Such as those that macOS puts beside each file."""
  members = [member for pair in pairs('0', '1') for member in ((f'._{pair[0]}', b'x'), pair)]
  examples, told = read([('README', b'x'), *members])
  assert captions(examples) == ['caption 0', 'caption 1']
  assert '5 files are passed over' in told and 'a.tar: README' in told


@pytest.mark.parametrize(
  ('members', 'message'),
  [
    ([('7.cls', b'0'), ('7.mpo', b'x')], r'a\.tar: 7\.cls \(byte 4608\) has no file of a known'),
    ([('7.cls', b'0'), ('7.png', picture(0))], r'7\.png \(byte 5632\) has only .*"label": "cat"'),
    ([('7.png', '0.png'), ('7.txt', b'a link')], r"7\.txt .* has only \['text'\]"),
    ([('7.png', '0.png'), ('7.txt', '0.txt')], r'7\.png .* has no file of a known ending'),
    ([('7.left.png', b'x'), ('7.depth.npy', b'x')], r'7\.left\.png .* has only'),
  ],
)
def test_a_sample_without_an_image_or_text_is_one_bad_example(members, message, read):
  examples, _ = read(pairs('0', '1') + members + pairs('8'))
  assert captions(examples) == ['caption 0', 'caption 1', None, 'caption 0']
  with pytest.raises(AssertionError, match=message):
    raise AssertionError(examples[2]['error'])


def test_files_that_lie_apart_are_bad_examples_that_say_what_helps(read):
  members = pairs('0', '1')
  examples, _ = read(members[::2] + members[1::2])
  assert len(examples) == 4 and all('tar --sort=name' in e['error'] for e in examples)


def test_two_samples_of_one_name_are_two_examples(read):
  """As in open_clip, where webdataset raises."""
  members = [*pairs('0', '0', '0')[:5], ('0.png', picture(9)), *pairs('1')]
  examples, _ = read(members)
  assert captions(examples) == ['caption 0', 'caption 1', None, None, 'caption 0']


def test_joined_archives_are_one_shard(tmp_path):
  parts = [pack(tmp_path / f'{i}.tar', pairs(f'{i}', 'same')).read_bytes() for i in range(3)]
  (tmp_path / 'a.tar').write_bytes(b''.join(parts))
  source = data.open_source(f'webdataset:{tmp_path}/a.tar', 'train')
  assert source.values('caption') == ['caption 0', 'caption 1'] * 3
  assert source.values('image') == [picture(0), picture(1)] * 3


def test_what_follows_the_end_of_an_archive_is_named(tmp_path, caplog):
  logging.use_absl_handler()
  whole = pack(tmp_path / 'a.tar', pairs('0', '1')).read_bytes()
  (tmp_path / 'a.tar').write_bytes(whole + b'x' * 5000)
  pack(tmp_path / 'b.tar', [])
  with caplog.at_level('WARNING'):
    source = data.open_source(f'webdataset:{tmp_path}/{{a,b}}.tar', 'train')
  assert source.values('caption') == ['caption 0', 'caption 1']
  told = [record.getMessage() for record in caplog.records]
  assert f'a.tar is cut off or damaged before byte {len(whole)}: its 2 whole' in told[0]
  assert told[1].endswith('b.tar holds no example') and len(told) == 2


def test_captions_of_several_lines_are_told_once(read):
  examples, told = read([('0.png', picture(0)), ('0.txt', b'one\ntwo\n'), *pairs('1')] * 2)
  assert captions(examples)[0] == 'one\ntwo\n'
  assert told.count('has 2 lines') == 1 and '{"caption": ["one", "another"]}' in told


@pytest.mark.parametrize('style', [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_name_that_is_no_unicode_or_long_is_read(style, read):
  names = ['x' * 150 + f'/{"y" * 120}{i}' for i in range(2)]
  extra = [('0/\udcff.bin', b'x')]
  examples, told = read(pairs(*names) + extra, format=style)
  assert captions(examples)[:2] == ['caption 0', 'caption 1'] and len(examples) == 3
  assert 'has no file of a known ending' in examples[2]['error'] and not told
