"""Reads the state dicts of OpenAI's CLIP, inferring the config from the shapes."""

import math
import pathlib
import re

from contrastive_jax.interop import tensors
from contrastive_jax.interop.model import Model
from contrastive_jax.interop.open_clip import from_tensors
from contrastive_jax.interop.table import Shapes

_HEAD_WIDTH = 64  # in every CLIP of OpenAI
_NOT_WEIGHTS = ('input_resolution', 'context_length', 'vocab_size')


def read_openai(path: str | pathlib.Path, *, image_size: int | None = None) -> Model:
  """Reads a CLIP of OpenAI, with a ViT or a ResNet; write it with `write_open_clip`.

  Args:
    path: a .safetensors file of the state dict, or a folder that holds model.safetensors.
    image_size: side of the images in pixels; default the model's. For another size the position
      embeddings are interpolated.

  Raises:
    ValueError: if the file is incomplete or a pickle; if tensors are missing, unexpected, or of
      another shape.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    path = tensors.find(path, ('model.safetensors',))
  weights = {k: v for k, v in tensors.read(path).items() if k not in _NOT_WEIGHTS}
  shapes = {name: tensor.shape for name, tensor in weights.items()}
  model = from_tensors(weights, {'model_cfg': _config(shapes, path)}, str(path))
  return model if image_size is None else model.resize(image_size)


def _config(shapes: Shapes, path: pathlib.Path) -> dict:
  is_resnet = 'visual.layer1.0.conv1.weight' in shapes
  positions = f'visual.{"attnpool." if is_resnet else ""}positional_embedding'
  needed = {
    'visual.conv1.weight': 4,
    positions: 2,
    'token_embedding.weight': 2,
    'positional_embedding': 2,
    'text_projection': 2,
  }
  missing = [name for name, axes in needed.items() if len(shapes.get(name, ())) != axes]
  if missing:
    raise ValueError(f'{path} is no CLIP of OpenAI: {", ".join(missing)} are missing')

  def layers(prefix):
    found = re.compile(re.escape(prefix) + r'\.(\d+)\.')
    return len({match[1] for match in map(found.match, shapes) if match})

  width, _, _, patch = shapes['visual.conv1.weight']
  vision = {'layers': layers('visual.transformer.resblocks'), 'patch_size': patch, 'width': width}
  if is_resnet:
    # The first convolutions have half of the width, and the tower divides the image by 32.
    stages = [layers(f'visual.layer{stage}') for stage in range(1, 5)]
    patch, vision = 32, {'layers': stages, 'patch_size': None, 'width': 2 * width}
  vocabulary, text_width = shapes['token_embedding.weight']
  return {
    'embed_dim': shapes['text_projection'][1],
    'quick_gelu': True,
    'vision_cfg': {
      'image_size': patch * math.isqrt(shapes[positions][0] - 1),
      **vision,
      'head_width': _HEAD_WIDTH,
    },
    'text_cfg': {
      'context_length': shapes['positional_embedding'][0],
      'vocab_size': vocabulary,
      'width': text_width,
      'heads': text_width // _HEAD_WIDTH,
      'layers': layers('transformer.resblocks'),
    },
  }
