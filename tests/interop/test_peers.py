"""Against the libraries themselves, where they are installed: torch, open_clip, transformers."""

import numpy as np
import pytest

from contrastive_jax import interop
from tests.interop.models import model_of
from tests.interop.parity import CASES, FOLDER, expected
from tests.interop.test_hugging_face import SIGLIP
from tests.models.towers import IMAGE, batch_of

pytestmark = pytest.mark.slow


def tensors_of(torch, images, tokens):
  pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
  return pixels, torch.from_numpy(np.asarray(tokens)).long()


def assert_same(outputs, image, text):
  for mine, theirs in ((outputs.image, image), (outputs.text, text)):
    theirs = theirs.numpy() / np.linalg.norm(theirs.numpy(), axis=1, keepdims=True)
    np.testing.assert_allclose(mine, theirs, atol=2e-5)


@pytest.mark.parametrize('kind', ['clip', 'siglip'])
@pytest.mark.parametrize('size', [32, 48])
def test_hugging_faces_models_give_the_same_features(kind, size, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  torch.manual_seed(0)
  shape = {'num_hidden_layers': 2, 'num_attention_heads': 4}
  text = {**shape, 'hidden_size': 32, 'intermediate_size': 96, 'vocab_size': 256}
  text |= {'max_position_embeddings': 16, 'eos_token_id': 255, 'bos_token_id': 254}
  vision = {**shape, 'hidden_size': 64, 'intermediate_size': 128, 'image_size': 32, 'patch_size': 8}
  if kind == 'clip':
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    theirs = transformers.CLIPModel(config).eval()
  else:
    text['projection_size'] = 64
    theirs = transformers.SiglipModel(
      transformers.SiglipConfig(text_config=text, vision_config=vision)
    ).eval()
  with torch.no_grad():
    for parameter in theirs.parameters():
      parameter.add_(0.05 * torch.randn_like(parameter))
  theirs.save_pretrained(tmp_path / 'there')
  model = interop.read_hugging_face(tmp_path / 'there')
  interop.write_hugging_face(model.resize(size), tmp_path / 'here')
  model, written = model.resize(size), type(theirs).from_pretrained(tmp_path / 'here').eval()
  there = expected('clip')
  images = np.random.default_rng(0).normal(size=(6, size, size, 3)).astype(np.float32)
  pixels, tokens = tensors_of(torch, images, there['tokens'])
  for peer in (theirs, written) if size == 32 else (written,):
    with torch.no_grad():
      found = peer(pixel_values=pixels, input_ids=tokens)
    outputs = model(images, there['tokens'])
    assert_same(outputs, found.image_embeds, found.text_embeds)
    scores = outputs.scale * outputs.image @ outputs.text.T
    scores += 0.0 if outputs.bias is None else outputs.bias
    np.testing.assert_allclose(scores, found.logits_per_image.numpy(), atol=1e-3)


@pytest.mark.parametrize('fields', [{}, SIGLIP])
def test_transformers_loads_our_models(fields, tmp_path):
  torch = pytest.importorskip('torch')
  transformers = pytest.importorskip('transformers')
  model = model_of(fields)
  interop.write_hugging_face(model, tmp_path)
  peer = transformers.AutoModel.from_pretrained(tmp_path).eval()
  images, tokens = batch_of()
  tokens[np.arange(4), (tokens != 0).sum(axis=1) - 1] = 31
  tokens[:, :-1][tokens[:, :-1] == 31] = np.where(tokens[:, 1:] == 0, 31, 30)[tokens[:, :-1] == 31]
  pixels, ids = tensors_of(torch, images, tokens)
  with torch.no_grad():
    found = peer(pixel_values=pixels, input_ids=ids)
  assert_same(model(images, tokens), found.image_embeds, found.text_embeds)


@pytest.mark.parametrize('case', CASES)
def test_open_clip_loads_what_was_read_and_written(case, tmp_path):
  torch = pytest.importorskip('torch')
  open_clip = pytest.importorskip('open_clip')
  there = expected(case)
  interop.write_open_clip(interop.read_open_clip(FOLDER / case), tmp_path)
  peer = open_clip.create_model(f'local-dir:{tmp_path}').eval()
  pixels, tokens = tensors_of(torch, there['image'], there['tokens'])
  with torch.no_grad():
    found = peer(pixels, tokens)
  image, text = (
    (found['image_features'], found['text_features']) if isinstance(found, dict) else found[:2]
  )
  np.testing.assert_allclose(image.numpy(), there['image_features'], atol=2e-5)
  np.testing.assert_allclose(text.numpy(), there['text_features'], atol=2e-5)
  if case == 'coca':
    np.testing.assert_allclose(found['logits'].numpy(), there['logits'], atol=2e-3)


@pytest.mark.parametrize(
  ('fields', 'end_id'),
  [
    ({'image': {'scan': True}}, 2),
    ({'image': {'pre_norm': False, 'epsilon': 1e-3}, 'text': {'activation': 'gelu_tanh'}}, None),
    (
      {
        'text': {'causal': False, 'mask_padding': False, 'pooling': 'last'},
        'text_projection': 'affine',
        'bias': -10.0,
      },
      None,
    ),
  ],
)
def test_open_clip_loads_our_models(fields, end_id, tmp_path):
  torch = pytest.importorskip('torch')
  open_clip = pytest.importorskip('open_clip')
  model = model_of(fields, end_id=end_id)
  interop.write_open_clip(model, tmp_path)
  peer = open_clip.create_model(f'local-dir:{tmp_path}').eval()
  images, _ = batch_of()
  end = 31 if end_id is None else end_id
  tokens = np.array([[5, 9, end, 0, 0, 0], [4, end, 0, 0, 0, 0], [7, 8, 9, 3, 11, end]] * 2)[:4]
  pixels, ids = tensors_of(torch, images, tokens)
  with torch.no_grad():
    image, text = peer.encode_image(pixels), peer.encode_text(ids)
  assert_same(model(images, tokens.astype(np.int32)), image, text)


@pytest.mark.parametrize('size', [16, 64])
def test_open_clip_resizes_positions_as_we_do(size, tmp_path):
  torch = pytest.importorskip('torch')
  open_clip = pytest.importorskip('open_clip')
  shape = {**IMAGE, 'size': 32}
  model = model_of({'image': shape})
  interop.write_open_clip(model, tmp_path)
  peer = open_clip.create_model(f'local-dir:{tmp_path}', force_image_size=size).eval()
  images = np.random.default_rng(0).normal(size=(3, size, size, 3)).astype(np.float32)
  tokens = np.array([[5, 9, 31, 0, 0, 0]] * 3, np.int32)
  pixels, ids = tensors_of(torch, images, tokens)
  with torch.no_grad():
    image, text = peer.encode_image(pixels), peer.encode_text(ids)
  assert_same(interop.read_open_clip(tmp_path, image_size=size)(images, tokens), image, text)
