"""What open_clip makes of images as patches by timm's NaFlexVit, in an environment with both.

    python tests/interop/peer/naflex.py make FOLDER …    a model, and what it computes

`make` reads FOLDER/request.json: `model_cfg`, `trunk` (arguments of timm's network), and `inputs`,
by name the side of the patches, their number, and the grids of the images; or the side of square
images. It writes the model in open_clip's format, and expected.npz as tests/parity_data/README.md
describes. Nothing of contrastive_jax is imported, since open_clip's environment may lack JAX.
"""

import functools
import json
import pathlib
import sys

import numpy as np
import open_clip
import safetensors.torch
import timm
import torch


def patches_of(grids, length, side, random):
  """Patches, coordinates and validity as timm's collator pads them."""
  count = len(grids)
  patches = np.zeros([count, length, side, side, 3], np.float32)
  coordinates = np.zeros([count, length, 2], np.int64)
  valid = np.zeros([count, length], bool)
  for row, (height, width) in enumerate(grids):
    used = height * width
    patches[row, :used] = random.normal(size=(used, side, side, 3)).round(2)
    lines = np.indices((height, width)).reshape(2, -1).T
    coordinates[row, :used], valid[row, :used] = lines, True
  return patches, coordinates, valid


def gradients(model):
  """Norms and every n-th entry of the gradients, in the order of the parameters' names."""
  flat = [p.grad.detach().numpy().reshape(-1) for _, p in sorted(model.named_parameters())]
  sampled = [gradient[:: max(1, gradient.size // 23)] for gradient in flat]
  return np.array([np.linalg.norm(g) for g in flat], np.float32), np.concatenate(sampled)


def compute(model, images, tokens):
  """Features, and gradients of the sigmoid loss."""
  model.zero_grad()
  image = model.encode_image(images, normalize=True)
  text = model.encode_text(tokens, normalize=True)
  scores = model.logit_scale.exp() * image @ text.T + model.logit_bias
  signs = 2 * torch.eye(len(scores)) - 1
  (-torch.nn.functional.logsigmoid(signs * scores).sum() / len(scores)).backward()
  norms, samples = gradients(model)
  features = {'image_features': image.detach().numpy(), 'text_features': text.detach().numpy()}
  return {**features, 'gradient_norms': norms, 'gradient_samples': samples}


def make(folder):
  """Writes a model, and what it computes of each input."""
  request = json.loads((folder / 'request.json').read_text())
  plain = timm.create_model
  cfg = {name: value for name, value in request['model_cfg'].items() if name != 'custom_text'}
  # Entries of open_clip 4.2, which are passed to timm here, so that 3.3 does.
  newer = ('timm_model_kwargs', 'image_seq_len')
  vision = cfg['vision_cfg']
  cfg['vision_cfg'] = {name: value for name, value in vision.items() if name not in newer}
  trunk = request['trunk'] | vision.get('timm_model_kwargs', {})
  timm.create_model = functools.partial(plain, **trunk)
  torch.manual_seed(0)
  try:
    model = open_clip.CustomTextCLIP(**cfg).eval()
  finally:
    timm.create_model = plain
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if 'logit' not in name:
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
  state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
  safetensors.torch.save_file(state, folder / 'open_clip_model.safetensors', {'format': 'pt'})
  config = {'model_cfg': request['model_cfg'], 'trunk': request['trunk']}
  (folder / 'open_clip_config.json').write_text(json.dumps(config, indent=1) + '\n')
  random, found = np.random.default_rng(0), {}
  text = cfg['text_cfg']
  for name, given in request['inputs'].items():
    count = given.get('batch') or len(given['grids'])
    tokens = random.integers(1, text['vocab_size'], (count, text['context_length']))
    if 'grids' in given:
      patches, coordinates, valid = patches_of(
        given['grids'], given['length'], given['side'], random
      )
      arrays = {'patches': patches, 'grid': np.array(given['grids'], np.int32)}
      named = {'patches': patches, 'patch_coord': coordinates, 'patch_valid': valid}
      images = {key: torch.from_numpy(array) for key, array in named.items()}
      if given['side'] == trunk['patch_size']:
        images['patches'] = images['patches'].flatten(2)
    else:
      size = given['size']
      arrays = {'image': random.normal(size=(count, 3, size, size)).round(2).astype(np.float32)}
      images = torch.from_numpy(arrays['image'])
    arrays |= {'tokens': tokens.astype(np.int32)}
    arrays |= compute(model, images, torch.from_numpy(tokens))
    found |= {f'{name}_{key}': array for key, array in arrays.items()}
  np.savez_compressed(folder / 'expected.npz', **found)


if __name__ == '__main__':
  for argument in sys.argv[2:]:
    make(pathlib.Path(argument))
