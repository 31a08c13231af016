"""A model with its parameters, independent of a run."""

import dataclasses
import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.interop.table import Shapes, Tensors
from contrastive_jax.models.coca import Decoder
from contrastive_jax.models.definition import MODELS, Definition, define
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.models.towers import image_class, text_class
from contrastive_jax.models.transformer import OPTIONS


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A model with its parameters.

  Attributes:
    fields: the arguments of `models.definition.define`, `name` among them.
    parameters: a nested dict of float32 arrays, like `definition.init`.
    end_id: the end token. None stands for the largest id of the vocabulary; or, if open_clip or
      transformers wrote the model, for the largest id of each text, as these find it.
    source: the config of the files read. When the model is written in the same format, entries
      other than sizes, such as the tokenizer's name, are kept.
    counters: the training steps that PyTorch's batch norms counted, by the name of the tensor; kept
      likewise.
    sequence_length: maximum number of patches per image, for a model of images as patches (NaFlex);
      0 for square images.
  """

  fields: dict[str, Any]
  parameters: Any
  end_id: int | None = None
  source: dict[str, Any] = dataclasses.field(default_factory=dict)
  counters: Tensors = dataclasses.field(default_factory=dict)
  sequence_length: int = 0

  @functools.cached_property
  def definition(self) -> Definition:
    """The model without its parameters."""
    return define(**self.fields)

  def __call__(self, *inputs: jax.Array) -> Outputs:
    """Encodes a batch.

    Args:
      *inputs: what the model reads, in the order of `definition.inputs`: images [B, H, W, 3],
        normalized floats, or `data.Patches` of them; tokens [B, L], integers padded with 0 or with
        the end token, see `zero_padded`; with the tower's `pad_id`, if it has one.

    Raises:
      ValueError: if images or tokens have a wrong shape; see also `zero_padded`.
    """
    named = zip(self.definition.inputs, inputs, strict=True)
    arrays = [self.zero_padded(array) if 'tokens' in name else array for name, array in named]
    return self._call(self._placed, *arrays)

  def zero_padded(self, tokens: jax.Array) -> jax.Array:
    """Replaces padding by zeros after the first end token, as open_clip and transformers find it.

    The text tower takes the last nonzero token for the end, while Hugging Face's CLIP tokenizers
    pad with the end token. Texts without an end token are unchanged, as are all texts of models
    that pool the last position (SigLIP) or have a `pad_id` (RoBERTa). If the end token is unknown,
    the vocabulary's largest id counts as one if only padding follows it.

    Args:
      tokens: [B, L] integers.

    Returns:
      [B, L], with zeros after the first end token.

    Raises:
      ValueError: if an id is outside the vocabulary; or if an id after the end of a text, other
        than 0 and the end token, would change the embedding. Traced tokens are not checked.
    """
    fields, traced = with_defaults(self.fields), isinstance(tokens, jax.core.Tracer)
    vocabulary, causal = fields['text/vocabulary'], fields.get('text/causal')
    pooling = fields.get('text/pooling', 'class')
    tokens = tokens if traced else np.asarray(tokens)
    if not traced and not np.all((tokens >= 0) & (tokens < vocabulary)):
      raise ValueError(
        f'tokens are from {tokens.min()} to {tokens.max()}; the model takes ids from 0, below '
        f'{vocabulary}'
      )
    if tokens.ndim != 2 or pooling == 'last' or 'text/pad_id' in fields:
      return tokens
    is_known = self.end_id is not None or bool(self.source)
    end = vocabulary - 1 if self.end_id is None else self.end_id
    if self.end_id is None and is_known and pooling == 'end':
      end = tokens.max(axis=1, keepdims=True)
    is_end = tokens == end
    after = is_end.cumsum(axis=1) > is_end
    # A causal state at the end token is independent of later tokens; others need these masked.
    if not (is_known and causal and pooling == 'end'):
      is_hidden = fields['text/mask_padding'] or (causal and pooling != 'class')
      others = after & (tokens != 0) & ~(is_end & is_hidden)
      if is_known and not traced and others.any():
        row, position = np.argwhere(others)[0]
        raise ValueError(
          f'tokens have the id {tokens[row, position]} at [{row}, {position}], after the end of '
          'the text; pad with 0'
        )
      after &= ~others.any(axis=1, keepdims=True)
    return (jnp if traced else np).where(after, 0, tokens)

  @functools.cached_property
  def _placed(self):
    return jax.device_put(self.parameters)

  @functools.cached_property
  def _call(self):
    bind = self.definition.bind
    return jax.jit(lambda parameters, *inputs: bind(parameters)(*inputs))

  def resize(self, image_size: int) -> 'Model':
    """Returns the model for another image size, with interpolated position embeddings.

    As in open_clip, the grid is resampled bicubically with antialiasing; the position of a class
    token is unchanged.

    Raises:
      ValueError: if the size is not a multiple of the patch.
    """
    image, parameters = self.fields['image'], self.parameters
    if image_size == image['size']:
      return self
    resized = image_class(image).resize(image, parameters['image'], image_size)
    return dataclasses.replace(
      self,
      fields={**self.fields, 'image': {**image, 'size': image_size}},
      parameters={**parameters, 'image': resized},
    )


def shapes_of(fields: Mapping[str, Any]) -> Shapes:
  """Returns the shapes of a model's parameters by path, with its layers unstacked."""
  shapes = {}
  for path, leaf in _flat(define(**scanned(fields)).shapes).items():
    before, layers, after = _stacked(path)
    if layers:
      number, *shape = leaf.shape
      shapes |= {f'{before}{layers}{i}/{after}': tuple(shape) for i in range(number)}
    else:
      shapes[path] = leaf.shape
  return shapes


