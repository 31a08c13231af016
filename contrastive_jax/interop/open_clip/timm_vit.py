"""timm's vision transformers, which open_clip builds by name."""

from collections.abc import Mapping
from typing import Any

from contrastive_jax.interop.fields import TRAINING, square
from contrastive_jax.interop.model import with_defaults
from contrastive_jax.interop.open_clip.blocks import BATCH_NORM, NORM
from contrastive_jax.interop.open_clip.kind import Kind, Section, require
from contrastive_jax.interop.open_clip.timm_names import NETWORKS, REFUSED, Network
from contrastive_jax.interop.table import Row, UnsupportedError, under

_NAME = 'timm_model_name'
_LENGTH, _OPTIONS = 'image_seq_len', 'timm_model_kwargs'
# Entries of the size, which a section that was read keeps.
_SIZES = ('image_size', _LENGTH, _OPTIONS)


def _unsupported(section: Section, name: str, default: Any, works: Any = '') -> UnsupportedError:
  told = works and f' with {_NAME} = {section[_NAME]!r}; {works!r} is'
  return UnsupportedError(
    f'vision_cfg.{name} = {section.get(name, default)!r} is not supported{told}'
  )


def _read(section: Section, model_cfg: Section) -> dict[str, Any]:
  name = section[_NAME]
  network = NETWORKS.get(name)
  if network is None or 'multimodal_cfg' in model_cfg:
    why = next((f': {why}' for part, why in REFUSED.items() if part in name), '')
    raise UnsupportedError(f'vision_cfg.{_NAME} = {name!r} is not supported{why}')
  fields = _fields(network, section)
  length = _sequence_length(section, network, fields)
  projection = _projection(section)
  if projection is None:
    raise _unsupported(section, 'timm_proj', 'linear', 'linear')
  pool = section.get('timm_pool', 'avg')
  # Without a projection of its own, open_clip has the network pool as it says.
  if pool not in network.pools or (pool == '' and section.get('timm_proj') != 'linear'):
    raise _unsupported(section, 'timm_pool', 'avg', network.pools[0])
  if section.get('timm_drop', 0):
    raise _unsupported(section, 'timm_drop', 0, 0.0)
  training = {
    'drop_path': section.get('timm_drop_path') or 0.0,
    'patch_dropout': section.get('patch_dropout', 0.0),
  }
  image = {**fields, **training}
  return {'image': image, 'image_projection': projection, 'sequence_length': length}


def _fields(network: Network, section: Section) -> dict[str, Any]:
  """Arguments of our tower: the network's, and those of a NaFlexVit that a section changes."""
  fields, given = network.fields, section.get(_OPTIONS) or {}
  known = ('patch_size', 'pos_embed_grid_size') if network.naflex else ()
  for name in sorted(given.keys() - set(known)):
    raise UnsupportedError(f'vision_cfg.{_OPTIONS}.{name} = {given[name]!r} is not supported')
  if not given:
    return fields
  old = fields['size'] // fields['patch']
  patch, grid = given.get('patch_size', fields['patch']), given.get('pos_embed_grid_size', old)
  try:
    patch, grid = square(patch, 0), square(grid, 0)
  except (KeyError, TypeError):
    raise UnsupportedError(
      f'vision_cfg.{_OPTIONS} = {given!r} is not supported; squares are'
    ) from None
  return {**fields, 'patch': patch, 'size': grid * patch}


