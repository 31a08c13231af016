"""Laws of the command that trains tokenizers, and that what it trains can be trained with."""

import json
import re
import subprocess
import sys

import pytest

from contrastive_jax import data
from contrastive_jax.data.train_tokenizer import train

SPLIT = 'heldout_style[:200]'


def write_rows(path, captions):
  """A source of captions, whose images are not looked at."""
  (path.parent / 'image.png').write_bytes(b'no picture')
  rows = [json.dumps({'image': 'image.png', 'caption': caption}) for caption in captions]
  path.write_text('\n'.join(rows))
  return f'jsonl:{path}'


@pytest.mark.parametrize('ending', ['json', 'model'])
def test_the_same_captions_give_the_same_bytes(tmp_path, ending):
  captions = data.open_source('emoji', SPLIT).values('caption')
  for number in range(2):
    rows = write_rows(tmp_path / f'{number}.jsonl', captions)
    train(rows, f'{tmp_path}/{number}.{ending}', vocabulary=500)
  first, second = (tmp_path / f'{number}.{ending}' for number in range(2))
  assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize('ending', ['json', 'model'])
def test_figures_are_of_the_captions(tmp_path, ending):
  target = f'{tmp_path}/tokenizer.{ending}'
  fields = ('caption', 'tags', 'names.de')
  report = train('emoji', target, vocabulary=600, fields=fields, split=SPLIT)
  source = data.open_source('emoji', SPLIT)
  texts = [
    text
    for example in (source[i] for i in range(len(source)))
    for text in (example['caption'], *example['tags'], example['names']['de'])
  ]
  tokenizer = data.open_tokenizer(target, 1000)
  lengths = sorted(row.tolist().index(tokenizer.end_id) - 1 for row in tokenizer(texts))
  assert report['captions'] == len(texts) and report['skipped'] == 0
  assert report['vocabulary'] == tokenizer.vocab_size == 600
  assert report['mean'] == pytest.approx(sum(lengths) / len(lengths))
  assert report['longest'] == lengths[-1]
  # As many as the flags suggest are enough for 99%, and one less is not.
  for room, enough in ((report['percentile_99'], True), (report['percentile_99'] - 1, False)):
    lost = data.open_tokenizer(target, room + 2).encode(texts)[1]
    assert ((lost > 0).mean() <= 0.01) == enough


@pytest.mark.parametrize('ending', ['json', 'model'])
@pytest.mark.parametrize('lowercase', [True, False])
def test_case_matters_where_it_is_asked_for(tmp_path, ending, lowercase):
  rows = write_rows(tmp_path / 'rows.jsonl', ['Red Apple', 'a red apple'] * 9)
  target = f'{tmp_path}/tokenizer.{ending}'
  train(rows, target, vocabulary=300, lowercase=lowercase)
  tokenizer = data.open_tokenizer(target, 32)
  assert tokenizer.decode(tokenizer(['Red APPLE'])[0]) == (
    'red apple' if lowercase else 'Red APPLE'
  )


@pytest.mark.parametrize('ending', ['json', 'model'])
def test_bad_examples_are_skipped_and_too_many_stop_it_and_leave_no_file(tmp_path, ending):
  captions = ['a red apple'] * 400
  captions[7], captions[9] = ' ', None
  target = tmp_path / f'tokenizer.{ending}'
  report = train(write_rows(tmp_path / 'two.jsonl', captions), str(target), vocabulary=300)
  assert (report['captions'], report['skipped']) == (398, 2)

  captions[20:30] = [''] * 10
  rows, target = write_rows(tmp_path / 'more.jsonl', captions), tmp_path / f'other.{ending}'
  with pytest.raises(ValueError, match=r'5 of \d+ examples cannot be used'):
    train(rows, str(target), vocabulary=300)
  with pytest.raises(ValueError, match=r"empty \(fields \('title',\) of \['caption', 'id'"):
    train(rows, str(target), fields=('title',))
  with pytest.raises(ValueError, match='vocabulary = 100 '):
    train(write_rows(tmp_path / 'good.jsonl', ['a b']), str(target), vocabulary=100)
  assert not [path for path in tmp_path.iterdir() if 'other' in path.name]


def test_a_file_is_not_written_over(tmp_path):
  (tmp_path / 'there.json').write_text('{}')
  for target, message in (('there.json', 'exists'), ('new.txt', 'another ending')):
    with pytest.raises(ValueError, match=f'TARGET = .*{message}; use a new file'):
      train('emoji', f'{tmp_path}/{target}')


@pytest.mark.slow
@pytest.mark.parametrize('ending', ['json', 'model'])
def test_the_flags_it_prints_train(tmp_path, ending):
  module = [sys.executable, '-m', 'contrastive_jax.data.train_tokenizer', 'emoji']
  arguments = [f'{tmp_path}/tokenizer.{ending}', f'--split={SPLIT}', '--vocabulary=400']
  ran = subprocess.run(
    [*module, *arguments], check=True, timeout=120, capture_output=True, text=True
  )
  assert '200 captions, skipped 0 examples\n400 ids; tokens per caption: mean ' in ran.stdout
  flags = re.search(r'^--config.*', ran.stdout, re.MULTILINE)[0].split()
  assert len(flags) == 3
  command = [sys.executable, 'launch.py', '--config=configs/clip.py:smoke', *flags]
  command += ['--config.data.split=train[:64]', '--config.total_steps=1']
  command += ['--config.evaluation.splits=()']
  subprocess.run([*command, f'--workdir={tmp_path}/run'], check=True, timeout=300)
  assert json.loads((tmp_path / 'run/metrics.jsonl').read_text())['step'] == 1
