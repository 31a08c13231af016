"""Runs in an environment with open_clip and timm: shapes of its models, and small cases of them.

  python tests/interop/peer/zoo.py shapes OUT.json NAME…    names and shapes of all tensors
  python tests/interop/peer/zoo.py cases FOLDER CASE…       the cases of tests/parity_data/zoo

It imports nothing of contrastive_jax, since open_clip's environment may lack JAX.
"""

import contextlib
import functools
import json
import pathlib
import sys
import tempfile

import numpy as np
import open_clip
import safetensors.torch
import timm
import torch
from open_clip import coca_model, model
from timm.models import vision_transformer_hybrid as hybrid

EMBED, SIZE, LENGTH, VOCABULARY = 12, 16, 8, 64
TEXT = {'context_length': LENGTH, 'vocab_size': VOCABULARY, 'width': 16, 'heads': 2, 'layers': 1}
VIT = {'image_size': SIZE, 'patch_size': 4, 'width': 16, 'head_width': 8, 'layers': 2}
TRUNK = {'img_size': SIZE, 'patch_size': 4, 'embed_dim': 16, 'depth': 2, 'num_heads': 2}
SIGLIP_TEXT = {'no_causal_mask': True, 'proj_bias': True, 'pool_type': 'last'}
SIGLIP_TEXT['norm_kwargs'] = {'eps': 1e-6}
SIGLIP = {'init_logit_bias': -10.0, 'custom_text': True}


def timm_case(name, *, text=(), pool='token', proj=None, trunk=(), **more):
  """A case with a shrunken network of timm."""
  size = {**TRUNK, **dict(trunk)}['img_size']
  vision = {'timm_model_name': name, 'timm_model_pretrained': False, 'timm_pool': pool}
  vision |= {'timm_proj': proj, 'image_size': size}
  return {
    'model_cfg': {'vision_cfg': vision, 'text_cfg': {**TEXT, **dict(text)}, **more},
    'trunk': {**TRUNK, **dict(trunk)},
  }


def hugging_face_case(config, *, image=None, **text):
  """A case whose text tower transformers builds from a config.json in the folder `text`."""
  names = {'hf_model_name': 'text', 'hf_model_pretrained': False}
  case = image or own_case(custom_text=True)
  case['model_cfg']['text_cfg'] = {'context_length': LENGTH, **names, **text}
  return {**case, 'text': config}


def own_case(*, vision=(), text=(), **more):
  """A case with open_clip's own image tower."""
  sections = {'vision_cfg': {**VIT, **dict(vision)}, 'text_cfg': {**TEXT, **dict(text)}}
  return {'model_cfg': {**sections, **more}, 'trunk': {}}


_CUSTOM = {'ls_init_value': 0.1, 'qk_norm': True, 'scale_attn_inner': True, 'scale_fc': True}
_SWIGLU = {'ref_feat_shape': (3, 3)}
_CLIPA = {'no_ln_pre': True, 'pool_type': 'avg', 'final_ln_after_pool': True}
_DECODER = {'context_length': LENGTH, 'vocab_size': VOCABULARY, 'width': 16, 'heads': 2}