def _sequence_length(section: Section, network: Network, fields: Mapping[str, Any]) -> int:
  """Number of patches per image: of a NaFlexVit at other sizes than its positions, else 0."""
  length = section.get(_LENGTH)
  if network.naflex and length is not None:
    if not isinstance(length, int) or length < 1:
      raise _unsupported(section, _LENGTH, None, 'an integer from 1')
    return length
  try:
    size = square(section.get('image_size', 224), 0)
  except (KeyError, TypeError):
    size = 0
  if size == fields['size']:
    return 0
  if not network.naflex or size < fields['patch']:
    raise _unsupported(section, 'image_size', 224, fields['size'])
  return (size // fields['patch']) ** 2


def _projection(section: Section) -> str | None:
  """Our name of a section's projection; None if it is not supported."""
  kind = section.get('timm_proj', 'linear')
  linear = 'affine' if section.get('timm_proj_bias') else 'linear'
  return {'linear': linear, 'none': 'none', 'mlp': None}.get(kind, 'affine')


_PROJECTIONS = {
  'linear': {'timm_proj': 'linear', 'timm_proj_bias': False},
  'affine': {'timm_proj': None},
  'none': {'timm_proj': 'none'},
}


def _write(fields: Mapping[str, Any], before: Section) -> dict[str, Any]:
  name = _name_of(fields, before)
  network, projection = NETWORKS[name], fields['image_projection']
  require(fields, 'image_projection', *_PROJECTIONS)
  kept = before and projection == _projection(before)
  training = {
    'timm_drop_path': fields['image/drop_path'] or None,
    'patch_dropout': fields['image/patch_dropout'] or None,
  }
  known = {_NAME, *_SIZES, *training}
  sizes = {'image_size': network.fields['size']}
  if name == before.get(_NAME):
    sizes = {'image_size': 224, **{entry: before[entry] for entry in _SIZES if entry in before}}
  return {
    'timm_model_pretrained': False,
    'timm_pool': network.pools[0],
    **{entry: value for entry, value in before.items() if entry not in known},
    **({} if kept else _PROJECTIONS[projection]),
    _NAME: name,
    **sizes,
    **{entry: value for entry, value in training.items() if value is not None},
  }


def _name_of(fields: Mapping[str, Any], before: Section) -> str:
  """The network's name: the one before, or any other of these sizes and options."""
  wanted, old = _comparable(fields), before.get(_NAME)
  for name in sorted(NETWORKS, key=lambda name: name != old):
    if _options(name, before if name == old else {}) == wanted:
      return name
  if old is None:
    raise UnsupportedError('no network of timm is the image tower')
  there = _options(old, before)
  field, value = next((k, v) for k, v in wanted.items() if there.get(k) != v)
  raise UnsupportedError(
    f'{field.replace("/", ".")} = {value!r} is not supported by open_clip with {_NAME} = '
    f'{old!r}; {there.get(field)!r} is'
  )


def _options(name: str, section: Section) -> dict[str, Any]:
  image = _fields(NETWORKS[name], section)
  return _comparable(with_defaults({'name': 'clip', 'image': image}))


def _comparable(fields: Mapping[str, Any]) -> dict[str, Any]:
  # A network's name does not determine the fields of training.
  ignored = {f'image/{name}' for name in ('tower', *TRAINING)}
  found = {k: v for k, v in fields.items() if k.startswith('image/') and k not in ignored}
  found['image/mlp_ratio'] = int(found['image/width'] * found['image/mlp_ratio'])
  found['image/layer_scale'] = found['image/layer_scale'] is not None
  return found


_STEM = (
  ('image/stem/embed/kernel', 'patch_embed.proj.weight', 'p q c d -> d c p q'),
  ('image/stem/embed/bias', 'patch_embed.proj.bias', 'd -> d'),
  ('image/class_token', 'cls_token', '1 d -> 1 1 d'),
  ('image/positions', 'pos_embed', 'p d -> 1 p d'),
  *under('image/pre_norm/', 'norm_pre.', NORM),
  *under(
    'image/stem/patches/{layer}/',
    'patch_embed.backbone.{layer}.conv.',
    (('kernel', 'weight', 'p q c d -> d c p q'), ('bias', 'bias', 'd -> d')),
  ),
  *under(
    'image/stem/norms/{layer}/',
    'patch_embed.backbone.{layer}.bn.',
    BATCH_NORM,
  ),
)
_NAFLEX_STEM = (
  ('image/stem/embed/kernel', 'embeds.proj.weight', 'p q c d -> d (p q c)'),
  ('image/stem/embed/bias', 'embeds.proj.bias', 'd -> d'),
  ('image/class_token', 'embeds.cls_token', '1 d -> 1 1 d'),
  ('image/registers', 'embeds.reg_token', 'r d -> 1 r d'),
  ('image/positions', 'embeds.pos_embed', '(y x) d -> 1 y x d'),
)
_QKV = ('query/kernel key_value/kernel', 'qkv.weight', 'd * h e -> (* h e) d')
_ATTENTION = {
  'fused': (_QKV, ('query/bias key_value/bias', 'qkv.bias', '* h e -> (* h e)')),
  'fused_query_value': (
    _QKV,
    ('query/bias', 'q_bias', 'h e -> (h e)'),
    ('value/bias', 'v_bias', 'h e -> (h e)'),
  ),
  'split': (
    ('query/kernel', 'q_proj.weight', 'd h e -> (h e) d'),
    ('key_value/kernel', 'k_proj.weight v_proj.weight', 'd * h e -> * (h e) d'),
    ('query/bias', 'q_proj.bias', 'h e -> (h e)'),
    ('value/bias', 'v_proj.bias', 'h e -> (h e)'),
  ),
}
_LINEAR = (('kernel', 'weight', 'i o -> o i'), ('bias', 'bias', 'o -> o'))
_OUT = (('out/kernel', 'proj.weight', 'h e d -> d (h e)'), ('out/bias', 'proj.bias', 'd -> d'))
_PLAIN = (*under('up/', 'fc1.', _LINEAR), *under('down/', 'fc2.', _LINEAR))
_MLPS = {
  'plain': (*_PLAIN, *under('inner_norm/', 'norm.', NORM)),
  'swiglu': (
    *under('gate/', 'fc1_g.', _LINEAR),
    *under('up/', 'fc1_x.', _LINEAR),
    *under('inner_norm/', 'norm.', NORM),
    *under('down/', 'fc2.', _LINEAR),
  ),
}
_POOL = (
  ('query', 'latent', '1 d -> 1 1 d'),
  ('attention/query/kernel', 'q.weight', 'd h e -> (h e) d'),
  ('attention/query/bias', 'q.bias', 'h e -> (h e)'),
  ('attention/key_value/kernel', 'kv.weight', 'd k h e -> (k h e) d'),
  ('attention/key_value/bias', 'kv.bias', 'k h e -> (k h e)'),
  *under('attention/', '', _OUT),
  *under('norm/', 'norm.', NORM),
  *under('mlp/', 'mlp.', _PLAIN),
)


def _block(network: Network, mlp: str) -> list[Row]:
  attention = (
    *_ATTENTION[network.attention],
    *_OUT,
    *under('query_norm/', 'q_norm.', NORM),
    *under('key_norm/', 'k_norm.', NORM),
    *under('inner_norm/', 'norm.', NORM),
  )
  scales = [(f'{name}/scale', network.scale.format(number), 'd -> d') for name, number in _BRANCHES]
  return [
    *under('attention_norm/', 'norm1.', NORM),
    *under('attention/', 'attn.', attention),
    *under('mlp_norm/', 'norm2.', NORM),
    *under('mlp/', 'mlp.', _MLPS[mlp]),
    *under('', '', scales),
  ]


_BRANCHES = (('attention_scale', 1), ('mlp_scale', 2))


def _rows(fields: Mapping[str, Any], section: Section) -> list[Row]:
  network = NETWORKS[section[_NAME]]
  block = _block(network, fields['image/mlp'])
  norm = {'tokens': 'norm', 'pooled': 'fc_norm'}[fields['image/final_norm']]
  head = 'head.proj.' if section.get('timm_proj', 'linear') == 'linear' else 'trunk.head.'
  return [
    *under('', 'trunk.', _NAFLEX_STEM if network.naflex else _STEM),
    *under('image/transformer/blocks/{layer}/', 'trunk.blocks.{layer}.', block),
    *under('image/norm/', f'trunk.{norm}.', NORM),
    *under('image/pool/', 'trunk.attn_pool.', _POOL),
    *under('image_projection/', head, _LINEAR),
  ]


TIMM_VIT = Kind(
  tower='vit',
  matches=lambda section: bool(section.get(_NAME)),
  read=_read,
  write=_write,
  rows=_rows,
)
