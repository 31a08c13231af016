"""Learning rate multipliers per parameter: frozen parameters and layer-wise decay."""

import math
import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.models.definition import Definition, join_statistics

# Parts of a tower below its layers; all other parts are above them.
_BELOW_LAYERS = (
  *('stem', 'stem_norm', 'pre_norm'),
  *('embed', 'positions', 'class_token', 'registers', 'token_type', 'embed_norm'),
)
# Layers of a transformer; or stages of a convolutional tower and their blocks, and what halves the
# image before a stage.
_LAYER = re.compile(r'(.*?)/(transformer/blocks|stages|halving_norms|halvings)/(\d+)/(?:(\d+)/)?.*')


def parameter_rates(
  definition: Definition, rates: Sequence[tuple[str, float]] = (), layer_decay: float = 1.0
):
  """Learning rate multiplier of each parameter; 0 freezes it.

  Scanned layers, whose parameters are stacked, are matched by the paths of unrolled layers, such as
  'image/transformer/blocks/0/mlp/up/kernel'.

  Running statistics have no learning rate; `frozen_statistics` are those with multiplier 0.

  Args:
    definition: the model, with the methods' heads.
    rates: pairs of a regular expression, which must match the full path, and a multiplier. The
      first match counts; parameters without a match have multiplier 1.
    layer_decay: decay per layer from the top of a tower [1]. In a tower of L layers, layer l is
      multiplied by layer_decay^(L − l), l from 0; embeddings by layer_decay^(L + 1); parameters
      after the layers by 1.

  Returns:
    A tree of float32 arrays, each a scalar or of a shape that broadcasts over stacked layers; None
    if all multipliers are 1.

  Raises:
    ValueError: if a field is invalid, a pattern matches no parameter, or every parameter is frozen.

  References:
    [1] Bao et al., BEiT: BERT Pre-Training of Image Transformers, 2022.
  """
  checked = [_checked_rate(rate) for rate in rates]
  if not 0 < layer_decay <= 1:
    raise ValueError(f'config.optimizer.layer_decay = {layer_decay}; use a number in (0, 1]')
  if not checked and layer_decay == 1:
    return None
  shapes, axes = (definition.part(tree)[0] for tree in (definition.shapes, definition.axes))
  names = jax.tree_util.tree_map_with_path(_names, shapes, axes)
  all_names = [name for stack in jax.tree.leaves(names, is_leaf=_is_stack) for name in stack]
  _check_matches(checked, [*all_names, *map(_path_name, definition.statistics)])
  layers = _order_layers(all_names)

  def multiplier(name):
    return _rate(name, checked) * layer_decay ** _depth_from_top(name, layers)

  def multipliers(shape, stack):
    values = np.array([multiplier(name) for name in stack], np.float32)
    if np.all(values == values[0]):
      return values[0]
    return values.reshape(-1, *[1] * (len(shape.shape) - 1))

  tree = jax.tree.map(multipliers, shapes, names)
  if not any(map(np.any, jax.tree.leaves(tree))):
    raise ValueError('config.optimizer.rates freezes every parameter; leave at least one to train')
  return tree


def frozen_statistics(
  definition: Definition, rates: Sequence[tuple[str, float]]
) -> frozenset[tuple[str, ...]]:
  """Key paths of the running statistics with multiplier 0, as for `parameter_rates`.

  Their batch norms normalize by them, as in evaluation.
  """
  checked = [_checked_rate(rate) for rate in rates]
  return frozenset(path for path in definition.statistics if not _rate(_path_name(path), checked))


def _rate(name: str, checked: Sequence[tuple[re.Pattern, float]]) -> float:
  return next((rate for pattern, rate in checked if pattern.fullmatch(name)), 1.0)


def _path_name(path: Sequence) -> str:
  return '/'.join(map(str, path))