ROBERTA = {
  'model_type': 'roberta',
  'vocab_size': VOCABULARY,
  'hidden_size': 16,
  'num_hidden_layers': 2,
  'num_attention_heads': 2,
  'intermediate_size': 40,
  'max_position_embeddings': 12,
  'type_vocab_size': 1,
  'pad_token_id': 1,
  'bos_token_id': 0,
  'eos_token_id': 2,
  'layer_norm_eps': 1e-5,
  'hidden_act': 'gelu',
  'hidden_dropout_prob': 0.0,
  'attention_probs_dropout_prob': 0.0,
}
NLLB = {
  'model_type': 'm2m_100',
  'is_encoder_decoder': True,
  'vocab_size': VOCABULARY,
  'd_model': 16,
  'encoder_layers': 2,
  'encoder_attention_heads': 2,
  'encoder_ffn_dim': 40,
  'encoder_layerdrop': 0.0,
  'decoder_layers': 1,
  'decoder_attention_heads': 2,
  'decoder_ffn_dim': 16,
  'max_position_embeddings': 32,
  'pad_token_id': 1,
  'bos_token_id': 0,
  'eos_token_id': 2,
  'scale_embedding': True,
  'activation_function': 'relu',
  'dropout': 0.0,
  'attention_dropout': 0.0,
  'activation_dropout': 0.0,
}
_BASE = {'hidden_size': 768, 'num_hidden_layers': 12, 'num_attention_heads': 12}
_BASE |= {'intermediate_size': 3072, 'max_position_embeddings': 514}
_LARGE = {'hidden_size': 1024, 'num_hidden_layers': 24, 'num_attention_heads': 16}
_LARGE |= {'intermediate_size': 4096, 'max_position_embeddings': 514}
_NLLB = {'d_model': 1024, 'vocab_size': 256206, 'encoder_attention_heads': 16}
# Sizes in the config.json of the models that open_clip's configs name.
PUBLISHED = {
  'roberta-base': {**ROBERTA, **_BASE, 'vocab_size': 50265},
  'xlm-roberta-base': {**ROBERTA, **_BASE, 'model_type': 'xlm-roberta', 'vocab_size': 250002},
  'xlm-roberta-large': {**ROBERTA, **_LARGE, 'model_type': 'xlm-roberta', 'vocab_size': 250002},
  'facebook/nllb-200-distilled-600M': {
    **NLLB, **_NLLB, 'encoder_layers': 12, 'encoder_ffn_dim': 4096
  },
  'facebook/nllb-200-distilled-1.3B': {
    **NLLB, **_NLLB, 'encoder_layers': 24, 'encoder_ffn_dim': 8192
  },
}  # fmt: skip

CASES = {
  'clipa': own_case(vision=_CLIPA, text={'pool_type': 'last', 'no_causal_mask': True}),
  'custom': own_case(vision=_CUSTOM, text=_CUSTOM),
  'coca_base': own_case(
    vision={'output_tokens': True},
    text={'embed_cls': True, 'output_tokens': True},
    multimodal_cfg={**_DECODER, 'layers': 1},
    custom_text=True,
  ),
  'siglip': timm_case(
    'vit_so400m_patch14_siglip_384',
    trunk={'img_size': 18, 'mlp_ratio': 3.7362},
    pool='map',
    proj='none',
    text=SIGLIP_TEXT,
    **SIGLIP,
  ),
  'siglip2': timm_case(
    'vit_base_patch32_siglip_256',
    pool='map',
    proj='none',
    text={**SIGLIP_TEXT, 'act_kwargs': {'approximate': 'tanh'}},
    **SIGLIP,
  ),
  'pe': timm_case(
    'vit_pe_core_base_patch16_224',
    trunk={'ref_feat_shape': (3, 3), 'attn_pool_num_heads': 4},
    pool='map',
    custom_text=True,
  ),
  'pe_big': timm_case(
    'vit_pe_core_gigantic_patch14_448',
    trunk={'ref_feat_shape': (4, 4), 'attn_pool_num_heads': 4, 'mlp_ratio': 5.0},
    pool='map',
    custom_text=True,
  ),
  'eva01': timm_case('eva_giant_patch14_224', trunk={'mlp_ratio': 4.5}, custom_text=True),
  'eva02': timm_case('eva02_base_patch16_clip_224', trunk=_SWIGLU, custom_text=True),
  'eva02_big': timm_case(
    'eva02_enormous_patch14_clip_224', trunk={'mlp_ratio': 5.0}, custom_text=True
  ),
  'mobileclip': timm_case(
    'vit_base_mci_224', trunk={'img_size': 32, 'patch_size': None}, custom_text=True
  ),
  'mobileclip2': timm_case(
    'vit_large_patch14_clip_224', text={'no_causal_mask': True}, custom_text=True
  ),
  'naflex': timm_case(
    'naflexvit_base_patch16_gap',
    trunk={'pos_embed_grid_size': (4, 4)},
    pool='avg',
    proj='linear',
    custom_text=True,
  ),
  'gap': timm_case('vit_medium_patch16_gap_256', pool='', proj='linear'),
  'roberta': hugging_face_case(ROBERTA),
  'nllb': hugging_face_case(NLLB, hf_pooler_type='cls_pooler', hf_proj_type='linear'),
}
_WIDE = {'hidden_size': 24, 'num_attention_heads': 3, 'num_hidden_layers': 3}
# Larger cases, which are not stored.
BUILT = {
  'roberta_pooler': hugging_face_case(
    {**ROBERTA, **_WIDE, 'layer_norm_eps': 1e-3},
    image=own_case(custom_text=True, quick_gelu=True),
    hf_pooler_type='cls_pooler',
    hf_proj_type='linear',
  ),
  'xlm_roberta_class': hugging_face_case(
    {**ROBERTA, 'model_type': 'xlm-roberta', 'hidden_size': EMBED},
    hf_pooler_type='cls_last_hidden_state_pooler',
    hf_proj_type=None,
  ),
  'nllb_siglip': hugging_face_case(
    {**NLLB, 'd_model': 24, 'encoder_attention_heads': 3, 'encoder_layers': 3},
    image=timm_case('vit_base_patch32_siglip_256', pool='map', proj='none', **SIGLIP),
    hf_pooler_type='mean_pooler',
  ),
}


