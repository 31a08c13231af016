"""open_clip's models: equal figures, equal bytes, and faults by name."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from contrastive_jax import interop, losses
from contrastive_jax.interop.model import unstack_layers, with_defaults
from contrastive_jax.interop.open_clip import folder as open_clip_folder
from tests.doubles import slow_but
from tests.interop.models import assert_same_parameters, model_of
from tests.interop.parity import CASES, FOLDER, assert_same_bytes, expected, sampled
from tests.models.towers import SECTIONS, TEXT

WEIGHTS = 'open_clip_model.safetensors'
CONFIG = 'open_clip_config.json'


def copy_of(case, folder):
  shutil.copytree(FOLDER / case, folder)
  return folder


def change(folder, edit):
  """Edits a folder's tensors, and writes them."""
  weights = safetensors.numpy.load_file(folder / WEIGHTS)
  edit(weights)
  safetensors.numpy.save_file(weights, folder / WEIGHTS)


def configure(folder, **entries):
  """Sets entries of model_cfg, `section__entry` in a section."""
  config = json.loads((folder / CONFIG).read_text())
  for name, value in entries.items():
    *section, entry = name.split('__')
    node = config['model_cfg'][section[0]] if section else config['model_cfg']
    node[entry] = value
  (folder / CONFIG).write_text(json.dumps(config))


def loss_terms(outputs, tokens):
  if outputs.bias is not None:
    sigmoid = losses.sigmoid(outputs.image, outputs.text, scale=outputs.scale, bias=outputs.bias)
    return {'loss_sigmoid': sigmoid}
  terms = {'loss_contrastive': losses.info_nce(outputs.image, outputs.text, scale=outputs.scale)}
  if outputs.caption_logits is not None:
    terms['loss_caption'] = 2 * losses.captioning(outputs.caption_logits, tokens[:, 1:])
  return terms


# The first is the second with another activation, that of the others.
@pytest.mark.parametrize('case', slow_but(CASES, *CASES[1:]))
def test_features_losses_and_gradients_equal_open_clips(case):
  model, there = interop.read_open_clip(FOLDER / case), expected(case)

  @jax.jit
  def compute(parameters):
    def total(parameters):
      outputs = model.definition.bind(parameters)(there['image'], there['tokens'])
      terms = loss_terms(outputs, there['tokens'])
      return sum(terms.values()), (outputs, terms)

    return jax.grad(total, has_aux=True)(parameters)

  gradient, (outputs, terms) = compute(model.parameters)
  here = {
    'image_features': outputs.image,
    'text_features': outputs.text,
    'logit_scale': outputs.scale,
    'logit_bias': outputs.bias,
    'logits': outputs.caption_logits,
    **terms,
  }
  for name in there.keys() - {'image', 'tokens', 'gradient_norms', 'gradient_samples'}:
    distance = np.max(np.abs(here[name] - there[name]))
    assert distance <= 2e-4 * np.max(np.abs(there[name])), name

  config = model.source['model_cfg']
  theirs = open_clip_folder.to_tensors(gradient, model.fields, config)
  samples = there['gradient_samples']
  for name, norm in zip(sorted(theirs), there['gradient_norms'], strict=True):
    mine = sampled(theirs[name])
    other, samples = np.split(samples, [mine.size])
    assert np.linalg.norm(theirs[name]) == pytest.approx(norm, rel=1e-3), name
    assert np.linalg.norm(mine - other) <= 1e-3 * np.linalg.norm(other), name
  assert samples.size == 0


@pytest.mark.parametrize('case', CASES)
def test_what_is_read_and_written_has_the_same_bytes(case, tmp_path):
  model = interop.read_open_clip(FOLDER / case)
  interop.write_open_clip(model, tmp_path)
  assert_same_bytes(FOLDER / case / WEIGHTS, tmp_path / WEIGHTS)
  again = interop.read_open_clip(tmp_path)
  assert with_defaults(again.fields) == with_defaults(model.fields)
  assert again.source['model_cfg']['custom_text'] == (case in ('siglip', 'coca'))


