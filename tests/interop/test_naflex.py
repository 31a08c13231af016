"""timm's NaFlexVit in open_clip: images as patches of any grid, by features and gradients.

`python -m tests.interop.test_naflex` makes the stored cases anew.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest

from contrastive_jax import interop, losses
from contrastive_jax.data import Patches
from contrastive_jax.interop.model import with_defaults
from contrastive_jax.interop.open_clip import folder as open_clip_folder
from contrastive_jax.interop.open_clip.config import read_config
from contrastive_jax.interop.open_clip.timm_names import NETWORKS
from contrastive_jax.interop.transforms import read_transform
from tests.doubles import slow_but
from tests.interop import parity
from tests.interop.peer.run import run

NAME = 'naflexvit_base_patch16_siglip'
FOLDER = parity.FOLDER / 'naflex'
TEXT = {'context_length': 6, 'vocab_size': 32, 'width': 16, 'heads': 2, 'layers': 1}
TEXT |= {'no_causal_mask': True, 'pool_type': 'last'}
# timm's network, its arguments, entries of the vision_cfg, and our fields beside the network's.
# The networks of the last two are as open_clip 4.2 has them, with the entries that 3.3 lacks.
CASES = {
  'map': (NAME, {'pos_embed_interp_mode': 'bilinear'}, {'timm_pool': 'map'}, {}),
  'avg': (
    NAME,
    {'pos_embed_interp_mode': 'bicubic', 'fc_norm': True, 'global_pool': 'avg'},
    {'timm_pool': ''},
    {'pooling': 'mean', 'final_norm': 'pooled', 'interpolation': 'bicubic'},
  ),
  'class': (
    NAME,
    {'pos_embed_interp_mode': 'bicubic', 'class_token': True, 'global_pool': 'token'},
    {'timm_pool': ''},
    {'pooling': 'class', 'class_position': False, 'interpolation': 'bicubic'},
  ),
  'gap': ('naflexvit_base_patch16_gap', {}, {'image_size': 41}, {}),
  'registers': (
    'naflexvit_so150m2_patch16_reg1_map',
    {},
    {'timm_pool': 'map', 'image_size': 24, 'image_seq_len': 25},
    {},
  ),
}
LENGTHS = {'gap': 100, 'registers': 25}  # of the stored ones, in patches
# Sizes of the stored cases, and of larger ones for the slow test.
STORED = {'patch': 4, 'grid': 4, 'width': 16, 'layers': 2, 'heads': 2}
BUILT = {'patch': 16, 'grid': 7, 'width': 96, 'layers': 4, 'heads': 6}
INPUTS = {
  'stored': {
    'own': {'side': 4, 'length': 16, 'grids': [[4, 4], [2, 7], [15, 1], [3, 3]]},
    'resized': {'side': 6, 'length': 12, 'grids': [[4, 3], [2, 5], [1, 12]]},
    'square': {'size': 16, 'batch': 3},
  },
  'built': {
    'own': {'side': 16, 'length': 64, 'grids': [[7, 7], [8, 8], [5, 12], [1, 64], [20, 3], [2, 2]]},
    'larger': {'side': 23, 'length': 49, 'grids': [[7, 7], [3, 11], [6, 8]]},
    'smaller': {'side': 12, 'length': 100, 'grids': [[10, 10], [9, 11], [25, 4]]},
    'square': {'size': 112, 'batch': 3},
  },
}


def write_request(path, kind, case):
  """Writes what the peer's `make` reads."""
  sizes = {'stored': STORED, 'built': BUILT}[kind]
  name, trunk, entries, _ = CASES[case]
  patches = {'patch_size': sizes['patch'], 'pos_embed_grid_size': [sizes['grid']] * 2}
  named = {'timm_model_kwargs': patches}
  if name == NAME:
    named, trunk = {'image_size': sizes['grid'] * sizes['patch']}, trunk | patches
  sizes = {'embed_dim': sizes['width'], 'depth': sizes['layers'], 'num_heads': sizes['heads']}
  trunk = {**sizes, 'enable_patch_interpolator': True, **trunk}
  vision = {'timm_model_name': name, 'timm_proj': 'linear', **named, **entries}
  cfg = {'embed_dim': 12, 'vision_cfg': vision, 'text_cfg': TEXT}
  cfg |= {'init_logit_bias': -10.0, 'custom_text': True}
  path.mkdir(parents=True, exist_ok=True)
  request = {'model_cfg': cfg, 'trunk': trunk, 'inputs': INPUTS[kind]}
  (path / 'request.json').write_text(json.dumps(request))


