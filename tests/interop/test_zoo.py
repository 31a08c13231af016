"""Families of open_clip's zoo: features, gradients, training steps, and bytes."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from contrastive_jax import interop, losses
from contrastive_jax.interop import table
from contrastive_jax.interop.model import shapes_of, with_defaults
from contrastive_jax.interop.open_clip import config as open_clip_config
from contrastive_jax.interop.open_clip import folder as open_clip_folder
from contrastive_jax.interop.open_clip.timm_names import NETWORKS
from contrastive_jax.models.definition import join_statistics, updated_statistics
from tests.doubles import slow_but
from tests.interop.parity import assert_same_bytes
from tests.interop.peer import run as peer
from tests.interop.zoo import CASES, FOLDER, expected, sampled, shrink

WEIGHTS = 'open_clip_model.safetensors'
_NOT_TRAINED = ('running_mean', 'running_var', 'num_batches_tracked')


def loss_of(outputs, tokens):
  pair = {'image': outputs.image, 'text': outputs.text, 'scale': outputs.scale}
  if outputs.bias is not None:
    return losses.sigmoid(**pair, bias=outputs.bias)
  loss = losses.info_nce(**pair)
  if outputs.caption_logits is not None:
    loss += 2 * losses.captioning(outputs.caption_logits, tokens[:, 1:])
  return loss


def assert_computes(model, there):
  def encode(parameters, image, tokens):
    bound = model.definition.bind(parameters)
    return bound.encode_image(image), bound.encode_text(tokens)

  image, text = jax.jit(encode)(model.parameters, there['image'], there['tokens'])
  np.testing.assert_allclose(image, there['image_features'], atol=2e-4)
  np.testing.assert_allclose(text, there['text_features'], atol=2e-4)


def assert_learns(model, there):
  definition, optimizer = model.definition, optax.adamw(1e-3, eps=1e-6, weight_decay=0.0)
  trained, statistics = definition.part(model.parameters)

  def value(trained, statistics, train):
    bound = definition.bind(join_statistics(trained, statistics))
    if train:
      bound.set_attributes(use_running_average=False, raise_if_not_found=False)
    outputs = bound(there['image'], there['tokens'])
    return loss_of(outputs, there['tokens']), updated_statistics(bound)

  def step(trained, statistics, state, train):
    compute = jax.value_and_grad(value, has_aux=True)
    (loss, statistics), gradient = compute(trained, statistics, train)
    updates, state = optimizer.update(gradient, state, trained)
    return loss, gradient, optax.apply_updates(trained, updates), statistics, state

  step = jax.jit(step, static_argnums=3)
  state = optimizer.init(trained)
  _, gradient, *_ = step(trained, statistics, state, False)
  theirs = open_clip_folder.to_tensors(
    join_statistics(gradient, statistics), model.fields, model.source['model_cfg']
  )
  theirs = {name: a for name, a in theirs.items() if not name.endswith(_NOT_TRAINED)}
  samples = there['gradient_samples']
  for name, norm in zip(sorted(theirs), there['gradient_norms'], strict=True):
    other, samples = np.split(samples, [(mine := sampled(theirs[name])).size])
    assert abs(np.linalg.norm(theirs[name]) - norm) <= 1e-3 * norm + 1e-6, name
    assert np.linalg.norm(mine - other) <= 1e-3 * np.linalg.norm(other) + 1e-6, name
  assert samples.size == 0
  curve = []
  for _ in there['losses']:
    loss, _, trained, statistics, state = step(trained, statistics, state, bool(statistics))
    curve.append(float(loss))
  np.testing.assert_allclose(curve, there['losses'], rtol=1e-4)


def assert_comes_back(folder, model, tmp_path):
  interop.write_open_clip(model, tmp_path)
  assert_same_bytes(folder / WEIGHTS, tmp_path / WEIGHTS)
  again = interop.read_open_clip(tmp_path)
  assert with_defaults(again.fields) == with_defaults(model.fields)
  before, after = (
    json.loads((each / 'open_clip_config.json').read_text())['model_cfg']
    for each in (folder, tmp_path)
  )
  for section in ('vision_cfg', 'text_cfg'):
    assert before[section].items() <= after[section].items()


# SigLIP 2 computes the same but for a remainder of pixels, which a test of the tower has.
LIKE_OTHERS = ('siglip',)


@pytest.mark.parametrize('case', slow_but(CASES, *(set(CASES) - set(LIKE_OTHERS))))
def test_a_family_computes_as_in_open_clip(case, monkeypatch):
  shrink(monkeypatch, case)
  assert_computes(interop.read_open_clip(FOLDER / case), expected(case))


@pytest.mark.slow
@pytest.mark.parametrize('case', CASES)
def test_a_family_learns_as_in_open_clip(case, monkeypatch):
  shrink(monkeypatch, case)
  assert_learns(interop.read_open_clip(FOLDER / case), expected(case))


@pytest.mark.parametrize('case', CASES)
def test_a_family_comes_back_with_the_same_bytes(case, monkeypatch, tmp_path):
  shrink(monkeypatch, case)
  assert_comes_back(FOLDER / case, interop.read_open_clip(FOLDER / case), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('case', ['roberta_pooler', 'xlm_roberta_class', 'nllb_siglip'])
def test_a_larger_text_tower_of_hugging_face_is_open_clips(case, monkeypatch, tmp_path):
  peer.run('zoo.py', 'cases', tmp_path, case)
  shrink(monkeypatch, case, tmp_path)
  model = interop.read_open_clip(tmp_path / case)
  there = expected(case, folder=tmp_path)
  assert_computes(model, there)
  assert_learns(model, there)
  assert_comes_back(tmp_path / case, model, tmp_path / 'written')


def test_a_tower_that_timm_has_is_written_by_its_name(monkeypatch, tmp_path):
  shrink(monkeypatch, 'siglip2')
  model = interop.read_open_clip(FOLDER / 'siglip2')
  ours = interop.Model(model.fields, model.parameters)
  interop.write_open_clip(ours, tmp_path)
  config = json.loads((tmp_path / 'open_clip_config.json').read_text())['model_cfg']
  assert config['vision_cfg']['timm_model_name'] == 'vit_base_patch32_siglip_256'
  assert (config['vision_cfg']['timm_pool'], config['vision_cfg']['timm_proj']) == ('map', 'none')
  assert config['custom_text']
  image = {**model.fields['image'], 'heads': 4}
  with pytest.raises(interop.UnsupportedError, match=r"image_projection = 'none' is not supported"):
    other = interop.Model({**model.fields, 'image': image}, model.parameters)
    interop.write_open_clip(other, tmp_path)
  with pytest.raises(interop.UnsupportedError, match=r'image\.heads = 4 .*siglip_256.*; 2 is'):
    other = interop.Model({**model.fields, 'image': image}, model.parameters, source=model.source)
    interop.write_open_clip(other, tmp_path)


@pytest.mark.parametrize('is_read', [True, False])
def test_a_projection_that_open_clip_lacks_is_named(is_read, monkeypatch, tmp_path):
  shrink(monkeypatch, 'siglip2')
  model = interop.read_open_clip(FOLDER / 'siglip2')
  fields = {**model.fields, 'image_projection': 'mlp'}
  other = interop.Model(fields, model.parameters, source=model.source if is_read else {})
  with pytest.raises(interop.UnsupportedError, match=r"model\.image_projection = 'mlp'.*'linear'"):
    interop.write_open_clip(other, tmp_path)


def published(**vision):
  vision = {'timm_model_name': 'eva02_base_patch16_clip_224', 'timm_pool': 'token', **vision}
  return {'embed_dim': 512, 'vision_cfg': {'timm_proj': None, 'image_size': 224, **vision}}


@pytest.mark.parametrize(
  ('vision', 'message'),
  [
    ({'timm_model_name': 'novelty'}, r"vision_cfg\.timm_model_name = 'novelty'"),
    ({'image_size': 336}, r'vision_cfg\.image_size = 336 .*; 224 is'),
    ({'timm_pool': 'avg'}, r"vision_cfg\.timm_pool = 'avg' .*; 'token' is"),
    ({'timm_proj': 'mlp'}, r"vision_cfg\.timm_proj = 'mlp'"),
    ({'timm_drop': 0.5}, r'vision_cfg\.timm_drop = 0\.5'),
  ],
)
def test_the_check_names_what_has_no_form(vision, message):
  interop.check_open_clip(published())
  interop.check_open_clip({'model_cfg': published(), 'preprocess_cfg': {}})
  with pytest.raises(interop.UnsupportedError, match=message):
    interop.check_open_clip(published(**vision))


def test_the_check_reads_no_config_of_another_kind():
  with pytest.raises(ValueError, match='embed_dim'):
    interop.check_open_clip({'vision_cfg': {}})
  with pytest.raises(interop.UnsupportedError, match=r'text_cfg\.hf_model_name'):
    interop.check_open_clip({**published(), 'text_cfg': {'hf_model_name': 'novelty'}})
  interop.check_open_clip({**published(), 'text_cfg': {'text_arch': 'clip'}})
  modern = {'text_arch': 'modern', 'attention_mode': 'bidirectional'}
  with pytest.raises(interop.UnsupportedError, match=r"text_cfg\.text_arch = 'modern'"):
    interop.check_open_clip({**published(), 'text_cfg': modern})


@pytest.mark.parametrize('name', NETWORKS)
def test_networks_have_the_size_of_their_name(name):
  *_, size = name.split('_')
  # A NaFlexVit has 16 x 16 position embeddings.
  assert NETWORKS[name].fields['size'] == (256 if NETWORKS[name].naflex else int(size))
  assert f'patch{NETWORKS[name].fields["patch"]}_' in name or name == 'vit_base_mci_224'


@pytest.mark.slow
def test_every_supported_config_has_open_clips_tensors(tmp_path):
  """Set OPEN_CLIP_PYTHON to an interpreter that has open_clip, if this one lacks it."""
  python = os.environ.get('OPEN_CLIP_PYTHON', sys.executable)
  find = 'import open_clip, pathlib; print(pathlib.Path(open_clip.__file__).parent)'
  found = subprocess.run([python, '-c', find], capture_output=True, text=True, check=False)
  if found.returncode:
    pytest.skip('open_clip is not installed; set OPEN_CLIP_PYTHON')
  configs = pathlib.Path(found.stdout.strip().splitlines()[-1]) / 'model_configs'
  supported = {}
  for path in sorted(configs.glob('*.json')):
    given = json.loads(path.read_text())
    try:
      interop.check_open_clip(given)
    except interop.UnsupportedError:
      continue
    supported[path.stem] = given
  assert len(supported) >= 139
  script = pathlib.Path(__file__).parent / 'peer' / 'zoo.py'
  subprocess.run([python, script, 'shapes', tmp_path / 'out.json', *supported], check=True)
  theirs = json.loads((tmp_path / 'out.json').read_text())
  for name, given in supported.items():
    fields = open_clip_config.read_config(given)[0]
    rows = open_clip_config.rows(with_defaults(fields), given)
    ours = table.their_shapes(rows, shapes_of(fields))
    there = {k: tuple(v) for k, v in theirs[name].items() if not k.endswith(_NOT_TRAINED[-1])}
    scalars = {k: () for k in ('logit_scale', 'logit_bias') if k in there}
    assert ours == there | scalars, name
