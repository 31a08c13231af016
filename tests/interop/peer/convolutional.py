"""What open_clip makes of convolutional towers, in an environment with torch, open_clip and timm.

    python tests/interop/peer/convolutional.py shapes NAME …    configs and shapes, as JSON
    python tests/interop/peer/convolutional.py make FOLDER      a model, and what it computes
    python tests/interop/peer/convolutional.py encode FOLDER    features of inputs of expected.npz

`make` reads FOLDER/request.json: `model_cfg`, `networks` (kind and arguments by a name for timm),
`size`, `batch`, and `steps`. It writes the model in open_clip's format, and expected.npz as
tests/parity_data/README.md describes. Nothing of contrastive_jax is imported, since open_clip's
environment may lack JAX.
"""

import functools
import json
import pathlib
import sys

import numpy as np


def shapes(names):
  """Config of each model, and shapes of its tensors by name."""
  import open_clip
  import torch

  found = {}
  for name in names:
    config = open_clip.get_model_config(name)
    build = open_clip.CustomTextCLIP if config.get('custom_text') else open_clip.CLIP
    with torch.device('meta'):
      model = build(**{key: value for key, value in config.items() if key != 'custom_text'})
    found[name] = config, {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
  return found


def register(name, kind, fields):
  """Adds a small network of a kind to timm."""
  import timm.models as timm
  from timm.layers import LayerNorm2d

  if kind == 'vitamin':
    sizes = {key: fields.pop(key) for key in ('embed_dims', 'depths', 'stem_width')}
    sizes['embed_dim'] = sizes.pop('embed_dims')
    fields |= {'embed_cfg': timm.vitamin.VitCfg(**sizes), 'mlp_layer': timm.vitamin.GeGluMlp}
  if kind == 'fastvit':
    position = functools.partial(timm.fastvit.RepConditionalPosEnc, spatial_shape=(7, 7))
    fields['pos_embs'] = [
      position if mixer == 'attention' else None for mixer in fields['token_mixers']
    ]
    if fields.pop('layer_norm', False):
      fields['norm_layer'] = functools.partial(LayerNorm2d, eps=1e-5)
  base = {'convnext': 'convnext_tiny', 'vitamin': 'vitamin_small_224', 'fastvit': 'fastvit_mci0'}
  module = getattr(timm, kind)

  def build(pretrained=False, **kwargs):
    create = getattr(module, f'_create_{kind}')
    return create(base[kind], pretrained=pretrained, **{**fields, **kwargs})

  build.__name__, build.__module__ = name, module.__name__
  timm.register_model(build)


def randomize(torch, model):
  """Draws scales, biases and statistics that no law could miss."""
  with torch.no_grad():
    for name, tensor in model.state_dict().items():
      if name.endswith(('running_var', 'gamma')) or (tensor.ndim == 1 and name.endswith('weight')):
        tensor.uniform_(0.5, 1.5)
      elif name.endswith('num_batches_tracked'):
        tensor.fill_(torch.randint(1000, (1,)).item())
      elif tensor.ndim == 1:
        tensor.normal_(0, 0.2)
      elif tensor.ndim > 1:
        tensor.add_(torch.randn_like(tensor), alpha=0.3 * tensor.std().item())


def inputs(size, batch, vocabulary, length):
  """Images [B, 3, S, S] of few numbers, and tokens [B, L] that end with the largest id."""
  random = np.random.default_rng(0)
  squares = random.normal(size=(batch, 3, size // 4, size // 4)).round(2).astype(np.float32)
  tokens = random.integers(1, vocabulary - 1, (batch, length))
  ends = random.integers(2, length, (batch, 1))
  position = np.arange(length)
  tokens = np.select([position < ends, position == ends], [tokens, vocabulary - 1])
  return squares.repeat(4, 2).repeat(4, 3), tokens


def loss_of(torch, model, images, tokens):
  """Outputs and open_clip's contrastive loss."""
  image = model.encode_image(images, normalize=True)
  text = model.encode_text(tokens, normalize=True)
  scores, targets = model.logit_scale.exp() * image @ text.T, torch.arange(len(image))
  entropy = torch.nn.functional.cross_entropy
  return image, text, (entropy(scores, targets) + entropy(scores.T, targets)) / 2


def gradients(model):
  """Norms and every n-th entry of the gradients, in the order of the parameters' names."""
  flat = [p.grad.detach().numpy().reshape(-1) for _, p in sorted(model.named_parameters())]
  sampled = [gradient[:: max(1, gradient.size // 97)] for gradient in flat]
  return np.array([np.linalg.norm(g) for g in flat], np.float32), np.concatenate(sampled)


def make(folder):
  """Writes a model, and what it computes."""
  import open_clip
  import safetensors.torch
  import torch

  request = json.loads((folder / 'request.json').read_text())
  for name, (kind, fields) in request.get('networks', {}).items():
    register(name, kind, fields)
  torch.manual_seed(0)
  cfg = request['model_cfg']
  model = open_clip.CLIP(**cfg).eval()
  randomize(torch, model)
  state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
  safetensors.torch.save_file(state, folder / 'open_clip_model.safetensors', {'format': 'pt'})
  config = {'model_cfg': cfg, 'kind': 'clip'}
  (folder / 'open_clip_config.json').write_text(json.dumps(config, indent=2) + '\n')
  text = cfg['text_cfg']
  images, tokens = inputs(
    request['size'], request['batch'], text['vocab_size'], text['context_length']
  )
  found = {'image': images, 'tokens': tokens.astype(np.int32)}
  images, tokens = torch.from_numpy(images), torch.from_numpy(tokens)
  image, text, loss = loss_of(torch, model, images, tokens)
  loss.backward()
  found |= {
    'image_features': image.detach().numpy(),
    'text_features': text.detach().numpy(),
    'logit_scale': model.logit_scale.exp().detach().numpy(),
    'loss_contrastive': loss.detach().numpy(),
  }
  found['gradient_norms'], found['gradient_samples'] = gradients(model)
  optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2
  )
  losses = []
  model.train()
  for step in range(request['steps']):
    optimizer.zero_grad()
    loss = loss_of(torch, model, images, tokens)[2]
    loss.backward()
    if step == 0:
      found['train_gradient_norms'], found['train_gradient_samples'] = gradients(model)
    losses.append(loss.item())
    optimizer.step()
  found['train_losses'] = np.array(losses, np.float32)
  statistics = {
    f'trained_{name}': tensor.numpy()
    for name, tensor in model.state_dict().items()
    if 'running' in name
  }
  np.savez_compressed(folder / 'expected.npz', **found, **statistics)


def encode(folder):
  """Writes encoded.npz, the features of a model in open_clip's format."""
  import open_clip
  import torch

  model = open_clip.create_model(f'local-dir:{folder}').eval()
  with np.load(folder / 'expected.npz') as found, torch.no_grad():
    images, tokens = (torch.from_numpy(found[name]) for name in ('image', 'tokens'))
    image, text, _ = loss_of(torch, model, images, tokens.long())
  np.savez(folder / 'encoded.npz', image_features=image.numpy(), text_features=text.numpy())


if __name__ == '__main__':
  command, *arguments = sys.argv[1:]
  if command == 'shapes':
    print(json.dumps(shapes(arguments)))
  elif command == 'make':
    make(pathlib.Path(arguments[0]))
  else:
    encode(pathlib.Path(arguments[0]))