def read(path, kind, case, monkeypatch):
  """Reads a case, whose network of timm has other sizes than its name."""
  sizes = dict({'stored': STORED, 'built': BUILT}[kind])
  name, _, entries, fields = CASES[case]
  grid, network = sizes.pop('grid'), NETWORKS[name]
  sizes['size'] = grid * sizes['patch']
  if name != NAME:  # the sizes of patches and positions are in the config
    del sizes['patch'], sizes['size']
  fields = {**network.fields, **sizes, **fields}
  pools = (entries.get('timm_pool', 'avg'),)
  monkeypatch.setitem(NETWORKS, name, network._replace(fields=fields, pools=pools))
  return interop.read_open_clip(path)


def compute(model, images, tokens):
  """Features, and gradients of the sigmoid loss by open_clip's names."""

  @jax.jit
  def of(parameters, images):
    def total(parameters):
      outputs = model.definition.bind(parameters)(images, tokens)
      pair = {'image': outputs.image, 'text': outputs.text}
      return losses.sigmoid(**pair, scale=outputs.scale, bias=outputs.bias), outputs

    return jax.value_and_grad(total, has_aux=True)(parameters)

  (_, outputs), gradient = of(model.parameters, images)
  named = open_clip_folder.to_tensors(gradient, model.fields, model.source['model_cfg'])
  return outputs, named


def assert_same(model, path):
  """Features within 2e-4 and gradients within 1e-3 of open_clip's, for each input."""
  with np.load(path / 'expected.npz') as arrays:
    found = dict(arrays)
  for name in dict.fromkeys(key.partition('_')[0] for key in found):
    there = {
      key.removeprefix(f'{name}_'): array
      for key, array in found.items()
      if key.startswith(f'{name}_')
    }
    if 'grid' in there:
      images = Patches(there['patches'], there['grid'])
    else:
      images = there['image'].transpose(0, 2, 3, 1)
    outputs, gradient = compute(model, images, there['tokens'])
    distance = np.abs(outputs.image - there['image_features']).max()
    assert distance <= 2e-4, (name, distance)
    np.testing.assert_allclose(outputs.text, there['text_features'], atol=2e-4)
    samples, worst = there['gradient_samples'], 0.0
    # Of a key's bias the gradient is zero but for rounding.
    floor = 1e-6 * np.linalg.norm(there['gradient_norms'])
    for key, norm in zip(sorted(gradient), there['gradient_norms'], strict=True):
      mine = parity.sampled(gradient[key], 23)
      other, samples = np.split(samples, [mine.size])
      difference = np.linalg.norm(mine - other) / max(np.linalg.norm(other), floor)
      difference = max(difference, abs(np.linalg.norm(gradient[key]) - norm) / max(norm, floor))
      assert difference <= 1e-3, (name, key, difference)
      worst = max(worst, difference)
    assert samples.size == 0
    print(path.name, name, distance, worst)


@pytest.mark.parametrize(
  'case',
  slow_but(CASES, 'map'),
)
def test_features_and_gradients_of_patches_equal_open_clips(case, monkeypatch):
  assert_same(read(FOLDER / case, 'stored', case, monkeypatch), FOLDER / case)


@pytest.mark.parametrize('case', CASES)
def test_a_naflexvit_comes_back_with_the_same_bytes(case, monkeypatch, tmp_path):
  model = read(FOLDER / case, 'stored', case, monkeypatch)
  interop.write_open_clip(model, tmp_path)
  weights = 'open_clip_model.safetensors'
  parity.assert_same_bytes(FOLDER / case / weights, tmp_path / weights)
  assert with_defaults(interop.read_open_clip(tmp_path).fields) == with_defaults(model.fields)


def test_the_sequence_length_is_kept_beside_the_config(monkeypatch, tmp_path):
  model = read(FOLDER / 'map', 'stored', 'map', monkeypatch)
  assert model.sequence_length == 0
  written = interop.Model(model.fields, model.parameters, sequence_length=49)
  interop.write_open_clip(written, tmp_path / 'once')
  again = interop.read_open_clip(tmp_path / 'once')
  assert again.sequence_length == 49 and 'sequence_length' not in again.source
  interop.write_open_clip(again, tmp_path / 'twice')
  config = json.loads((tmp_path / 'twice' / 'open_clip_config.json').read_text())
  assert config['sequence_length'] == 49 and 'sequence_length' not in config['model_cfg']


