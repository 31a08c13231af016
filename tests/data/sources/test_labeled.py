"""Small sets of labeled images that a package installs."""

import gzip
import pickle
import struct
import sys

import numpy as np
import pytest
from sklearn import datasets

from contrastive_jax import data
from contrastive_jax.data import images
from contrastive_jax.data.sources import labeled


def write_idx(path, array):
  sizes = struct.pack(f'>{array.ndim}I', *array.shape)
  path.write_bytes(gzip.compress(b'\0\0\x08' + bytes([array.ndim]) + sizes + array.tobytes()))


@pytest.fixture
def clothes(tmp_path, monkeypatch):
  """Three images of each split, in the files of the package."""
  monkeypatch.setattr(labeled, 'FASHION_MNIST', str(tmp_path))
  monkeypatch.setitem(labeled.DATASETS, 'fashion_mnist', labeled.open_fashion_mnist)
  pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
  for prefix, labels in (('train', (9, 0, 3)), ('t10k', (1, 1, 2))):
    write_idx(tmp_path / f'{prefix}-images-idx3-ubyte.gz', pixels)
    write_idx(tmp_path / f'{prefix}-labels-idx1-ubyte.gz', np.array(labels, np.uint8))
  return pixels


def test_fashion_mnist_is_read_from_its_files(clothes):
  source = data.open_source('fashion_mnist', 'train')
  assert source.values('label') == ['Ankle boot', 'T-shirt/top', 'Dress']
  found = images.decode(source[1]['image'], 28)
  np.testing.assert_array_equal(found, np.repeat(clothes[1][..., None], 3, 2))
  assert 'image' not in source.fields(1) and source.where(1) == 'fashion_mnist/train: image 1'
  assert data.open_source('fashion_mnist', 'test[1:]').values('label') == ['Trouser', 'Pullover']
  assert len(data.open_source('fashion_mnist', 'train[label=Dress]')) == 1
  assert pickle.loads(pickle.dumps(source))[2]['label'] == 'Dress'


def test_the_digits_are_scikit_learns():
  train, held_out = (data.open_source('digits', f'train[{part}]') for part in (':80%', '80%:'))
  assert (len(train), len(held_out)) == (1438, 359)
  assert set(train.values('label')) == set('0123456789')
  known = datasets.load_digits()
  assert held_out.values('label') == list(map(str, known.target[1438:]))
  found = np.asarray(images.decode(held_out[5]['image']))
  np.testing.assert_allclose(found[..., 0], known.images[1443] * 255 / 16, atol=0.5)


@pytest.mark.parametrize(
  ('name', 'split', 'message'),
  [
    ('fashion_mnist', 'validation', r"'fashion_mnist': it has no split 'validation'.*\['test'"),
    ('digits', 'test', r"'digits': it holds one split, 'train', not 'test'; slice it"),
    ('digits', 'train[:0]', r"'digits': 'train\[:0\]' selects no example"),
  ],
)
def test_a_split_that_is_missing_is_named(name, split, message):
  with pytest.raises(ValueError, match=message):
    data.open_source(name, split)


def test_what_is_not_installed_says_how_to_install_it(tmp_path, monkeypatch):
  monkeypatch.setattr(labeled, 'FASHION_MNIST', str(tmp_path))
  with pytest.raises(ValueError, match='apt-get install dataset-fashion-mnist'):
    labeled.open_fashion_mnist('train')
  monkeypatch.setitem(sys.modules, 'sklearn.datasets', None)
  with pytest.raises(ValueError, match='pip install scikit-learn'):
    labeled.open_digits('train')
