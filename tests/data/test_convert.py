import io
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data import convert as module
from contrastive_jax.data import emoji, images
from contrastive_jax.data.convert import convert
from contrastive_jax.data.sources import array_record

STYLES = ('arrayrecord', 'jsonl', 'parquet', 'webdataset')
SPLIT = 'heldout_style[:30]'


def contents(folder):
  """All files but the indices, which know when their files were written."""
  paths = sorted(path for path in folder.rglob('*') if path.is_file() and path.suffix != '.npz')
  return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def everything(name, split):
  source = data.open_source(name, split)
  return [source[i] for i in range(len(source))]


@pytest.mark.parametrize('style', STYLES)
@pytest.mark.parametrize('back', STYLES)
def test_any_way_round_gives_the_same_examples(tmp_path, style, back):
  first = convert('emoji', f'{style}:{tmp_path}/a', split=SPLIT, shard_size=8)
  second = convert(first['name'], f'{back}:{tmp_path}/b', split='heldout_style', shard_size=9)
  assert everything(second['name'], 'heldout_style') == everything('emoji', SPLIT)
  assert second['written'] == 30 and not second['skipped']


@pytest.mark.parametrize('style', STYLES)
@pytest.mark.parametrize('stop_at', [0, 11, 24])
def test_stopped_and_resumed_equals_never_stopped(tmp_path, monkeypatch, style, stop_at):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  convert('emoji', f'{style}:{whole}', split=SPLIT, shard_size=8)

  read, seen = module.draw_caption, []

  def stop(*arguments):
    seen.append(arguments)
    if len(seen) > stop_at:
      raise KeyboardInterrupt
    return read(*arguments)

  with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
    patch.setattr(module, 'draw_caption', stop)
    convert('emoji', f'{style}:{parts}', split=SPLIT, shard_size=8)
  (parts / f'heldout_style-00000-of-00004.{module._FORMATS[style][0]}.1.partial').write_bytes(b'x')
  if stop_at >= 8:
    seen.clear()  # What is done is not done again.
    monkeypatch.setattr(module, 'draw_caption', lambda *a: seen.append(a) or read(*a))
  convert('emoji', f'{style}:{parts}', split=SPLIT, shard_size=8)
  assert stop_at < 8 or len(seen) == 30 - stop_at // 8 * 8
  assert contents(parts) == contents(whole)


@pytest.fixture(scope='module')
def noisy(tmp_path_factory):
  """A source of 60 images, of which two are damaged."""
  folder = tmp_path_factory.mktemp('noisy')
  pictures = [*pictures_of_every_format().values()]
  examples = [{'id': i, 'image': pictures[i % 6], 'caption': f'a {i}'} for i in range(60)]
  for bad in (13, 44):
    examples[bad]['image'] = b'damaged'
  array_record.write(str(folder / 'a.array_record'), examples)
  return f'arrayrecord:{folder}/a.array_record'


@pytest.mark.parametrize(
  'style', ['arrayrecord', *(pytest.param(s, marks=pytest.mark.slow) for s in STYLES[1:])]
)
def test_two_processes_write_the_files_of_one(noisy, tmp_path, style):
  alone, together = (
    convert(noisy, f'{style}:{tmp_path}/{workers}', shard_size=8, tolerated=0.1, workers=workers)
    for workers in (1, 2)
  )
  assert contents(tmp_path / '1') == contents(tmp_path / '2')
  assert alone['skipped'] == together['skipped'] and [row for row, _ in alone['skipped']] == [
    13,
    44,
  ]
  assert alone | {'name': ''} == together | {'name': ''} and alone['written'] == 58


@pytest.mark.slow
def test_bad_examples_stop_two_processes(noisy, tmp_path):
  with pytest.raises(ValueError, match='1 of 14 examples cannot be used, over 1%; the last is 13'):
    convert(noisy, str(tmp_path), shard_size=8, workers=2)
  state = json.loads((tmp_path / 'train.convert.json').read_text())
  assert [shard['file'][6:11] for shard in state['shards']] == ['00000']


@pytest.mark.slow
@pytest.mark.parametrize('style', STYLES)
def test_a_killed_command_of_two_processes_resumes_and_leaves_none(tmp_path, style):
  split, shard_size = 'train[:1200]', 100
  convert('emoji', f'{style}:{tmp_path}/whole', split=split, shard_size=shard_size)
  command = [sys.executable, '-m', 'contrastive_jax.data.convert', 'emoji']
  command += [f'{style}:{tmp_path}/parts', f'--split={split}', f'--shard_size={shard_size}']
  state = tmp_path / 'parts/train.convert.json'
  with subprocess.Popen([*command, '--workers=2']) as running:
    until = time.monotonic() + 60
    while not state.exists() and time.monotonic() < until:
      time.sleep(0.005)
    workers = pathlib.Path(f'/proc/{running.pid}/task/{running.pid}/children').read_text().split()
    running.kill()
  done = len(json.loads(state.read_text())['shards'])
  assert 1 <= done < 12 and len(workers) >= 2
  until = time.monotonic() + 30
  while any(map(is_running, workers)) and time.monotonic() < until:
    time.sleep(0.05)
  assert not any(map(is_running, workers))
  subprocess.run([*command, '--workers=2'], check=True, timeout=120)
  assert contents(tmp_path / 'parts') == contents(tmp_path / 'whole')


def is_running(process):
  try:
    return pathlib.Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except FileNotFoundError:
    return False