def test_the_style_of_the_hub_is_read_and_kept(tmp_path):
  folder = copy_of('siglip', tmp_path / 'model')
  config = json.loads((folder / CONFIG).read_text())
  published = {
    'model_cfg': {
      **config['model_cfg'],
      'custom_text': True,
      'text_cfg': {**config['model_cfg']['text_cfg'], 'hf_tokenizer_name': 'name/of-tokenizer'},
    },
    'preprocess_cfg': {'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5]},
  }
  (folder / CONFIG).write_text(json.dumps(published))
  model = interop.read_open_clip(folder)
  interop.write_open_clip(model, folder)
  after = json.loads((folder / CONFIG).read_text())
  assert after['preprocess_cfg'] == published['preprocess_cfg']
  assert after['model_cfg']['custom_text']
  assert after['model_cfg']['text_cfg']['hf_tokenizer_name'] == 'name/of-tokenizer'


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'image': {'scan': True}, 'text': {'scan': True}},
    {'image': {'pre_norm': False, 'epsilon': 1e-6, 'mlp_ratio': 3.5}},
    {
      'text': {'causal': False, 'mask_padding': False, 'pooling': 'last', 'activation': 'gelu_tanh'}
    },
    {'text_projection': 'affine', 'bias': -10.0},
    {'text_projection': 'none', 'embed': 16},
  ],
)
def test_our_models_come_back_the_same(fields, tmp_path):
  model = model_of(fields)
  interop.write_open_clip(model, tmp_path)
  again = interop.read_open_clip(tmp_path)
  assert_same_parameters(model, again)
  ours, theirs = with_defaults(model.fields), with_defaults(again.fields)
  for name in ('scale', 'image/scan', 'text/scan'):
    ours.pop(name), theirs.pop(name)
  # A causal token never sees the padding: there the two mean the same.
  assert theirs == ours


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'image': {'stem': 'convolution'}}, r"image\.stem = 'convolution'"),
    ({'image': {'pooling': 'mean'}}, r"image\.pooling = 'mean'"),
    ({'image': {'pooling': 'attention'}}, r"image\.pooling = 'attention'"),
    ({'image': {'stem_bias': True}}, r'image\.stem_bias = True'),
    ({'text': {'pooling': 'mean'}}, r"text\.pooling = 'mean'"),
    ({'text': {'causal': False}}, r'text\.mask_padding = True'),
    ({'text': {'activation': 'quick_gelu'}}, r"text\.activation = 'quick_gelu'"),
    ({'image_projection': 'none', 'embed': 16}, r"image_projection = 'none'"),
  ],
)
def test_a_part_without_a_form_is_named_and_nothing_is_written(fields, message, tmp_path):
  with pytest.raises(interop.UnsupportedError, match=message):
    interop.write_open_clip(model_of(fields), tmp_path / 'model')
  assert not (tmp_path / 'model').exists()


@pytest.mark.parametrize(
  ('field', 'value'),
  [('pooler', 'cascade'), ('pooler', 'parallel'), ('decoder', {'mlps': 1})],
)
def test_the_papers_coca_has_no_form_in_open_clip(field, value, tmp_path):
  model = interop.read_open_clip(FOLDER / 'coca')
  value = {**model.fields[field], **value} if isinstance(value, dict) else value
  other = dataclasses.replace(model, fields={**model.fields, field: value})
  name = 'decoder.mlps' if field == 'decoder' else field
  with pytest.raises(interop.UnsupportedError, match=rf'{name} = '):
    interop.write_open_clip(other, tmp_path)


@pytest.mark.parametrize(
  ('case', 'entries', 'message'),
  [
    ('siglip', {'vision_cfg__timm_model_name': 'vit_novelty_224'}, 'timm_model_name'),
    ('siglip', {'text_cfg__hf_model_name': 'google/mt5-base'}, r'text_cfg\.hf_model_name'),
    ('clip', {'vision_cfg__layers': [3, 4, 6]}, r'vision_cfg\.layers = \[3, 4, 6\]'),
    ('clip', {'vision_cfg__pool_type': 'none'}, r"vision_cfg\.pool_type = 'none'"),
    ('clip', {'vision_cfg__scale_heads': True}, r'vision_cfg\.scale_heads'),
    ('clip', {'vision_cfg__image_size': [32, 64]}, r'vision_cfg\.image_size'),
    ('clip', {'vision_cfg__attentional_pool': True}, r'vision_cfg\.attentional_pool = True'),
    ('clip', {'text_cfg__pool_type': 'first'}, r"text_cfg\.pool_type = 'first'"),
    ('clip', {'vision_cfg__novelty': 1}, r'vision_cfg\.novelty = 1'),
    ('clip', {'novelty': 1}, r'model_cfg\.novelty = 1'),
    ('coca', {'vision_cfg__attentional_pool': 'cascade'}, r"attentional_pool = 'cascade'"),
    ('coca', {'multimodal_cfg__width': 64}, r'multimodal_cfg\.width = 64'),
  ],
)
def test_an_entry_without_a_form_here_is_named(case, entries, message, tmp_path):
  folder = copy_of(case, tmp_path / 'model')
  configure(folder, **entries)
  with pytest.raises(interop.UnsupportedError, match=message):
    interop.read_open_clip(folder)


