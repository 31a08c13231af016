"""The tensors of open_clip's own transformers, and of its attentional pooler."""

from contrastive_jax.interop.table import Row, under

FUSED = (('query/kernel key_value/kernel', 'in_proj_weight', 'd * h e -> (* h e) d'),)
# PyTorch stores three separate matrices if queries and tokens differ in width.
APART = (
  ('query/kernel', 'q_proj_weight', 'd h e -> (h e) d'),
  ('key_value/kernel', 'k_proj_weight v_proj_weight', 'd * h e -> * (h e) d'),
)
ATTENTION = (
  ('query/bias key_value/bias', 'in_proj_bias', '* h e -> (* h e)'),
  ('out/kernel', 'out_proj.weight', 'h e d -> d (h e)'),
  ('out/bias', 'out_proj.bias', 'd -> d'),
)
NORM = (('scale', 'weight', 'd -> d'), ('bias', 'bias', 'd -> d'))
# With running statistics.
BATCH_NORM = (*NORM, ('mean', 'running_mean', 'd -> d'), ('variance', 'running_var', 'd -> d'))
BLOCK = (
  *under('attention_norm/', 'ln_1.', NORM),
  *under('attention/', 'attn.', (*FUSED, *ATTENTION)),
  *under('mlp_norm/', 'ln_2.', NORM),
  ('mlp/up/kernel', 'mlp.c_fc.weight', 'i o -> o i'),
  ('mlp/up/bias', 'mlp.c_fc.bias', 'o -> o'),
  ('mlp/down/kernel', 'mlp.c_proj.weight', 'i o -> o i'),
  ('mlp/down/bias', 'mlp.c_proj.bias', 'o -> o'),
  # Options of either transformer.
  ('attention_scale/scale', 'ls_1.gamma', 'd -> d'),
  ('mlp_scale/scale', 'ls_2.gamma', 'd -> d'),
  *under('attention/query_norm/', 'attn.ln_q.', NORM),
  *under('attention/key_norm/', 'attn.ln_k.', NORM),
  *under('attention/inner_norm/', 'attn.ln_inner.', NORM),
  *under('mlp/inner_norm/', 'mlp.ln.', NORM),
)


def transformer(tower: str) -> list[Row]:
  """Rows of the layers of a tower, 'image' or 'text'."""
  return under(f'{tower}/transformer/blocks/{{layer}}/', 'transformer.resblocks.{layer}.', BLOCK)
