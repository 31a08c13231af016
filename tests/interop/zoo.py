"""The small cases of open_clip's zoo, see tests/interop/peer/zoo.py."""

import functools
import json

from contrastive_jax.interop.open_clip.timm_names import NETWORKS
from tests.interop import parity

FOLDER = parity.FOLDER / 'zoo'
CASES = tuple(sorted(path.name for path in FOLDER.iterdir()))
# Our fields by arguments of timm's classes.
_FIELDS = {
  'img_size': 'size',
  'patch_size': 'patch',
  'embed_dim': 'width',
  'depth': 'layers',
  'num_heads': 'heads',
  'mlp_ratio': 'mlp_ratio',
  'ref_feat_shape': 'rope_grid',
  'attn_pool_num_heads': 'pool_heads',
  'pos_embed_grid_size': None,  # the size in patches
}


def shrink(monkeypatch, case, folder=FOLDER):
  """Gives the case's network of timm the sizes of the case, and finds its text tower's."""
  monkeypatch.chdir(folder / case)  # where `hf_model_name` is a folder
  config = json.loads((folder / case / 'open_clip_config.json').read_text())
  name = config['model_cfg']['vision_cfg'].get('timm_model_name')
  if name is None:
    return
  sizes = {
    _FIELDS[key]: value[0] if isinstance(value, list) else value
    for key, value in config['trunk'].items()
    if value is not None and _FIELDS[key]
  }
  network = NETWORKS[name]
  monkeypatch.setitem(NETWORKS, name, network._replace(fields={**network.fields, **sizes}))


expected = functools.partial(parity.expected, folder=FOLDER)
sampled = functools.partial(parity.sampled, count=23)