@pytest.mark.parametrize('case', LENGTHS)
def test_entries_of_open_clip_4_2_come_back(case, monkeypatch, tmp_path):
  model = read(FOLDER / case, 'stored', case, monkeypatch)
  assert model.sequence_length == LENGTHS[case]
  assert (model.fields['image']['size'], model.fields['image']['patch']) == (16, 4)
  interop.write_open_clip(model, tmp_path / 'same')
  config = json.loads((tmp_path / 'same' / 'open_clip_config.json').read_text())
  given = model.source['model_cfg']['vision_cfg']
  assert given.items() <= config['model_cfg']['vision_cfg'].items()
  assert 'sequence_length' not in config
  for length in (49, 0):
    other = dataclasses.replace(model, sequence_length=length)
    interop.write_open_clip(other, tmp_path / str(length))
    assert interop.read_open_clip(tmp_path / str(length)).sequence_length == length
  config = json.loads((tmp_path / '49' / 'open_clip_config.json').read_text())
  kept = config['model_cfg']['vision_cfg'].get('image_seq_len')
  assert kept == (49 if 'image_seq_len' in given else None)


def published(**vision):
  """The parts of ViT-B-16-SigLIP2-naflex in open_clip 4.2, with other entries."""
  entries = {'image_size': 384, 'image_seq_len': 576, 'timm_model_name': NAME}
  entries |= {'timm_pool': 'map', 'timm_proj': 'none', **vision}
  return {'embed_dim': 768, 'vision_cfg': entries, 'text_cfg': {}}


@pytest.mark.parametrize(
  ('vision', 'length'),
  [
    ({}, 576),
    ({'image_seq_len': None}, 576),
    ({'image_seq_len': None, 'image_size': 224}, 196),
    ({'image_seq_len': None, 'image_size': 256}, 0),
    ({'image_size': [384, 256]}, 576),
  ],
)
def test_the_sequence_length_is_that_of_the_config(vision, length):
  fields, _, found = read_config(published(**vision))
  assert found == length
  assert (fields['image']['size'], fields['image']['patch']) == (256, 16)


@pytest.mark.parametrize(
  ('vision', 'message'),
  [
    ({'image_seq_len': 0}, r'vision_cfg\.image_seq_len = 0 '),
    ({'image_seq_len': None, 'image_size': 8}, r'vision_cfg\.image_size = 8 .*; 256 is'),
    ({'image_seq_len': None, 'image_size': [384, 256]}, r'vision_cfg\.image_size = \[384, 256\]'),
    ({'timm_model_kwargs': {'depth': 2}}, r'vision_cfg\.timm_model_kwargs\.depth = 2'),
    (
      {'timm_model_kwargs': {'pos_embed_grid_size': [7, 8]}},
      r'vision_cfg\.timm_model_kwargs = .* squares are',
    ),
    (
      {'timm_model_name': 'naflexvit_base_patch16_parfac_gap'},
      r"timm_model_name = 'naflexvit_base_patch16_parfac_gap' .*: .* factorized",
    ),
    (
      {'timm_model_name': 'vit_base_patch16_siglip_384', 'timm_model_kwargs': {'patch_size': 8}},
      r'vision_cfg\.timm_model_kwargs\.patch_size = 8',
    ),
  ],
)
def test_the_check_names_what_has_no_form(vision, message):
  interop.check_open_clip(published())
  with pytest.raises(interop.UnsupportedError, match=message):
    interop.check_open_clip(published(**vision))


def test_the_transform_of_patches_has_no_size(monkeypatch):
  model = read(FOLDER / 'registers', 'stored', 'registers', monkeypatch)
  source = {**model.source, 'preprocess_cfg': {'size': 24, 'mean': [0.5] * 3}}
  transform = read_transform(FOLDER, dataclasses.replace(model, source=source))
  assert transform.mean == [0.5] * 3
  squares = dataclasses.replace(model, source=source, sequence_length=0)
  with pytest.raises(interop.UnsupportedError, match=r'preprocess_cfg\.size = 24'):
    read_transform(FOLDER, squares)


def test_a_run_may_start_from_weights_with_another_interpolation(monkeypatch):
  model = read(FOLDER / 'map', 'stored', 'map', monkeypatch)
  image = {**model.fields['image'], 'interpolation': 'bicubic'}
  parameters = interop.initial_parameters(FOLDER / 'map', {**model.fields, 'image': image})
  jax.tree.map(np.testing.assert_array_equal, parameters, model.parameters)


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_a_larger_model_equals_open_clips(case, monkeypatch, tmp_path):
  write_request(tmp_path, 'built', case)
  run('naflex.py', 'make', tmp_path)
  assert_same(read(tmp_path, 'built', case, monkeypatch), tmp_path)


if __name__ == '__main__':
  for case in CASES:
    write_request(FOLDER / case, 'stored', case)
    run('naflex.py', 'make', FOLDER / case)
    (FOLDER / case / 'request.json').unlink()
