import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data, interop
from contrastive_jax.pictures import PROCESSOR, Transform, open_picture, read_transform
from tests.interop.models import model_of
from tests.interop.parity import FOLDER
from tests.interop.test_hugging_face import SIGLIP

PICTURES = sorted((pathlib.Path(__file__).parent / 'data' / 'parity' / 'preprocess').glob('*.png'))


def open_clip_folder(folder, **preprocess):
  shutil.copytree(FOLDER / 'siglip', folder)
  config = json.loads((folder / 'open_clip_config.json').read_text())
  config['preprocess_cfg'] = preprocess
  (folder / 'open_clip_config.json').write_text(json.dumps(config))
  return folder


@pytest.mark.parametrize('path', PICTURES, ids=lambda path: path.stem)
def test_by_default_pictures_become_what_clip_takes(path):
  picture, transform = Image.open(path), Transform()
  np.testing.assert_array_equal(
    transform.normalize(transform.pixels(picture, 32)), data.preprocess(picture, 32)
  )


def test_a_picture_is_its_file_and_its_array(tmp_path):
  array = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
  Image.fromarray(array).save(tmp_path / 'picture.png')
  for other in (tmp_path / 'picture.png', str(tmp_path / 'picture.png'), array, array / 255):
    np.testing.assert_array_equal(np.asarray(open_picture(other)), array)


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (np.zeros((4, 4), np.uint8), r'shape \(4, 4\)'),
    (np.zeros((4, 4, 4), np.uint8), r'shape \(4, 4, 4\)'),
    (np.zeros((0, 4, 3), np.uint8), r'shape \(0, 4, 3\)'),
    (np.full((4, 4, 3), 2.0), 'values from 2 to 2'),
    (np.full((4, 4, 3), np.nan), 'values from nan'),
    (np.zeros((4, 4, 3), np.int32), 'int32'),
    (None, 'NoneType'),
  ],
)
def test_what_is_no_picture_is_named(given, message):
  with pytest.raises(ValueError, match=message):
    open_picture(given)


def test_open_clips_entries_are_followed(tmp_path):
  half = [0.5, 0.5, 0.5]
  entries = {'mean': half, 'std': half, 'resize_mode': 'squash', 'interpolation': 'bicubic'}
  folder = open_clip_folder(tmp_path / 'model', **entries)
  transform = read_transform(folder, interop.read(folder))
  picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
  pixels = transform.pixels(picture, 32)
  np.testing.assert_array_equal(pixels, picture.resize((32, 32), Image.Resampling.BICUBIC))
  np.testing.assert_allclose(transform.normalize(pixels), pixels / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize('entry', [{'resize_mode': 'longest'}, {'interpolation': 'nearest'}])
def test_an_entry_without_a_form_is_named(entry, tmp_path):
  folder = open_clip_folder(tmp_path / 'model', **entry)
  with pytest.raises(interop.NoForm, match=rf'preprocess_cfg\.{next(iter(entry))}'):
    read_transform(folder, interop.read(folder))


def test_hugging_faces_models_are_shown_what_their_processors_show(tmp_path):
  for name, fields in (('clip', {}), ('siglip', SIGLIP)):
    interop.write_hugging_face(model_of(fields), tmp_path / name)
  clip, siglip = (
    read_transform(tmp_path / name, interop.read(tmp_path / name)) for name in ('clip', 'siglip')
  )
  assert clip == Transform() and siglip == Transform(True, [0.5] * 3, [0.5] * 3)
  processor = {'image_mean': [0.1, 0.2, 0.3], 'image_std': [1, 1, 1], 'size': 8, 'resample': 3}
  (tmp_path / 'clip' / PROCESSOR).write_text(json.dumps(processor))
  found = read_transform(tmp_path / 'clip', interop.read(tmp_path / 'clip'))
  assert found == Transform(False, [0.1, 0.2, 0.3], [1, 1, 1])
  (tmp_path / 'siglip' / PROCESSOR).write_text(json.dumps({'size': {'shortest_edge': 8}}))
  assert not read_transform(tmp_path / 'siglip', interop.read(tmp_path / 'siglip')).squash
  for entry, name in (({'resample': 2}, 'resample = 2'), ({'size': 9}, r'size = 9 .* \[8, ')):
    (tmp_path / 'clip' / PROCESSOR).write_text(json.dumps(processor | entry))
    with pytest.raises(interop.NoForm, match=name):
      read_transform(tmp_path / 'clip', interop.read(tmp_path / 'clip'))


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['shortest', 'squash'])
@pytest.mark.parametrize('path', PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_what_open_clip_makes_of_it(path, mode):
  open_clip = pytest.importorskip('open_clip')
  mean, deviation = [0.5, 0.4, 0.3], [0.3, 0.4, 0.5]
  theirs = open_clip.image_transform(
    24, is_train=False, mean=mean, std=deviation, resize_mode=mode, interpolation='bicubic'
  )
  transform = Transform(mode == 'squash', mean, deviation)
  picture = Image.open(path)
  np.testing.assert_allclose(
    transform.normalize(transform.pixels(picture, 24)),
    theirs(picture).numpy().transpose(1, 2, 0),
    atol=1e-5,
  )