def test_an_unfinished_conversion_is_not_trained_on(tmp_path):
  name = convert('emoji', f'webdataset:{tmp_path}', split=SPLIT, shard_size=8)['name']
  os.remove(tmp_path / 'heldout_style-00002-of-00004.tar')
  with pytest.raises(ValueError, match='3 of 4 shards are there'):
    data.open_source(name, 'heldout_style')


def test_a_selection_that_repeats_is_written_as_it_is_seen(tmp_path):
  split = 'heldout_composition[subgroup=person-resting]+heldout_composition[subgroup=hand-prop]'
  split = f'{split}+{split}'
  for style in STYLES:
    report = convert('emoji', f'{style}:{tmp_path}/{style}', split=split)
    written = data.open_source(report['name'], 'heldout_composition').values('caption')
    assert written == data.open_source('emoji', split).values('caption')


def test_another_conversion_in_the_same_folder_is_refused(tmp_path):
  convert('emoji', str(tmp_path), split=SPLIT)
  with pytest.raises(ValueError, match=r"of another conversion.*'shard_size': 10000"):
    convert('emoji', str(tmp_path), split=SPLIT, shard_size=7)
  for target in ('csv:/tmp', 'gs://bucket', 'webdataset://host', '/tmp/{a,b}', 'jsonl:/tmp/a*'):
    with pytest.raises(ValueError, match='TARGET = '):
      convert('emoji', target)


def test_the_command_reports(tmp_path):
  command = [sys.executable, '-m', 'contrastive_jax.data.convert', 'emoji', f'jsonl:{tmp_path}']
  ran = subprocess.run(
    [*command, f'--split={SPLIT}'], check=True, timeout=120, capture_output=True, text=True
  )
  assert 'wrote 30 of 30 examples, skipped 0' in ran.stdout
  assert f'--config.data.name=jsonl:{tmp_path}/{{split}}-*.jsonl' in ran.stdout
  assert json.loads((tmp_path / 'heldout_style.convert.json').read_text())['examples'] == 30


def pictures_of_every_format():
  """An encoded picture by the ending of its file, JPEGs of phones among them."""
  found = {}
  for style in ('JPEG', 'MPO', 'PNG', 'WEBP', 'GIF', 'BMP'):
    image, buffer = Image.new('RGB', (12, 8), (200, 30, 90)), io.BytesIO()
    more = {'append_images': [Image.new('RGB', (6, 4))], 'save_all': True} if style == 'MPO' else {}
    image.save(buffer, style, **more)
    found[style] = buffer.getvalue()
  assert Image.open(io.BytesIO(found['MPO'])).format == 'MPO'
  return found


@pytest.mark.parametrize('style', STYLES)
def test_pictures_of_every_format_come_back(tmp_path, style):
  written = pictures_of_every_format()
  examples = [{'id': i, 'image': p, 'caption': 'a'} for i, p in enumerate(written.values())]
  array_record.write(str(tmp_path / 'a.array_record'), examples)
  report = convert(f'arrayrecord:{tmp_path}/a.array_record', f'{style}:{tmp_path}/b')
  assert everything(report['name'], 'train') == examples
  assert {images.file_type(picture) for picture in written.values()} <= {*images.ENDINGS}


@pytest.mark.parametrize('style', STYLES)
def test_a_shard_that_lost_examples_is_not_called_written(tmp_path, monkeypatch, style):
  ending, write, reader = module._FORMATS[style]
  forget = lambda path, records: write(path, list(records)[1:])  # noqa: E731
  monkeypatch.setitem(module._FORMATS, style, (ending, forget, reader))
  with pytest.raises(OSError, match=r'holds 29 of the 30 examples that were written'):
    convert('emoji', f'{style}:{tmp_path}', split=SPLIT)
  assert not (tmp_path / 'heldout_style.convert.json').exists()


def test_a_conversion_into_a_folder_with_brackets_opens(tmp_path):
  report = convert('emoji', f'{tmp_path}/run [1]', split=SPLIT, shard_size=20)
  assert everything(report['name'], 'heldout_style') == everything('emoji', SPLIT)


@pytest.mark.slow
@pytest.mark.parametrize('style', [*STYLES, 'tfds'])
def test_what_is_converted_trains_and_is_evaluated(tmp_path, style):
  """Ten thousand pairs of a converted set, and TFDS's own folder, by the command of a run."""
  if style == 'tfds':
    name = f'tfds:{emoji.PREPARED}'
  else:
    # What the config takes of the emoji: some of them come thrice.
    thrice = 'train[skin_tone=]+train[skin_tone=]+train'
    for split in (thrice, 'heldout_style[:50]', 'heldout_composition[:50]'):
      report = convert('emoji', f'{style}:{tmp_path}/data', split=split, shard_size=1000)
    name = report['name']
    assert len(data.open_source(name, 'train')) >= 10_000
  command = [sys.executable, 'launch.py', '--config=configs/clip.py:smoke']
  command += [f'--config.data.name={name}', f'--workdir={tmp_path}/run']
  command += ['--config.data.split=train']
  command += ['--config.evaluation.zero_shot=()']  # Not all classes are among so few.
  subprocess.run(command, check=True, timeout=600)
  last = json.loads((tmp_path / 'run/metrics.jsonl').read_text().splitlines()[-1])
  assert last['step'] == 2 and last['train/skipped'] == 0
  assert 'heldout_style/image_to_text_recall@1' in last
