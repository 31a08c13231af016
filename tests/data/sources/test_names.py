"""An example that cannot be used is named by its file and by what it is called there."""

import io
import json

import numpy as np
import pytest
from absl import logging
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data.convert import convert
from contrastive_jax.data.train_tokenizer import train

BAD = 17  # Of 24 examples, ten a file: the eighth of the second.
FORMATS = ('arrayrecord', 'csv', 'jsonl', 'karpathy', 'mixture', 'parquet', 'webdataset')


@pytest.fixture(params=FORMATS)
def damaged(request, write, tmp_path):
  """A source of which one picture is cut, and a pattern of how it is named."""
  buffer = io.BytesIO()
  Image.effect_noise((16, 16), 99).save(buffer, 'PNG')
  own = [{'id': i, 'image': buffer.getvalue(), 'caption': 'a text'} for i in range(24)]
  own[BAD]['image'] = own[BAD]['image'][:90]
  folder = str(tmp_path)
  if request.param in ('csv', 'karpathy'):
    for example in own:
      (tmp_path / f'{example["id"]}.png').write_bytes(example['image'])
  if request.param == 'csv':
    rows = [f'{e["id"]}.png,{e["caption"]}\n' for e in own]
    (tmp_path / 'a.csv').write_text('image,caption\n' + ''.join(rows))
    return f'csv:{folder}/a.csv', rf'{folder}/a\.csv: row 18, 17\.png: '
  if request.param == 'karpathy':
    entries = [
      {'filename': f'{e["id"]}.png', 'split': 'train', 'sentences': [{'raw': e['caption']}]}
      for e in own
    ]
    (tmp_path / 'a.json').write_text(json.dumps({'images': entries}))
    return f'karpathy:{folder}/a.json', rf'{folder}/17\.png: '
  style = 'webdataset' if request.param == 'mixture' else request.param
  names = {
    'arrayrecord': rf'{folder}/pairs-00001\.array_record: record 7: ',
    'jsonl': rf'{folder}/pairs-00001\.jsonl: row 8, pairs-00001/000000017\.png: ',
    'parquet': rf'{folder}/pairs-00001\.parquet: row 7: ',
    'webdataset': rf'{folder}/pairs-00001\.tar: 000000017\.png \(byte \d+\): ',
  }
  name = write(style, own)
  return f'{name}*1+{name}*1' if request.param == 'mixture' else name, names[style]


def test_evaluation_names_a_damaged_picture(damaged):
  name, where = damaged
  split, number = ('train', 17) if '+' in name else ('train[5:]', 12)
  source = data.open_source(name, split)
  with pytest.raises(
    ValueError, match=rf'example {number} cannot be evaluated: {where}an image of 90'
  ):
    data.evaluation_images(source, 8)


@pytest.mark.parametrize('crop', [None, (0.5, 1.0)])
def test_training_names_a_damaged_picture(damaged, crop, caplog):
  logging.use_absl_handler()
  name, where = damaged
  source = data.open_source(name, 'train')
  batches, skips = data.training_batches(
    source,
    lambda texts: np.zeros([len(texts), 2], np.int32),
    batch_size=len(source),
    image_size=8,
    captions={'captions' if name.startswith('karpathy') else 'caption': 1.0},
    crop=crop,
    seed=0,
  )
  skips._tolerated = 1.0
  with caplog.at_level('WARNING'):
    next(batches)
  told = [record.getMessage() for record in caplog.records]
  with pytest.raises(ValueError, match=rf'skipped example (17|41): {where}an image of 90'):
    raise ValueError(told[0])


def test_conversion_names_a_damaged_picture(damaged, tmp_path):
  name, where = damaged
  report = convert(name, str(tmp_path / 'target'), tolerated=1.0)
  with pytest.raises(ValueError, match=rf'{where}an image of 90'):
    raise ValueError(report['skipped'][0][1])


def test_records_of_tfrecord_files_are_named(prepared_as_tfrecord):
  source = data.open_source('pairs', 'heldout_composition[10:]', str(prepared_as_tfrecord))
  assert source.where(2).endswith('pairs-heldout_composition.tfrecord-00000-of-00001: record 12')


def test_a_caption_that_is_no_text_is_named(tmp_path, write, examples):
  own = [{'id': i, 'image': examples[0]['image'], 'caption': 'a'} for i in range(3)]
  own[1]['caption'] = 7
  with pytest.raises(ValueError, match=r'last is 1: .*\.tar: 000000001\.webp .* is no text but'):
    train(write('webdataset', own), str(tmp_path / 'tokenizer.json'), vocabulary=300)
