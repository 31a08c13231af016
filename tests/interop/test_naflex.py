"""timm's NaFlexVit in open_clip: images as patches of any grid, by features and gradients.

`python -m tests.interop.test_naflex` makes the stored cases anew.
"""

import json

import jax
import numpy as np
import pytest

from contrastive_jax import interop, losses
from contrastive_jax.data import Patches
from contrastive_jax.interop.model import with_defaults
from contrastive_jax.interop.open_clip import folder as open_clip_folder
from contrastive_jax.interop.open_clip.timm_names import NETWORKS
from tests.interop import parity
from tests.interop.peer.run import run

NAME = 'naflexvit_base_patch16_siglip'
FOLDER = parity.FOLDER / 'naflex'
TEXT = {'context_length': 6, 'vocab_size': 32, 'width': 16, 'heads': 2, 'layers': 1}
TEXT |= {'no_causal_mask': True, 'pool_type': 'last'}
# By kind of pooling: arguments of timm's network, `timm_pool`, and our fields.
POOLINGS = {
  'map': ({'pos_embed_interp_mode': 'bilinear'}, 'map', {}),
  'avg': (
    {'pos_embed_interp_mode': 'bicubic', 'fc_norm': True, 'global_pool': 'avg'},
    '',
    {'pooling': 'mean', 'final_norm': 'pooled', 'interpolation': 'bicubic'},
  ),
  'class': (
    {'pos_embed_interp_mode': 'bicubic', 'class_token': True, 'global_pool': 'token'},
    '',
    {'pooling': 'class', 'class_position': False, 'interpolation': 'bicubic'},
  ),
}
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


def write_request(path, kind, pooling):
  """Writes what the peer's `make` reads."""
  sizes = {'stored': STORED, 'built': BUILT}[kind]
  trunk, pool, _ = POOLINGS[pooling]
  trunk = {
    'patch_size': sizes['patch'],
    'embed_dim': sizes['width'],
    'depth': sizes['layers'],
    'num_heads': sizes['heads'],
    'pos_embed_grid_size': [sizes['grid']] * 2,
    'enable_patch_interpolator': True,
    **trunk,
  }
  vision = {'timm_model_name': NAME, 'timm_pool': pool, 'timm_proj': 'linear'}
  vision['image_size'] = sizes['grid'] * sizes['patch']
  cfg = {'embed_dim': 12, 'vision_cfg': vision, 'text_cfg': TEXT}
  cfg |= {'init_logit_bias': -10.0, 'custom_text': True}
  path.mkdir(parents=True, exist_ok=True)
  request = {'model_cfg': cfg, 'trunk': trunk, 'inputs': INPUTS[kind]}
  (path / 'request.json').write_text(json.dumps(request))


def read(path, kind, pooling, monkeypatch):
  """Reads a case, whose network of timm has other sizes than its name."""
  sizes = {'stored': STORED, 'built': BUILT}[kind]
  _, pool, fields = POOLINGS[pooling]
  network = NETWORKS[NAME]
  sizes = {**sizes, 'size': sizes['grid'] * sizes['patch']}
  fields = {**network.fields, **sizes, **fields}
  del fields['grid']
  monkeypatch.setitem(NETWORKS, NAME, network._replace(fields=fields, pools=(pool,)))
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
  'pooling',
  [name if name == 'map' else pytest.param(name, marks=pytest.mark.slow) for name in POOLINGS],
)
def test_features_and_gradients_of_patches_equal_open_clips(pooling, monkeypatch):
  assert_same(read(FOLDER / pooling, 'stored', pooling, monkeypatch), FOLDER / pooling)


@pytest.mark.parametrize('pooling', POOLINGS)
def test_a_naflexvit_comes_back_with_the_same_bytes(pooling, monkeypatch, tmp_path):
  model = read(FOLDER / pooling, 'stored', pooling, monkeypatch)
  interop.write_open_clip(model, tmp_path)
  weights = 'open_clip_model.safetensors'
  parity.assert_same_bytes(FOLDER / pooling / weights, tmp_path / weights)
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


def test_a_run_may_start_from_weights_with_another_interpolation(monkeypatch):
  model = read(FOLDER / 'map', 'stored', 'map', monkeypatch)
  image = {**model.fields['image'], 'interpolation': 'bicubic'}
  parameters = interop.initial_parameters(FOLDER / 'map', {**model.fields, 'image': image})
  jax.tree.map(np.testing.assert_array_equal, parameters, model.parameters)


@pytest.mark.slow
@pytest.mark.parametrize('pooling', POOLINGS)
def test_a_larger_model_equals_open_clips(pooling, monkeypatch, tmp_path):
  write_request(tmp_path, 'built', pooling)
  run('naflex.py', 'make', tmp_path)
  assert_same(read(tmp_path, 'built', pooling, monkeypatch), tmp_path)


if __name__ == '__main__':
  for pooling in POOLINGS:
    write_request(FOLDER / pooling, 'stored', pooling)
    run('naflex.py', 'make', FOLDER / pooling)
    (FOLDER / pooling / 'request.json').unlink()
