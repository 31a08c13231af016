"""What reads and writes one kind of tower of open_clip."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from contrastive_jax.interop import fields as field_table
from contrastive_jax.interop.fields import Field
from contrastive_jax.interop.table import Row, UnsupportedError

Section = Mapping[str, Any]


class Kind(NamedTuple):
  """One kind of tower: open_clip's own ViT, the ViTs of timm, ...

  Attributes:
    tower: name of our tower, a value of `config.model.image.tower` or `config.model.text.tower`.
    matches: whether a `vision_cfg` or `text_cfg` is of this kind.
    read: (section, model_cfg) -> our fields: the tower's dict, 'image' or 'text', and fields of the
      model that the tower determines, such as 'image_projection'; for texts also 'end_id', the id
      of the end token where it is not the largest; for images as patches 'sequence_length', see
      `interop.Model`. Raises UnsupportedError for entries without support.
    write: (all fields of the model by path, the section as read before or {}) -> the section. The
      fields include 'end_id'. Raises UnsupportedError.
    rows: (all fields by path, section) -> rows of the tower and its projection. Their names are
      relative to `visual.`, or to the text tower.
    quick_gelu: whether `model_cfg.quick_gelu` applies to the tower.
    custom_text: whether the tower is always a submodule of the model, `text.*`.
  """

  tower: str
  matches: Callable[[Section], bool]
  read: Callable[[Section, Section], dict[str, Any]]
  write: Callable[[Mapping[str, Any], Section], dict[str, Any]]
  rows: Callable[[Mapping[str, Any], Section], list[Row]]
  quick_gelu: bool = False
  custom_text: bool = False


# Entries about preprocessing or training, or without effect on these models.
_NEUTRAL = ('block_type', 'output_tokens', 'pos_embed_type', 'text_arch')
_NEUTRAL_PREFIXES = ('timm_', 'hf_', 'tokenizer_', 'attn_pooler_', 'proj_', 'eos_', 'pad_')


def read_section(
  rows: Iterable[Field], section: Section, where: str, neutral: Iterable[str] = ()
) -> dict[str, Any]:
  """Reads the fields of a tower by a table; `neutral` entries have no effect on the model."""
  neutral = {*_NEUTRAL, *neutral}
  names = [name for name in section if name in neutral or name.startswith(_NEUTRAL_PREFIXES)]
  return field_table.read(rows, section, where, names)


def write_section(
  rows: Iterable[Field], fields: Mapping[str, Any], tower: str, before: Section
) -> dict[str, Any]:
  """The inverse of `read_section`."""
  return field_table.write(rows, fields, tower, before, 'open_clip')


def require(fields: Mapping[str, Any], name: str, *values: Any) -> None:
  """Raises UnsupportedError unless a field of the model has one of the values."""
  if fields[name] not in values:
    works = ' or '.join(map(repr, values))
    raise UnsupportedError(
      f'model.{name.replace("/", ".")} = {fields[name]!r} is not supported by open_clip; {works} is'
    )


def _read_epsilon(norm, _width):
  return 1e-5 if not norm else norm['eps']


def _write_epsilon(epsilon, _width):
  return None if epsilon == 1e-5 else {'eps': epsilon}


def _read_activation(given, _width):
  approximate = (given or {}).get('approximate', 'none')
  return {'none': 'gelu', 'tanh': 'gelu_tanh'}[approximate]


def _write_activation(name, _width):
  return {'gelu': None, 'gelu_tanh': {'approximate': 'tanh'}}[name]


def _option(ours: str, theirs: str, default: Any) -> Field:
  """A field that is written unless it has its default."""
  return Field(ours, theirs, default, write=lambda value, _: None if value == default else value)


# Fields of open_clip's own transformers.
TOWER = (
  Field('layers', 'layers', 12, field_table.number),
  Field('mlp_ratio', 'mlp_ratio', 4.0),
  Field('activation', 'act_kwargs', None, _read_activation, _write_activation),
  _option('layer_scale', 'ls_init_value', None),
  _option('qk_norm', 'qk_norm', False),
  _option('attention_inner_norm', 'scale_attn_inner', False),
  _option('mlp_inner_norm', 'scale_fc', False),
  Field('', 'scaled_cosine_attn', False),
  Field('', 'scale_heads', False),
  Field('', 'scale_attn', False),
)
EPSILON = Field('epsilon', 'norm_kwargs', None, _read_epsilon, _write_epsilon)
NEGATED = {False: True, True: False}
