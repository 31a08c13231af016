import pathlib

import numpy as np
import pytest

from contrastive_jax import data
from contrastive_jax.data import images
from contrastive_jax.data.sources import photographs


def test_scikit_images_photographs_are_split_by_title():
  pytest.importorskip('skimage')
  whole, train, test = (
    data.open_source('photographs', f'scikit_image{where}')
    for where in ('', '[title%4!=0]', '[title%4=0]')
  )
  assert len(whole) == 14 == len(train) + len(test) and len(test) > 1
  assert not {*train.values('title')} & {*test.values('title')}
  sizes = [np.asarray(images.decode(whole[n]['image'])).shape for n in range(14)]
  assert all(min(size[:2]) >= 256 and size[2] == 3 for size in sizes)


def test_a_missing_package_is_named_with_its_install_line(monkeypatch):
  monkeypatch.setitem(
    photographs.SETS, 'mate', lambda: (pathlib.Path('/none'), ('Dune.jpg',), 'apt-get install it')
  )
  photographs.open_photographs.cache_clear()
  with pytest.raises(ValueError, match=r'/none/Dune\.jpg is missing; install it: apt-get install'):
    data.open_source('photographs', 'mate')


def test_an_unknown_split_is_named():
  with pytest.raises(ValueError, match=r"has no split 'train'; use one of .*'scikit_image'"):
    data.open_source('photographs', 'train')
