"""The sets that papers report, from the files that their authors publish, in small.

TFDS's own builders prepare them; where TensorFlow is not installed, Python's file functions stand
in for the few of it that they call.
"""

import io
import json
import os
import pathlib
import struct
import tarfile
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image
from tensorflow_datasets.core.download import extractor
from tensorflow_datasets.datasets.imagenet2012 import (
  imagenet2012_dataset_builder,
  imagenet_common,
)
from tensorflow_datasets.image_classification import cifar, mnist
from tensorflow_datasets.object_detection import coco

from contrastive_jax import data
from contrastive_jax.data import images
from contrastive_jax.data.convert import convert

CIFAR10 = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']
CIFAR100 = [f'fine {i}' for i in range(100)], [f'coarse {i}' for i in range(20)]


def encode(pixels, style):
  buffer = io.BytesIO()
  Image.fromarray(pixels.squeeze()).save(buffer, style)
  return buffer.getvalue()


def pixels(number, shape):
  return np.random.default_rng(number).integers(0, 256, shape, np.uint8)


def add(archive, name, content):
  member = tarfile.TarInfo(name)
  member.size = len(content)
  archive.addfile(member, io.BytesIO(content))


def cifar10(folder):
  """cifar-10-binary.tar.gz, unpacked."""
  place = folder / 'cifar-10-batches-bin'
  place.mkdir()
  (place / 'batches.meta.txt').write_text('\n'.join(CIFAR10) + '\n\n')
  for name in ('test_batch', *(f'data_batch_{i}' for i in range(1, 6))):
    rows = [bytes([i % 10]) + pixels(i, [3, 32, 32]).tobytes() for i in range(12)]
    (place / f'{name}.bin').write_bytes(b''.join(rows))
  return [
    {'label': CIFAR10[i % 10], 'pixels': pixels(i, [3, 32, 32]).transpose(1, 2, 0)}
    for i in range(12)
  ]


def cifar100(folder):
  """cifar-100-binary.tar.gz, unpacked."""
  place = folder / 'cifar-100-binary'
  place.mkdir()
  for name, names in zip(('fine', 'coarse'), CIFAR100, strict=True):
    (place / f'{name}_label_names.txt').write_text('\n'.join(names) + '\n')
  for name in ('train', 'test'):
    rows = [bytes([i, 9 * i]) + pixels(i, [3, 32, 32]).tobytes() for i in range(11)]
    (place / f'{name}.bin').write_bytes(b''.join(rows))
  return [
    {
      'label': f'fine {9 * i}',
      'coarse_label': f'coarse {i}',
      'pixels': pixels(i, [3, 32, 32]).transpose(1, 2, 0),
    }
    for i in range(11)
  ]


def fashion_mnist(folder):
  """The four idx files, unpacked."""
  for name in ('train', 't10k'):
    pictures = b''.join(pixels(i, [28, 28]).tobytes() for i in range(9))
    (folder / f'{name}-images-idx3-ubyte').write_bytes(bytes(16) + pictures)
    (folder / f'{name}-labels-idx1-ubyte').write_bytes(bytes(8) + bytes(range(9)))
  return [
    {'label': label, 'pixels': pixels(i, [28, 28])}
    for i, label in enumerate(
      ['T-shirt/top', 'Trouser', 'Pullover', 'Dress', 'Coat', 'Sandal', 'Shirt', 'Sneaker', 'Bag']
    )
  ]


def imagenet2012(folder):
  """The two tars that one registers for."""
  with tarfile.open(folder / 'ILSVRC2012_img_train.tar', 'w') as archive:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode='w') as synset:
      add(synset, 'n01440764_1.JPEG', encode(pixels(50, [9, 9, 3]), 'JPEG'))
    add(archive, 'n01440764.tar', inner.getvalue())
  labels = pathlib.Path(
    imagenet_common.tfds.core.tfds_path(imagenet_common._VALIDATION_LABELS_FNAME)
  )
  validation = []
  with tarfile.open(folder / 'ILSVRC2012_img_val.tar', 'w') as archive:
    for i, label in enumerate(labels.read_text().split()[:8]):
      name = f'ILSVRC2012_val_{i + 1:08}.JPEG'
      image = encode(pixels(i, [20 + i, 20, 3]), 'JPEG')
      add(archive, name, image)
      validation.append({'label': label, 'file_name': name, 'image': image})
  return validation


