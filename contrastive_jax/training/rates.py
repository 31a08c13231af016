"""Learning rates by parameter: frozen towers, and layer-wise decay."""

import math
import re
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax.models.definition import Definition

# Of a tower, what comes before its layers; all else comes after them.
_BEFORE = ('stem', 'embed', 'positions', 'class_token', 'pre_norm')


def parameter_rates(
  definition: Definition, rates: Sequence[tuple[str, float]] = (), layer_decay: float = 1.0
):
  """What each parameter's learning rate is multiplied by; 0 freezes it.

  Layers that are stacked to be scanned go by the paths of unrolled ones, such as
  'image/transformer/blocks/0/mlp/up/kernel'.

  Args:
    definition: the model, with the methods' heads.
    rates: pairs of a regular expression, which must match a whole path, and a multiplier. The first
      that matches counts; a parameter that none matches learns at the whole rate.
    layer_decay: a further multiplier, taken to the power of the number of layers of its tower that
      lie from a parameter upwards: 1 for the last layer, all and one more for the embeddings, and 0
      for what follows the layers [1].

  Returns:
    A tree of float32 arrays, each a scalar or of a shape that broadcasts over the stacked layers;
    None where all learn at the whole rate.

  Raises:
    ValueError: if a field is wrong, a pattern matches nothing, or nothing is left to train.

  References:
    [1] Bao et al., BEiT: BERT Pre-Training of Image Transformers, 2022.
  """
  rates = [_checked_rate(rate) for rate in rates]
  if not 0 < layer_decay <= 1:
    raise ValueError(f'config.optimizer.layer_decay = {layer_decay}; use a number in (0, 1]')
  if not rates and layer_decay == 1:
    return None
  shapes = jax.eval_shape(lambda: definition.init(jax.random.key(0)))
  shapes, axes = (definition.part(tree)[0] for tree in (shapes, definition.axes))
  names = jax.tree_util.tree_map_with_path(_names, shapes, axes)
  everything = [name for stack in jax.tree.leaves(names, is_leaf=_is_stack) for name in stack]
  _check_matches(rates, everything)
  layers = _layers(everything)

  def multiplier(name):
    own = next((rate for pattern, rate in rates if pattern.fullmatch(name)), 1.0)
    return own * layer_decay ** _height(name, layers)

  def multipliers(shape, stack):
    values = np.array([multiplier(name) for name in stack], np.float32)
    if np.all(values == values[0]):
      return values[0]
    return values.reshape(-1, *[1] * (len(shape.shape) - 1))

  tree = jax.tree.map(multipliers, shapes, names)
  if not any(map(np.any, jax.tree.leaves(tree))):
    raise ValueError('config.optimizer.rates freezes every parameter; leave some to train')
  return tree


def frozen(definition: Definition, rates) -> Definition:
  """The model whose `bind` freezes parameters, see `freeze`."""
  if rates is None:
    return definition
  return definition._replace(bind=lambda parameters: definition.bind(freeze(parameters, rates)))


def freeze(trained, rates):
  """Parameters with the frozen ones as constants.

  Their gradients are zero, count in no norm, and cost no backward pass.

  Args:
    trained: parameters and heads.
    rates: from `parameter_rates`.
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
      f'config.optimizer.rates holds {rate!r}, which is no pair of a regular expression and a '
      f"multiplier ({error}); write (('image/.*', 0.0),)"
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
        f'config.optimizer.rates: {pattern.pattern!r} matches no parameter; it must match a whole '
        f'path, such as {some}'
      )


def _is_stack(node) -> bool:
  return isinstance(node, tuple)


def _names(path, shape, axes) -> tuple[str, ...]:
  """The path of a parameter; of a stacked one, the path of each layer."""
  name = jax.tree_util.keystr(path, simple=True, separator='/')
  if axes[:1] != ('layers',):
    return (name,)
  return tuple(name.replace('/blocks/', f'/blocks/{layer}/') for layer in range(shape.shape[0]))


def _layers(names) -> dict[str, int]:
  """The number of layers of each tower."""
  layers: dict[str, int] = {}
  for name in names:
    if match := re.fullmatch(r'(.*?)/transformer/blocks/(\d+)/.*', name):
      tower, layer = match.groups()
      layers[tower] = max(layers.get(tower, 0), int(layer) + 1)
  return layers


def _height(name: str, layers: dict[str, int]) -> int:
  """How many of its tower's layers lie from the parameter upwards."""
  for tower, number in layers.items():
    if name.startswith(f'{tower}/'):
      part, *rest = name[len(tower) + 1 :].split('/')
      if part in _BEFORE:
        return number + 1
      if part == 'transformer':
        return number - int(rest[1])
  return 0
