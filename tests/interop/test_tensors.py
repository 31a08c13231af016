"""Files of weights: shards and dtypes."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy

from contrastive_jax import interop
from contrastive_jax.interop import tensors
from tests.interop.models import assert_same_parameters, model_of

FORMS = {
  'model.safetensors': (interop.write_hugging_face, interop.read_hugging_face),
  'open_clip_model.safetensors': (interop.write_open_clip, interop.read_open_clip),
}


def shard(path):
  """Cuts weights in two with an index, as save_pretrained does; gives the index and the shards."""
  weights = safetensors.numpy.load_file(path)
  names = sorted(weights)
  stem, shard_of = path.name.removesuffix('.safetensors'), {}
  for number, own in enumerate((names[:9], names[9:]), 1):
    file = f'{stem}-{number:05}-of-00002.safetensors'
    safetensors.numpy.save_file({name: weights[name] for name in own}, path.parent / file)
    shard_of |= dict.fromkeys(own, file)
  path.unlink()
  index = path.with_name(f'{path.name}.index.json')
  index.write_text(json.dumps({'metadata': {'total_size': 1}, 'weight_map': shard_of}))
  return index, [path.parent / file for file in sorted({*shard_of.values()})]


def write_raw(path, dtype, raw, shape):
  """A .safetensors file of one tensor, whatever its dtype."""
  header = json.dumps({'weight': {'dtype': dtype, 'shape': shape, 'data_offsets': [0, len(raw)]}})
  path.write_bytes(struct.pack('<Q', len(header)) + header.encode() + raw)
  return path


@pytest.mark.parametrize('name', FORMS)
def test_shards_are_the_model_that_one_file_is(name, tmp_path):
  write, read = FORMS[name]
  write(model := model_of({}), tmp_path)
  shard(tmp_path / name)
  assert_same_parameters(model, read(tmp_path))
  assert_same_parameters(model, interop.read(tmp_path))


def test_shards_that_are_not_what_their_index_says_are_named(tmp_path):
  interop.write_hugging_face(model_of({}), tmp_path)
  index, (first, second) = shard(tmp_path / 'model.safetensors')
  whole, listed = second.read_bytes(), index.read_text()
  second.write_bytes(whole[:100])
  with pytest.raises(ValueError, match=r'00002-of-00002.*\(100 bytes\) is no whole'):
    interop.read(tmp_path)
  second.unlink()
  with pytest.raises(ValueError, match=r'holds no model-00002-of-00002\.safetensors'):
    interop.read(tmp_path)
  second.write_bytes(whole)
  index.write_text(listed.replace('"logit_scale"', '"novelty"'))
  with pytest.raises(ValueError, match=r'00001-of-00002.* do not agree on logit_scale, novelty'):
    interop.read(tmp_path)
  index.write_text(listed.replace(f'"{first.name}"', '"../elsewhere.safetensors"'))
  with pytest.raises(ValueError, match=r'holds no \.\./elsewhere'):
    interop.read(tmp_path)
  index.write_text('{}')
  with pytest.raises(ValueError, match='no weight_map'):
    interop.read(tmp_path)
  index.unlink()
  with pytest.raises(ValueError, match=r'00002\.safetensors need their index, model\.'):
    interop.read(tmp_path)


@pytest.mark.parametrize('dtype', ['F8_E4M3', 'F8_E5M2', 'F8_E8M0', 'F4', 'C64'])
def test_a_dtype_that_is_not_read_is_named_with_its_tensor(dtype, tmp_path):
  size = {'F4': 1, 'C64': 16}.get(dtype, 2)
  path = write_raw(tmp_path / 'model.safetensors', dtype, bytes(size), [2])
  with pytest.raises(ValueError, match=rf'weight is {dtype}, .* F32, F16 or BF16'):
    tensors.read(path)


@pytest.mark.parametrize(('dtype', 'bits'), [('F16', b'\0\x3e'), ('BF16', b'\xc0\x3f')])
def test_half_precision_is_read(dtype, bits, tmp_path):
  found = tensors.read(write_raw(tmp_path / 'model.safetensors', dtype, bits, [1]))
  assert found['weight'].astype(np.float32) == 1.5


def test_whole_numbers_are_no_weights(tmp_path):
  interop.write_hugging_face(model_of({}), tmp_path)
  path = tmp_path / 'model.safetensors'
  weights = safetensors.numpy.load_file(path)
  weights['visual_projection.weight'] = weights['visual_projection.weight'].astype(np.int8)
  safetensors.numpy.save_file(weights, path)
  with pytest.raises(ValueError, match=r'visual_projection\.weight is int8, no float'):
    interop.read(tmp_path)
