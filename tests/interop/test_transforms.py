import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data, interop
from contrastive_jax.interop.transforms import (
  PROCESSOR,
  PROCESSORS,
  Transform,
  open_image,
  read_transform,
)
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
    np.testing.assert_array_equal(np.asarray(open_image(other)), array)


def stored(folder, name, image, **options):
  image.save(folder / name, **options)
  return folder / name


@pytest.mark.parametrize('squash', [False, True])
@pytest.mark.parametrize('orientation', [1, 3, 6])
@pytest.mark.parametrize('mode', ['1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'I;16', 'CMYK'])
def test_a_file_and_what_pil_opens_of_it_are_one_picture(mode, orientation, squash, tmp_path):
  random, exif = np.random.default_rng(0), Image.Exif()
  exif[0x0112] = orientation
  if mode == 'I;16':
    image = Image.fromarray(random.integers(0, 2**16, (20, 30), np.uint16))
  else:
    image = Image.fromarray(random.integers(0, 256, (20, 30, 4), np.uint8))
    image = image.convert('RGB').convert(mode) if mode in ('P', 'CMYK') else image.convert(mode)
  path = stored(tmp_path, 'picture.jpg' if mode == 'CMYK' else 'picture.png', image, exif=exif)
  transform = Transform(squash)
  pixels = transform.pixels(path, 16)
  np.testing.assert_array_equal(transform.pixels(Image.open(path), 16), pixels)
  np.testing.assert_array_equal(transform.pixels(open_image(path), 16), pixels)
  # Upright and in 8 bits it is a picture without either.
  shown = Image.open(path)
  if mode == 'I;16':
    shown = Image.fromarray((np.asarray(shown) >> 8).astype(np.uint8))
  turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}.get(orientation)
  shown = shown if turn is None else shown.transpose(turn)
  shown.info.clear()
  np.testing.assert_array_equal(transform.pixels(shown, 16), pixels)


def test_of_an_animation_the_frame_that_is_open_is_shown(tmp_path):
  frames = [Image.new('L', (8, 8), level) for level in (50, 200)]
  path = stored(tmp_path, 'a.gif', frames[0], save_all=True, append_images=frames[1:])
  opened = Image.open(path)
  assert Transform().pixels(path, 8).max() == Transform().pixels(opened, 8).max() == 50
  opened.seek(1)
  assert Transform().pixels(opened, 8).max() == 200


@pytest.mark.parametrize(
  ('array', 'message'),
  [
    (np.full((4, 4), 65535, np.int32), r"mode I has values from 6.554e\+04 .*mode 'I;16'"),
    (np.full((4, 4), -1, np.int32), 'mode I has values from -1'),
    (np.full((4, 4), 0.5, np.float32), 'mode F has values from 0.5 to 0.5; give values from 0 to'),
    (np.full((4, 4), np.nan, np.float32), 'mode F has values from nan'),
  ],
)
def test_values_that_eight_bits_do_not_hold_are_refused(array, message):
  with pytest.raises(ValueError, match=message):
    Transform().pixels(Image.fromarray(array), 4)
  whole = Image.fromarray(np.full_like(array, 200, array.dtype))
  assert (Transform().pixels(whole, 4) == 200).all()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
  (tmp_path / 'picture.png').write_bytes(b'no picture')
  for name in ('picture.png', 'none.png'):
    with pytest.raises(ValueError, match=name):
      open_image(tmp_path / name)


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
    open_image(given)


def test_open_clips_entries_are_followed(tmp_path):
  half = [0.5, 0.5, 0.5]
  entries = {'mean': half, 'std': half, 'resize_mode': 'squash', 'interpolation': 'bicubic'}
  folder = open_clip_folder(tmp_path / 'model', **entries)
  transform = read_transform(folder, interop.read(folder))
  picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
  pixels = transform.pixels(picture, 32)
  np.testing.assert_array_equal(pixels, picture.resize((32, 32), Image.Resampling.BICUBIC))
  np.testing.assert_allclose(transform.normalize(pixels), pixels / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(('mode', 'squash'), [('squash', True), ('shortest', False)])
def test_bilinear_resampling_is_followed(mode, squash, tmp_path):
  folder = open_clip_folder(tmp_path / 'model', resize_mode=mode, interpolation='bilinear')
  transform = read_transform(folder, interop.read(folder))
  picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
  resized = picture.resize((32, 32) if squash else (48, 32), Image.Resampling.BILINEAR)
  expected = resized if squash else resized.crop((8, 0, 40, 32))
  np.testing.assert_array_equal(transform.pixels(picture, 32), expected)


@pytest.mark.parametrize('entry', [{'resize_mode': 'longest'}, {'interpolation': 'nearest'}])
def test_an_entry_without_a_form_is_named(entry, tmp_path):
  folder = open_clip_folder(tmp_path / 'model', **entry)
  with pytest.raises(interop.UnsupportedError, match=rf'preprocess_cfg\.{next(iter(entry))}'):
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
  for entry, name in (({'resample': 0}, 'resample = 0'), ({'size': 9}, r'size = 9 .* \[8, ')):
    (tmp_path / 'clip' / PROCESSOR).write_text(json.dumps(processor | entry))
    with pytest.raises(interop.UnsupportedError, match=name):
      read_transform(tmp_path / 'clip', interop.read(tmp_path / 'clip'))


# As transformers 4 saves a CLIPProcessor, and transformers 5.
CLIP_PROCESSOR = {
  'image_mean': [0.5, 0.4, 0.3],
  'image_std': [0.2, 0.3, 0.4],
  'resample': 3,
  'size': {'shortest_edge': 8},
  'crop_size': {'height': 8, 'width': 8},
  'do_resize': True,
  'do_center_crop': True,
  'do_rescale': True,
  'rescale_factor': 0.00392156862745098,
  'do_normalize': True,
  'do_convert_rgb': True,
  'image_processor_type': 'CLIPImageProcessor',
}
NESTED = {
  'image_processor': CLIP_PROCESSOR
  | {'size': {'shortest_edge': 8, 'height': None}, 'do_pad': None, 'data_format': 'channels_first'},
  'processor_class': 'CLIPProcessor',
}


@pytest.fixture
def clip_folder(tmp_path):
  interop.write_hugging_face(model_of({}), tmp_path)
  return tmp_path


def read(folder):
  return read_transform(folder, interop.read(folder))


def test_both_files_of_hugging_faces_processors_are_read(clip_folder, caplog):
  assert read(clip_folder) == Transform()
  assert 'has no preprocessor_config.json' in caplog.text
  caplog.clear()
  found = Transform(False, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
  (clip_folder / PROCESSOR).write_text(json.dumps(CLIP_PROCESSOR))
  assert read(clip_folder) == found
  # Older files of this name say nothing of pictures.
  (clip_folder / PROCESSORS).write_text(json.dumps({'processor_class': 'CLIPProcessor'}))
  assert read(clip_folder) == found
  (clip_folder / PROCESSOR).write_text('{}')
  (clip_folder / PROCESSORS).write_text(json.dumps(NESTED))
  assert read(clip_folder) == found
  (clip_folder / PROCESSOR).unlink()
  assert read(clip_folder) == found
  assert not caplog.text


@pytest.mark.parametrize('nested', [False, True])
@pytest.mark.parametrize(
  'entry',
  [
    {'resample': 0},
    {'size': {'shortest_edge': 9}},
    {'crop_size': {'height': 4, 'width': 4}},
    {'do_resize': False},
    {'do_center_crop': False},
    {'do_rescale': False},
    {'rescale_factor': 1 / 127.5},
    {'do_normalize': False},
    {'do_pad': True},
    {'novelty': 1},
  ],
  ids=lambda entry: next(iter(entry)),
)
def test_an_entry_that_makes_other_pixels_is_named(entry, nested, clip_folder):
  content, name, where = CLIP_PROCESSOR | entry, PROCESSOR, PROCESSOR
  if nested:
    content, name, where = {'image_processor': content}, PROCESSORS, f'{PROCESSORS}.image_processor'
  (clip_folder / name).write_text(json.dumps(content))
  with pytest.raises(interop.UnsupportedError, match=re.escape(f'{where}.{next(iter(entry))} = ')):
    read(clip_folder)


@pytest.mark.parametrize('entry', [{'size': 48}, {'size': [32, 48]}, {'mode': 'L'}, {'novelty': 1}])
def test_an_entry_of_open_clips_that_makes_other_pixels_is_named(entry, tmp_path):
  (name,) = entry
  read(open_clip_folder(tmp_path / 'same', size=[32, 32], mode='RGB', fill_color=0, mean=None))
  with pytest.raises(interop.UnsupportedError, match=rf'preprocess_cfg\.{name} = '):
    read(open_clip_folder(tmp_path / 'model', **entry))


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