def test_faults_of_tensors_are_listed_together(tmp_path):
  folder = copy_of('clip', tmp_path / 'model')

  def spoil(weights):
    weights['visual.novelty'] = weights.pop('visual.proj')
    weights['ln_final.weight'] = weights['ln_final.weight'][:5]
    del weights['transformer.resblocks.1.attn.in_proj_bias']

  change(folder, spoil)
  with pytest.raises(ValueError, match='does not hold the model of its config') as caught:
    interop.read_open_clip(folder)
  for fault in (
    'visual.proj is missing',
    'visual.novelty is unexpected',
    'ln_final.weight has the shape [5], not [32]',
    'transformer.resblocks.1.attn.in_proj_bias is missing',
  ):
    assert fault in str(caught.value)


@pytest.mark.parametrize('kept', [0, 5, 1000, 500_000])
def test_a_truncated_file_is_refused(kept, tmp_path):
  folder = copy_of('clip', tmp_path / 'model')
  whole = (folder / WEIGHTS).read_bytes()
  (folder / WEIGHTS).write_bytes(whole[:kept])
  with pytest.raises(ValueError, match=rf'{kept} bytes\) is no whole \.safetensors'):
    interop.read_open_clip(folder)


@pytest.mark.parametrize('name', ['open_clip_pytorch_model.bin', 'epoch_32.pt'])
def test_a_pickle_is_refused_with_the_way_to_convert_it(name, tmp_path):
  folder = copy_of('clip', tmp_path / 'model')
  (folder / WEIGHTS).rename(folder / name)
  with pytest.raises(ValueError, match=rf'{name} is a pickle.*safetensors\.torch\.save_file'):
    interop.read_open_clip(folder)


def test_a_missing_file_is_named(tmp_path):
  with pytest.raises(ValueError, match='is no folder'):
    interop.read_open_clip(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match=r'holds no open_clip_model\.safetensors'):
    interop.read_open_clip(tmp_path)
  folder = copy_of('clip', tmp_path / 'model')
  (folder / CONFIG).unlink()
  with pytest.raises(ValueError, match=r'open_clip_config\.json is missing'):
    interop.read_open_clip(folder)


def test_an_end_that_is_not_the_largest_id_is_said(tmp_path):
  entries = []
  for end_id in (None, 31, 2):
    interop.write_open_clip(model_of({}, end_id=end_id), tmp_path)
    text = json.loads((tmp_path / CONFIG).read_text())['model_cfg']['text_cfg']
    entries.append((text['pool_type'], text.get('eos_id')))
    assert interop.read_open_clip(tmp_path).end_id == (2 if end_id == 2 else None)
  assert entries == [('argmax', None), ('argmax', None), ('eos', 2)]


def test_openais_state_dict_needs_no_config(tmp_path):
  # Heads are 64 wide in all of OpenAI's models.
  shape = {'width': 64, 'heads': 1, 'activation': 'quick_gelu'}
  model = model_of({'image': shape, 'text': shape})
  interop.write_open_clip(model, tmp_path)
  halves = {
    name: tensor.astype(np.float16)
    for name, tensor in safetensors.numpy.load_file(tmp_path / WEIGHTS).items()
  }
  sizes = {'input_resolution': np.int64(8), 'context_length': np.int64(6)}
  path = tmp_path / 'openai' / 'model.safetensors'
  path.parent.mkdir()
  safetensors.numpy.save_file({k: np.asarray(v) for k, v in (halves | sizes).items()}, path)
  for given in (path, path.parent):
    again = interop.read_openai(given)
    for name, array in unstack_layers(again.parameters).items():
      halved = np.asarray(unstack_layers(model.parameters)[name], np.float16).astype(np.float32)
      np.testing.assert_array_equal(array, halved)
    ours, theirs = with_defaults(model.fields), with_defaults(again.fields)
    assert {k: v for k, v in theirs.items() if k != 'scale'} == {
      k: v for k, v in ours.items() if k != 'scale'
    }
  with pytest.raises(ValueError, match=r'no CLIP of OpenAI: .*visual\.conv1\.weight'):
    safetensors.numpy.save_file({'weight': np.zeros(1)}, path)
    interop.read_openai(path)


def test_a_coca_over_another_tower_than_open_clips_is_refused(tmp_path):
  fields = {'name': 'coca', 'embed': 12, 'queries': 5, 'pooler_heads': 2, 'text': TEXT}
  fields |= {'image': SECTIONS['convnext'], 'decoder': {'layers': 1, 'heads': 2}}
  with pytest.raises(interop.UnsupportedError, match=r"model\.image\.tower = 'convnext' is not"):
    interop.write_open_clip(interop.Model(fields, None), tmp_path)
