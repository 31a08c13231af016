"""Whatever bytes a file holds, it is refused at once, or each example is read as good or bad."""

import dataclasses
import io
import json
import struct
import tarfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data import images
from contrastive_jax.data.captions import draw_caption
from contrastive_jax.data.readers import encoded_image
from contrastive_jax.data.sources import array_record, source, tfrecord, webdataset

# Damaged ones are read in a few milliseconds; the deadline is for what hangs.
FUZZ = settings(
  max_examples=40, deadline=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def picture(style):
  buffer = io.BytesIO()
  pixels = np.random.default_rng(0).integers(0, 256, [9, 7, 3], np.uint8)
  Image.fromarray(pixels).save(buffer, style)
  return buffer.getvalue()


EXAMPLES = [
  {'id': i, 'image': picture('PNG'), 'caption': f'caption é {i}', 'tags': ['one', 'two']}
  for i in range(3)
]


@st.composite
def damaged(draw, whole):
  """The bytes after some are changed, cut out or put in; or other bytes."""
  if draw(st.integers(0, 9)) == 0:
    return draw(st.binary(max_size=2000))
  content = bytearray(whole)
  for _ in range(draw(st.integers(1, 4))):
    start = draw(st.integers(0, len(content)))
    how = draw(st.sampled_from(['change', 'cut', 'end', 'put']))
    if how == 'end':
      del content[start:]
    elif how == 'cut':
      del content[start : start + draw(st.integers(1, 600))]
    else:
      new = draw(st.binary(min_size=1, max_size=8))
      content[start : start + (len(new) if how == 'change' else 0)] = new
  return bytes(content)


def read_all(opened):
  """Reads each example as training and conversion do."""
  for i in range(len(opened)):
    example = opened[i]
    if 'error' in example:
      assert set(example) == {'id', 'error'}
      continue
    try:
      images.decode(encoded_image(example))
      draw_caption(example, {'caption': 1.0, 'tags': 1.0}, np.random.default_rng(0))
    except ValueError:
      continue


def valid_files(folder):
  """A whole file of each format."""
  for i, example in enumerate(EXAMPLES):
    (folder / f'{i}.png').write_bytes(example['image'])
  lines = [{'image': f'{i}.png', 'caption': e['caption']} for i, e in enumerate(EXAMPLES)]
  rows = [f'{i}.png,"caption ""é"", {i}\nof two lines"\n' for i in range(3)]
  entries = [
    {'filename': f'{i}.png', 'split': 'train', 'sentences': [{'raw': 'a caption'}]}
    for i in range(3)
  ]
  webdataset.write(str(folder / 'webdataset'), EXAMPLES)
  array_record.write(str(folder / 'arrayrecord'), EXAMPLES)
  (folder / 'jsonl').write_text('\n'.join(map(json.dumps, lines)))
  (folder / 'csv').write_text('image,caption\n' + ''.join(rows))
  (folder / 'karpathy').write_text(json.dumps({'images': entries}))


@pytest.mark.parametrize('style', ['webdataset', 'arrayrecord', 'jsonl', 'csv', 'karpathy'])
@FUZZ
@given(st.data())
def test_a_damaged_file_is_refused_or_read(style, tmp_path, drawn):
  file = tmp_path / 'file'
  if not file.exists():
    valid_files(tmp_path)
  content = drawn.draw(damaged((tmp_path / style).read_bytes()))
  file.write_bytes(content)
  try:
    read_all(data.open_source(f'{style}:{file}', 'train'))
  except ValueError:
    pass
  except OSError:
    assert style == 'arrayrecord'  # A damaged block stops a run, and says which file.


@dataclasses.dataclass
class Instruction:
  filename: str
  take: int
  skip: int = 0


@FUZZ
@given(st.data())
def test_a_damaged_tfrecord_is_refused_or_read(tmp_path, drawn):
  records = [bytes([i]) * 50 for i in range(5)]
  whole = b''.join(struct.pack('<Q4x', 50) + record + bytes(4) for record in records)
  (tmp_path / 'file').write_bytes(drawn.draw(damaged(whole)))
  try:
    opened = tfrecord.TfRecords([Instruction(str(tmp_path / 'file'), 5)])
  except ValueError:
    return
  read = [opened[i] for i in range(5)]
  assert all(isinstance(record, bytes) for record in read)


@pytest.mark.parametrize('style', ['BMP', 'GIF', 'JPEG', 'PNG', 'WEBP'])
@FUZZ
@given(st.data())
def test_a_damaged_picture_decodes_or_is_refused(style, drawn):
  content = drawn.draw(damaged(picture(style)))
  for read in (images.decode, images.file_type):
    try:
      read(content)
    except ValueError:
      continue


JSON = st.recursive(
  st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.binary(),
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
  max_leaves=5,
)


@FUZZ
@given(caption=JSON | st.text(st.characters()))
def test_any_caption_is_tokens_or_refused(caption):
  (record,) = [source.Source([{'caption': caption}])[0]]
  try:
    text = draw_caption(record, {'caption': 1.0}, np.random.default_rng(0))
  except ValueError:
    return
  tokens = data.open_tokenizer('emoji', 16)([text])
  assert tokens.shape == (1, 16)


@FUZZ
@given(
  st.lists(st.tuples(st.text(st.characters(codec='ascii', exclude_characters='\0')), st.binary()))
)
def test_any_tar_is_a_shard(tmp_path, members):
  with tarfile.open(tmp_path / 'a.tar', 'w') as archive:
    for name, content in members:
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))
  try:
    read_all(data.open_source(f'webdataset:{tmp_path}/a.tar', 'train'))
  except ValueError as error:
    assert 'no example' in str(error)
