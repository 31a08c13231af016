"""The table of open_clip's tensors, for CLIP, CustomTextCLIP and CoCa."""

from collections.abc import Mapping
from typing import Any

from contrastive_jax.interop.table import Row, under


def rows(fields: Mapping[str, Any], custom: bool) -> list[Row]:
  """Returns the table of one model.

  Args:
    fields: all fields of the model by path, 'image/width'.
    custom: whether the text tower is a submodule, `text.*`.
  """
  text = 'text.' if custom else ''
  return [
    *under('', '', (*_IMAGE, *_SCALARS, *_DECODER)),
    *under('image/transformer/blocks/{layer}/', 'visual.transformer.resblocks.{layer}.', _BLOCK),
    *under('', text, (*_TEXT, *_PROJECTIONS[fields['text_projection']])),
    *under('text/transformer/blocks/{layer}/', f'{text}transformer.resblocks.{{layer}}.', _BLOCK),
    *under('pooler/', 'visual.attn_pool.', _POOLER),
    # PyTorch stores three separate matrices if queries and tokens differ in width.
    *under(
      'pooler/attention/',
      'visual.attn_pool.attn.',
      _FUSED if fields['embed'] == fields['image/width'] else _APART,
    ),
    *under('decoder/transformer/blocks/{layer}/causal/', 'text_decoder.resblocks.{layer}.', _BLOCK),
    *under('decoder/transformer/blocks/{layer}/cross/', 'text_decoder.cross_attn.{layer}.', _CROSS),
  ]


_FUSED = (('query/kernel key_value/kernel', 'in_proj_weight', 'd * h e -> (* h e) d'),)
_APART = (
  ('query/kernel', 'q_proj_weight', 'd h e -> (h e) d'),
  ('key_value/kernel', 'k_proj_weight v_proj_weight', 'd * h e -> * (h e) d'),
)
_ATTENTION = (
  ('query/bias key_value/bias', 'in_proj_bias', '* h e -> (* h e)'),
  ('out/kernel', 'out_proj.weight', 'h e d -> d (h e)'),
  ('out/bias', 'out_proj.bias', 'd -> d'),
)
_BLOCK = (
  ('attention_norm/scale', 'ln_1.weight', 'd -> d'),
  ('attention_norm/bias', 'ln_1.bias', 'd -> d'),
  *under('attention/', 'attn.', (*_FUSED, *_ATTENTION)),
  ('mlp_norm/scale', 'ln_2.weight', 'd -> d'),
  ('mlp_norm/bias', 'ln_2.bias', 'd -> d'),
  ('mlp/up/kernel', 'mlp.c_fc.weight', 'i o -> o i'),
  ('mlp/up/bias', 'mlp.c_fc.bias', 'o -> o'),
  ('mlp/down/kernel', 'mlp.c_proj.weight', 'i o -> o i'),
  ('mlp/down/bias', 'mlp.c_proj.bias', 'o -> o'),
)
_CROSS = (
  *_BLOCK,
  ('context_norm/scale', 'ln_1_kv.weight', 'd -> d'),
  ('context_norm/bias', 'ln_1_kv.bias', 'd -> d'),
)
_IMAGE = (
  ('image/stem/embed/kernel', 'visual.conv1.weight', 'p q c d -> d c p q'),
  ('image/class_token', 'visual.class_embedding', '1 d -> d'),
  ('image/positions', 'visual.positional_embedding', 'p d -> p d'),
  ('image/pre_norm/scale', 'visual.ln_pre.weight', 'd -> d'),
  ('image/pre_norm/bias', 'visual.ln_pre.bias', 'd -> d'),
  ('image/norm/scale', 'visual.ln_post.weight', 'd -> d'),
  ('image/norm/bias', 'visual.ln_post.bias', 'd -> d'),
  ('image_projection/kernel', 'visual.proj', 'i o -> i o'),
)
_TEXT = (
  ('text/embed/embedding', 'token_embedding.weight', 'v d -> v d'),
  ('text/positions', 'positional_embedding', 'l d -> l d'),
  ('text/class_token', 'cls_emb', '1 d -> d'),
  ('text/norm/scale', 'ln_final.weight', 'd -> d'),
  ('text/norm/bias', 'ln_final.bias', 'd -> d'),
)
_SCALARS = (('log_scale', 'logit_scale', '->'), ('bias', 'logit_bias', '->'))
_PROJECTIONS = {
  'none': (),
  'linear': (('text_projection/kernel', 'text_projection', 'i o -> i o'),),
  'affine': (
    ('text_projection/kernel', 'text_projection.weight', 'i o -> o i'),
    ('text_projection/bias', 'text_projection.bias', 'o -> o'),
  ),
}
_POOLER = (
  ('queries', 'query', 'q d -> q d'),
  ('query_norm/scale', 'ln_q.weight', 'd -> d'),
  ('query_norm/bias', 'ln_q.bias', 'd -> d'),
  ('context_norm/scale', 'ln_k.weight', 'd -> d'),
  ('context_norm/bias', 'ln_k.bias', 'd -> d'),
  *under('attention/', 'attn.', _ATTENTION),
)
_DECODER = (
  ('pooler/norm/scale', 'visual.ln_post.weight', 'd -> d'),
  ('pooler/norm/bias', 'visual.ln_post.bias', 'd -> d'),
  ('decoder/norm/scale', 'text_decoder.ln_final.weight', 'd -> d'),
  ('decoder/norm/bias', 'text_decoder.ln_final.bias', 'd -> d'),
  ('decoder/output/kernel', 'text_decoder.text_projection', 'i o -> i o'),
)