def scanned(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields with `scan` where a tower has it, which traces all layers as one."""
  known = with_defaults(fields)
  return {
    name: {**value, 'scan': True} if f'{name}/scan' in known and value['layers'] else value
    for name, value in fields.items()
  }


def _stacked(path: str) -> tuple[str, str, str]:
  """Parts the path of a stacked parameter at its layers; of another one, the rest is empty."""
  before, layers, after = path.partition('/blocks/')
  return (before, layers, after) if layers and not after[0].isdigit() else (path, '', '')


def unstack_layers(parameters: Any) -> Tensors:
  """Flattens parameters to paths such as 'image/transformer/blocks/0/mlp/up/kernel'.

  Stacked (scanned) layers are split into one entry per layer.
  """
  flat = {}
  for path, leaf in _flat(parameters).items():
    before, layers, after = _stacked(path)
    if layers:
      flat |= {f'{before}{layers}{i}/{after}': each for i, each in enumerate(np.asarray(leaf))}
    else:
      flat[path] = np.asarray(leaf)
  return flat


def stack_layers(flat: Tensors, fields: Mapping[str, Any], parts: Sequence[str] = ()) -> Any:
  """The inverse of `unstack_layers`: the nested parameters of `define(**fields)`.

  Args:
    flat: arrays by path.
    fields: of the model.
    parts: keys of the parameters, such as 'image'; () for all.
  """

  def leaf(path, abstract):
    name = _name(path)
    if name in flat:
      return flat[name]
    before, blocks, after = name.partition('/blocks/')
    return np.stack([flat[f'{before}{blocks}{i}/{after}'] for i in range(abstract.shape[0])])

  shapes = define(**fields).shapes
  shapes = {name: part for name, part in shapes.items() if not parts or name in parts}
  return jax.tree_util.tree_map_with_path(leaf, shapes)


_TOWERS = {
  'image': image_class,
  'text': text_class,
  'audio': image_class,
  'decoder': lambda _: Decoder,
}
# Arguments that a model sets for its towers; and further ones with their defaults: the name of a
# tower, and those that a decoder passes to layers.
_GIVEN = ('self', 'rngs', 'dtype', 'remat', 'attention', 'fields', 'context_width', *_TOWERS)
_GIVEN_BY_COCA = ('image/pooling', 'text/pooling', 'decoder/vocabulary', 'decoder/width')
_MORE = {
  'image': {'tower': 'vit'},
  'text': {'tower': 'transformer'},
  'audio': {'tower': 'vit'},
  'decoder': {'mlp_ratio': 4, 'activation': 'gelu', 'head_width': None, 'scan': False},
}


def with_defaults(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Returns all fields by path, 'image/width', with defaults filled in."""
  found = {'name': fields['name']}
  towers = {name: find(fields[name]) for name, find in _TOWERS.items() if name in fields}
  builders = {'': MODELS[fields['name']]} | towers
  for tower, builder in builders.items():
    defaults = {k: v.default for k, v in inspect.signature(builder.__init__).parameters.items()}
    given = fields[tower] if tower else fields
    defaults |= (OPTIONS if 'fields' in defaults else {}) | _MORE.get(tower, {})
    found |= {
      f'{tower}/{name}' if tower else name: given.get(name, default)
      for name, default in defaults.items()
      if name not in _GIVEN
    }
  given = _GIVEN_BY_COCA if fields['name'] == 'coca' else ()
  # Without a pooler the image tower pools.
  given = given[found.get('pooler') == 'none' :]
  # Lists from JSON become tuples.
  return {
    path: tuple(value) if isinstance(value, list) else value
    for path, value in found.items()
    if path not in given
  }


def _flat(tree: Any) -> dict[str, Any]:
  return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path) -> str:
  return '/'.join(str(part.key) for part in path)
