"""Folders of images have a folder per class, or a table of metadata, as Hugging Face reads them."""

import json

import fsspec
import pytest
from absl import logging

from contrastive_jax import data
from contrastive_jax.data.convert import convert

CLASSES = ('cat', 'n01440764', 'tabby_cat')


def everything(name, split='train'):
  source = data.open_source(name, split)
  return [source[i] for i in range(len(source))]


def write(folder, examples, splits=('train', 'val')):
  """Writes eight images per class and split; returns the examples by split."""
  expected = {}
  for split in splits:
    expected[split] = []
    for number, label in enumerate(CLASSES):
      (folder / split / label).mkdir(parents=True)
      for i in range(8):
        name = f'{label}/{i:02}.{"JPEG" if i % 2 else "webp"}'
        image = examples[8 * number + i]['image']
        (folder / split / name).write_bytes(image)
        example = {'id': len(expected[split]), 'file_name': name, 'label': label, 'cls': number}
        expected[split].append(example | {'image': image})
  return expected


def test_classes_are_folders(examples, tmp_path):
  expected = write(tmp_path, examples)
  for split in ('train', 'val'):
    assert everything(f'imagefolder:{tmp_path}', split) == expected[split]
    assert everything(f'imagefolder:{tmp_path}/{{split}}', split) == expected[split]
  assert everything(f'imagefolder:{tmp_path}:val') == expected['val']
  assert everything(f'imagefolder:{tmp_path}/val') == expected['val']
  chosen = data.open_source(f'imagefolder:{tmp_path}', 'val[label=tabby_cat]')
  assert chosen.values('cls') == [2] * 8
  assert data.open_source(f'imagefolder:{tmp_path}', 'val[cls<=0]').values('label') == ['cat'] * 8
  with pytest.raises(ValueError, match=r"no folder 'test'; use a split of \['train', 'val'\]"):
    data.open_source(f'imagefolder:{tmp_path}', 'test')


def test_folders_in_a_class_and_hidden_files_do_not_matter(examples, tmp_path, caplog):
  logging.use_absl_handler()
  expected = write(tmp_path, examples, ['all'])['all']
  (tmp_path / 'all/cat/00.webp').unlink()
  (tmp_path / 'all/cat/inner').mkdir()
  (tmp_path / 'all/cat/inner/00.webp').write_bytes(expected[0]['image'])
  (tmp_path / 'all/.cache').mkdir()
  (tmp_path / 'all/.cache/x.png').write_bytes(b'')
  (tmp_path / 'all/cat/notes.txt').write_text('a note')
  (tmp_path / 'all/cat/._01.JPEG').write_bytes(b'')
  with caplog.at_level('WARNING'):
    found = everything(f'imagefolder:{tmp_path}/all')
  assert [e['image'] for e in found[7:8]] == [expected[0]['image']]
  assert found[7]['file_name'] == 'cat/inner/00.webp' and found[7]['label'] == 'cat'
  assert len(found) == 24
  assert '2 files are no images, the first is cat/._01.JPEG' in caplog.text


def test_images_alone_have_no_label(examples, tmp_path):
  for i in range(3):
    (tmp_path / f'{i}.png').write_bytes(examples[i]['image'])
  found = everything(f'imagefolder:{tmp_path}')
  assert found == [
    {'id': i, 'file_name': f'{i}.png', 'image': examples[i]['image']} for i in range(3)
  ]


@pytest.mark.parametrize('style', ['jsonl', 'csv'])
def test_metadata_lists_the_images(style, examples, tmp_path):
  for split in ('train', 'test'):
    (tmp_path / split / 'inner').mkdir(parents=True)
    names = [f'{"inner/" if i % 2 else ""}{i}.png' for i in range(6)]
    for name, example in zip(names, examples, strict=False):
      (tmp_path / split / name).write_bytes(example['image'])
    rows = [(name, f'{split} {i}') for i, name in enumerate(names)]
    if style == 'csv':
      text = 'file_name,text\n' + ''.join(f'{name},{text}\n' for name, text in rows)
    else:
      text = '\n'.join(json.dumps({'file_name': name, 'text': text}) for name, text in rows)
    (tmp_path / split / f'metadata.{style}').write_text(text)
  found = everything(f'imagefolder:{tmp_path}', 'test')
  assert [e['caption'] for e in found] == [f'test {i}' for i in range(6)]
  assert [e['image'] for e in found] == [e['image'] for e in examples[:6]]
  other = 'csv' if style == 'jsonl' else 'jsonl'
  (tmp_path / f'test/inner/metadata.{other}').write_text('')
  with pytest.raises(ValueError, match=r"metadata in \['csv', 'jsonl'\]"):
    data.open_source(f'imagefolder:{tmp_path}', 'test')


def test_what_cannot_be_opened_is_named(examples, tmp_path):
  with pytest.raises(ValueError, match='has no image, a file that ends in one of jpeg'):
    data.open_source(f'imagefolder:{tmp_path}', 'train')
  with pytest.raises(ValueError, match='gone'):
    data.open_source(f'imagefolder:{tmp_path}/gone', 'train')
  write(tmp_path, examples, ['train'])
  (tmp_path / 'train/dog').mkdir()
  with pytest.raises(ValueError, match=r"folders without an image: \['dog'\]"):
    data.open_source(f'imagefolder:{tmp_path}', 'train')
  (tmp_path / 'train/dog').rmdir()
  (tmp_path / 'train/1.png').write_bytes(examples[0]['image'])
  with pytest.raises(ValueError, match=r'images beside its folders of classes, such as 1\.png'):
    data.open_source(f'imagefolder:{tmp_path}', 'train')


def test_an_image_that_is_gone_is_one_bad_example(examples, tmp_path):
  write(tmp_path, examples)
  source = data.open_source(f'imagefolder:{tmp_path}', 'train')
  path = tmp_path / 'train/n01440764/00.webp'
  assert source.where(8) == str(path)
  path.unlink()
  found = [source[i] for i in range(24)]
  assert [i for i, e in enumerate(found) if 'error' in e] == [8]
  assert source.fields(8)['label'] == 'n01440764'  # no file is opened


def test_a_bucket_is_read_as_a_disk_is(examples, tmp_path):
  expected = write(tmp_path, examples)
  fsspec.filesystem('memory').put(f'{tmp_path}/', '/folder', recursive=True)
  assert everything('imagefolder:memory://folder', 'val') == expected['val']
  assert everything('imagefolder:memory://folder/val') == expected['val']


def test_it_converts(examples, tmp_path):
  expected = write(tmp_path / 'folder', examples)['val']
  name = f'imagefolder:{tmp_path}/folder'
  report = convert(name, f'webdataset:{tmp_path}/converted', split='val', shard_size=9)
  assert everything(report['name'], 'val') == expected