def frozen(definition: Definition, rates) -> Definition:
  """Returns the model with frozen parameters, see `freeze`."""
  if rates is None:
    return definition

  def bind(parameters):
    trained, statistics = definition.part(parameters)
    return definition.bind(join_statistics(freeze(trained, rates), statistics))

  return definition._replace(bind=bind)


def freeze(trained, rates):
  """Applies `stop_gradient` to parameters with multiplier 0.

  Their gradients are zero, and the backward pass skips them. LiT [1] freezes the image tower, with
  weights of a pretrained one, and trains the text tower:

      L = InfoNCE( sg image, text ),   image = unit vectors of the tower's pooled features

  that is `(('image/.*', 0.0),)` and `config.model.image_projection = 'none'`. A projection would be
  trained, as in [1]'s variant with a linear head on the image side.

  Args:
    trained: parameters and heads.
    rates: multipliers from `parameter_rates`; None for ones.

  References:
    [1] Zhai et al., https://arxiv.org/abs/2111.07991
  """
  if rates is None:
    return trained

  def constant_where_frozen(rate, parameter):
    if np.all(rate):
      return parameter
    constant = jax.lax.stop_gradient(parameter)
    return jnp.where(rate == 0, constant, parameter) if np.any(rate) else constant

  return jax.tree.map(constant_where_frozen, rates, trained)


def _checked_rate(rate) -> tuple[re.Pattern, float]:
  try:
    pattern, multiplier = rate
    pattern, multiplier = re.compile(pattern), float(multiplier)
  except (TypeError, ValueError, re.error) as error:
    raise ValueError(
      f'config.optimizer.rates contains {rate!r}, which is not a pair of a regular expression and '
      f"a multiplier ({error}); write (('image/.*', 0.0),)"
    ) from error
  if not (math.isfinite(multiplier) and multiplier >= 0):
    raise ValueError(
      f'config.optimizer.rates multiplies {pattern.pattern!r} by {multiplier}; use 0 or more'
    )
  return pattern, multiplier


def _check_matches(rates, names) -> None:
  for pattern, _ in rates:
    if not any(map(pattern.fullmatch, names)):
      some = ', '.join(names[:: max(1, len(names) // 8)])
      raise ValueError(
        f'config.optimizer.rates: {pattern.pattern!r} matches no parameter; it must match the full '
        f'path, such as {some}'
      )


def _is_stack(node) -> bool:
  return isinstance(node, tuple)


def _names(path, shape, axes) -> tuple[str, ...]:
  """Path of a parameter; for a stacked one, a path per layer."""
  name = jax.tree_util.keystr(path, simple=True, separator='/')
  if axes[:1] != ('layers',):
    return (name,)
  return tuple(name.replace('/blocks/', f'/blocks/{layer}/') for layer in range(shape.shape[0]))


def _layer(name: str) -> tuple[str, tuple[int, int]] | None:
  """Tower and position of the layer that a parameter is in; None outside of the layers."""
  match = _LAYER.fullmatch(name)
  if match is None:
    return None
  tower, kind, first, second = match.groups()
  halves = kind.startswith('halving')
  return tower, (int(first) + halves, int(second or 0))


def _order_layers(names) -> dict[str, list[tuple[int, int]]]:
  """The layers of each tower, in order."""
  layers: dict[str, set[tuple[int, int]]] = {}
  for tower, layer in filter(None, map(_layer, names)):
    layers.setdefault(tower, set()).add(layer)
  return {tower: sorted(found) for tower, found in layers.items()}


def _depth_from_top(name: str, layers: Mapping[str, list[tuple[int, int]]]) -> int:
  """Exponent of the layer decay: 0 above the layers of a tower, 1 in the last layer."""
  if found := _layer(name):
    tower, layer = found
    return len(layers[tower]) - layers[tower].index(layer)
  tower, _, path = name.partition('/')
  is_below = path.partition('/')[0] in _BELOW_LAYERS
  return len(layers[tower]) + 1 if tower in layers and is_below else 0