def karpathy(folder, name):
  """One of Karpathy and Li's files, with its images beside; what is in the split 'test'."""
  entries, expected = [], []
  for i in range(8):
    split = ['train', 'val', 'restval', *['test'] * 5][i]
    entry = {'filename': f'{1000 + i}.jpg', 'imgid': i, 'split': split}
    if name == 'coco':
      place = 'train2014' if split == 'train' else 'val2014'
      entry |= {'filepath': place, 'filename': f'COCO_{place}_{i:012}.jpg', 'cocoid': i}
    captions = [f'a {word} photo, number {i}' for word in ('good', 'bad', 'dark', 'café', 'small')]
    entry['sentids'] = [5 * i + j for j in range(5)]
    entry['sentences'] = [
      {'tokens': caption.split(), 'raw': caption, 'imgid': i, 'sentid': 5 * i + j}
      for j, caption in enumerate(captions)
    ]
    image = encode(pixels(i, [30, 20 + i, 3]), 'JPEG')
    path = folder / entry.get('filepath', '') / entry['filename']
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(image)
    entries.append(entry)
    if split == 'test':
      expected.append({'image': image, 'captions': captions})
  file = folder / f'dataset_{name}.json'
  file.write_text(json.dumps({'images': entries, 'dataset': name}))
  return expected


def coco_captions(folder):
  """The zips of 2014, unpacked, and Karpathy and Li's splits."""
  expected = karpathy(folder, 'coco')
  (folder / 'annotations').mkdir()
  categories = [{'id': i, 'name': 'dog' if i == 18 else f'thing {i}'} for i in range(1, 81)]
  box = {'id': 9, 'image_id': 4, 'category_id': 18, 'iscrowd': 0, 'area': 4, 'bbox': [1, 2, 3, 4]}
  for place in ('train2014', 'val2014'):
    named = [
      {'id': int(path.stem[-12:]), 'file_name': path.name, 'height': 30, 'width': 40}
      for path in (folder / place).iterdir()
    ]
    content = {'images': named, 'annotations': [box], 'categories': categories}
    (folder / f'annotations/instances_{place}.json').write_text(json.dumps(content))
  return expected


SETS = {
  'cifar10': (cifar10, 'test'),
  'cifar100': (cifar100, 'test'),
  'fashion_mnist': (fashion_mnist, 'test'),
  'imagenet2012': (imagenet2012, 'validation'),
  'coco_captions': (coco_captions, 'test'),
}


def stand_in_for_tensorflow(patch):
  """What the five builders call of it: its types, its files, and that arrays become PNG."""
  files = types.SimpleNamespace(GFile=open, exists=os.path.exists)
  little = types.SimpleNamespace(int64=np.int64, io=types.SimpleNamespace(gfile=files))
  for module in (cifar, mnist, coco, extractor, imagenet_common, imagenet2012_dataset_builder):
    patch.setattr(module, 'tf', little)
  for builder in (cifar.Cifar10, mnist.MNIST):

    def generate(self, *arguments, own=builder._generate_examples, **options):
      for key, example in own(self, *arguments, **options):
        yield key, example | {'image': io.BytesIO(encode(example['image'], 'PNG'))}

    patch.setattr(builder, '_generate_examples', generate)


def as_tfrecord(folder):
  """Turns a prepared set of ArrayRecord files into one of TFRecord files."""
  information = folder / 'dataset_info.json'
  content = json.loads(information.read_text())
  for split in content['splits']:
    split['filepathTemplate'] = split['filepathTemplate'].replace('array_record', 'tfrecord')
  information.write_text(json.dumps(content | {'fileFormat': 'tfrecord'}))
  for path in folder.glob('*.array_record-*'):
    with open(str(path).replace('array_record', 'tfrecord'), 'wb') as file:
      for record in ArrayRecordReader(str(path)).read_all():
        file.write(struct.pack('<Q4x', len(record)) + record + bytes(4))
    path.unlink()