def build(case):
  """The model of a case; networks of timm shrink by their arguments."""
  fields = {'embed_dim': 16 if case['model_cfg'].get('init_logit_bias') else EMBED}
  fields |= case['model_cfg']
  trunk = {name: value for name, value in case['trunk'].items() if value is not None}
  plain, stem = timm.create_model, hybrid.ConvStem
  width = trunk.get('embed_dim', 16)
  timm.create_model = functools.partial(plain, **trunk)
  small = {'channels': (width // 4, width // 4, width)}
  hybrid.ConvStem = lambda **given: stem(**{**given, **small})
  try:
    custom = fields.pop('custom_text', False)
    coca = 'multimodal_cfg' in fields
    kind = coca_model.CoCa if coca else model.CustomTextCLIP if custom else model.CLIP
    built = kind(**fields)
  finally:
    timm.create_model, hybrid.ConvStem = plain, stem
  return built, {**fields, 'custom_text': custom}


def write_config(config, folder):
  """Writes a config.json, which transformers reads by the folder's name."""
  folder.mkdir(exist_ok=True)
  (folder / 'config.json').write_text(json.dumps(config, indent=1) + '\n')


def losses_of(found, tokens):
  """The loss of a model's outputs: contrastive or sigmoid, and captioning."""
  image, text, scale = (found[name] for name in ('image_features', 'text_features', 'logit_scale'))
  scores = scale * image @ text.T
  labels = torch.arange(len(scores))
  if found.get('logit_bias') is not None:
    scores = scores + found['logit_bias']
    signs = 2 * torch.eye(len(scores)) - 1
    return -torch.nn.functional.logsigmoid(signs * scores).sum() / len(scores)
  cross_entropy = torch.nn.functional.cross_entropy
  loss = (cross_entropy(scores, labels) + cross_entropy(scores.T, labels)) / 2
  if found.get('logits') is not None:
    logits = found['logits'].flatten(0, 1)
    loss = loss + 2 * cross_entropy(logits, found['labels'].flatten(), ignore_index=0)
  return loss


def write_case(name, folder):
  """Writes a case: config, weights, and what open_clip computes with them."""
  torch.manual_seed(sum(map(ord, name)))
  case, folder = {**CASES, **BUILT}[name], folder / name
  folder.mkdir(parents=True, exist_ok=True)
  if 'text' in case:
    write_config(case['text'], folder / 'text')
  with contextlib.chdir(folder):
    built, fields = build(case)
  with torch.no_grad():
    for path, parameter in built.named_parameters():
      if path == 'text_decoder.text_projection':  # which open_clip leaves uninitialized
        parameter.zero_()
      if 'logit' not in path:
        parameter.add_(0.1 * torch.randn_like(parameter))
    for path, buffer in built.named_buffers():
      if path.endswith(('running_mean', 'running_var')):
        buffer.add_(0.1 * torch.rand_like(buffer))
  size, random = case['trunk'].get('img_size', SIZE), np.random.default_rng(0)
  images = random.normal(size=(3, 3, size, size)).astype(np.float32)
  tokens = random.integers(1, VOCABULARY - 1, (3, LENGTH))
  tokens[np.arange(3), [LENGTH - 1, 3, 5]] = VOCABULARY - 1
  tokens[np.arange(LENGTH) > np.array([[LENGTH - 1], [3], [5]])] = 0
  if 'text' in case:  # a start token, words, an end token, padding
    tokens = np.select([tokens == 0, tokens == VOCABULARY - 1], [1, 2], np.maximum(tokens, 3))
    tokens[:, 0] = 0
  weights = {path: tensor.contiguous() for path, tensor in built.state_dict().items()}
  safetensors.torch.save_file(weights, folder / 'open_clip_model.safetensors')
  config = {'model_cfg': fields, 'preprocess_cfg': {}, 'trunk': case['trunk']}
  (folder / 'open_clip_config.json').write_text(json.dumps(config, indent=1) + '\n')
  arrays = {'image': images, 'tokens': tokens.astype(np.int32)}
  arrays |= compute(built, torch.from_numpy(images), torch.from_numpy(tokens))
  np.savez_compressed(folder / 'expected.npz', **arrays)


def compute(built, images, tokens):
  """Features and gradients in evaluation mode, then the losses of two steps of AdamW."""
  call = functools.partial(forward, built, images, tokens)
  built.eval()
  found = call()
  losses_of(found, tokens).backward()
  gradients = {path: p.grad for path, p in built.named_parameters()}
  gradients = {path: 0 * p if gradients[path] is None else gradients[path]
               for path, p in built.named_parameters()}  # fmt: skip
  flat = [gradients[path].flatten().double().numpy() for path in sorted(gradients)]
  arrays = {
    'gradient_norms': np.array([np.linalg.norm(one) for one in flat], np.float32),
    'gradient_samples': np.concatenate([one[:: max(1, one.size // 23)] for one in flat]),
  }
  arrays['gradient_samples'] = arrays['gradient_samples'].astype(np.float32)
  for name in ('image_features', 'text_features'):
    arrays[name] = found[name].detach().numpy()
  built.zero_grad()
  built.train()
  optimizer = torch.optim.AdamW(built.parameters(), lr=1e-3, eps=1e-6, weight_decay=0.0)
  steps = []
  for _ in range(3):
    optimizer.zero_grad()
    loss = losses_of(call(), tokens)
    loss.backward()
    optimizer.step()
    steps.append(loss.item())
  return {**arrays, 'losses': np.array(steps, np.float32)}


def forward(built, images, tokens):
  """The outputs of any of the models by name."""
  if isinstance(built, coca_model.CoCa):
    return built(images, tokens)
  image = built.encode_image(images, normalize=True)
  text = built.encode_text(tokens, normalize=True)
  found = {'image_features': image, 'text_features': text, 'logit_scale': built.logit_scale.exp()}
  return {**found, 'logit_bias': built.logit_bias}


def shapes(names):
  """Names and shapes of the tensors of open_clip's models, without weights."""
  found = {}
  for name in names:
    text = open_clip.get_model_config(name)['text_cfg']
    with tempfile.TemporaryDirectory() as folder, torch.device('meta'):
      given = {}
      if config := PUBLISHED.get(text.get('hf_model_name')):
        write_config(config, pathlib.Path(folder))
        given['text_cfg'] = {**text, 'hf_model_name': folder, 'hf_model_pretrained': False}
      built = open_clip.create_model(name, device='meta', pretrained_text=False, **given)
    found[name] = {path: list(tensor.shape) for path, tensor in built.state_dict().items()}
  return found


def main(command, out, *names):
  """Runs a command of the module's docstring."""
  if command == 'shapes':
    pathlib.Path(out).write_text(json.dumps(shapes(names)))
  else:
    for name in names or CASES:
      write_case(name, pathlib.Path(out))


if __name__ == '__main__':
  main(*sys.argv[1:])