@pytest.fixture(
  scope='module',
  params=['array_record', 'tfrecord', pytest.param('tensorflow', marks=pytest.mark.slow)],
)
def prepared(request, tmp_path_factory):
  """The folder of the five sets, prepared in a format, and what is in each's split."""
  folder, expected = tmp_path_factory.mktemp('prepared'), {}
  file_format = 'array_record'
  if request.param == 'tensorflow':
    pytest.importorskip('tensorflow')
    file_format = 'tfrecord'
  tfds.disable_progress_bar()
  for name, (write, _) in SETS.items():
    raw = tmp_path_factory.mktemp(name)
    expected[name] = write(raw)

    def unpacked(self, urls, raw=raw):
      if isinstance(urls, dict):
        return {key: unpacked(self, url) for key, url in urls.items()}
      own = raw / pathlib.Path(urls).stem
      return str(own if own.is_file() else raw)

    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(tfds.download.DownloadManager, 'download_and_extract', unpacked)
      patch.setattr(mnist, '_TRAIN_EXAMPLES', 9)
      patch.setattr(mnist, '_TEST_EXAMPLES', 9)
      if request.param != 'tensorflow':
        stand_in_for_tensorflow(patch)
      builder = tfds.builder(name, data_dir=folder, file_format=file_format, try_gcs=False)
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=raw))
    if request.param == 'tfrecord':
      as_tfrecord(builder.data_path)
  return folder, expected


def everything(*arguments):
  source = data.open_source(*arguments)
  return [source[i] for i in range(len(source))]


def comparable(example):
  picture = example.get('pixels')
  if picture is None:
    picture = np.asarray(images.decode(example['image']))
  if picture.ndim == 2:
    picture = np.repeat(picture[..., None], 3, -1)
  texts = {key: example[key] for key in ('label', 'coarse_label', 'captions') if key in example}
  return json.dumps([texts, picture.tolist()], sort_keys=True)


@pytest.mark.parametrize('name', SETS)
def test_classes_and_captions_are_texts_and_images_what_they_were(prepared, name):
  folder, expected = prepared
  found = everything(f'tfds:{name}:{SETS[name][1]}', 'train', str(folder))
  assert sorted(map(comparable, found)) == sorted(map(comparable, expected[name]))
  assert all(isinstance(example['image'], bytes) for example in found)
  assert everything(name, SETS[name][1], str(folder)) == found


@pytest.mark.parametrize('name', SETS)
@pytest.mark.parametrize('style', ['arrayrecord', 'jsonl', 'webdataset'])
def test_each_converts(prepared, name, style, tmp_path):
  folder, _ = prepared
  source = f'tfds:{name}:{SETS[name][1]}'
  report = convert(source, f'{style}:{tmp_path}', folder=str(folder), shard_size=5)
  written = everything(report['name'], 'train')
  expected = everything(source, 'train', str(folder))
  assert [*map(comparable, written)] == [*map(comparable, expected)]
  assert written[0].keys() == expected[0].keys()


def test_objects_of_coco_have_names(prepared):
  folder, _ = prepared
  found = everything('tfds:coco_captions:test', 'train', str(folder))
  assert [e['objects']['label'] for e in found if e['objects']['label']] == [['dog']]


def test_a_selection_of_a_class(prepared):
  folder, _ = prepared
  source = data.open_source('tfds:cifar10', 'test[label=ship]', str(folder))
  assert source.values('label') == ['ship']


@pytest.mark.parametrize('file', ['flickr30k', 'coco'])
def test_the_splits_of_karpathy_and_li(file, tmp_path):
  expected = karpathy(tmp_path, file)
  name = f'karpathy:{tmp_path}/dataset_*.json'
  found = everything(name, 'test')
  assert [{key: e[key] for key in ('image', 'captions')} for e in found] == expected
  assert len(data.open_source(name, 'train')) == 1
  assert len(data.open_source(name, 'test[:3]')) == 3
  with pytest.raises(ValueError, match=r"no split 'dev'; use one of .*'test', 'train', 'val'"):
    data.open_source(name, 'dev')
  report = convert(name, f'jsonl:{tmp_path}/converted', split='test', shard_size=2)
  assert everything(report['name'], 'test') == found
  next(tmp_path.rglob(found[1]['filename'])).unlink()
  assert ['error' in example for example in everything(name, 'test')] == [False, True, *[False] * 3]


@pytest.mark.parametrize(
  'content', ['', '[]', '{"images": 3}', '{"images": [3]}', '{"images": [{"filename": "a"}]}']
)
def test_another_json_is_refused(content, tmp_path):
  (tmp_path / 'a.json').write_text(content)
  with pytest.raises(ValueError, match="no file of Karpathy's splits"):
    data.open_source(f'karpathy:{tmp_path}/a.json', 'test')


def test_a_set_that_only_tensorflow_prepares_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"'coco_captions'.*download_and_prepare"):
    data.open_source('coco_captions', 'test', str(tmp_path))
