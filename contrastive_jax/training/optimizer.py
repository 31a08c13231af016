"""Optimizers and learning rate schedules by name.

Whatever factors a parameter, orthogonalizes it or takes its norm does so per layer, so layers that
are stacked for `lax.scan` are updated like unrolled ones.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

DECAYS = ('constant', 'cosine', 'linear', 'rsqrt', 'wsd')


def make_schedule(
  *,
  learning_rate: float,
  warmup_fraction: float,
  total_steps: int,
  decay: str = 'cosine',
  cooldown_fraction: float = 0.0,
  timescale: float = 10_000,
):
  """Linear warmup from 0 to `learning_rate`, then decay, then a linear cooldown to 0.

  Args:
    learning_rate: peak learning rate; without warmup, that of the first step.
    warmup_fraction: warmup steps as a fraction of all steps; 0 for no warmup.
    total_steps: number of steps. 'cosine', 'linear' and any schedule with a cooldown end at 0.
    decay: after the warmup. 'cosine' and 'linear' fall to 0 at `total_steps`. 'constant' stays.
      'rsqrt' is learning_rate / √(1 + steps after warmup / timescale) [1]. 'wsd', warmup-stable-
      decay [2], is 'constant' with a cooldown.
    cooldown_fraction: steps of the cooldown as a fraction of all steps; 0 for no cooldown. The
      cooldown multiplies any decay by a factor that falls linearly from 1 to 0, as in big_vision.
    timescale: of 'rsqrt', in steps.

  Returns:
    An optax schedule: step -> learning rate.

  Raises:
    ValueError: if `decay` is unknown, 'wsd' has no cooldown, or warmup and cooldown do not fit.

  References:
    [1] Zhai et al., Scaling Vision Transformers, 2022.
    [2] Hu et al., MiniCPM: Unveiling the Potential of Small Language Models, 2024.
  """
  _check_schedule(decay, warmup_fraction, cooldown_fraction)
  warmup = max(1, round(warmup_fraction * total_steps)) if warmup_fraction else 0
  warmup = min(warmup, total_steps - 1)  # Short runs still reach the peak.
  decay_steps = total_steps - warmup
  schedule: Callable[..., Any]
  if decay == 'cosine':
    schedule = optax.cosine_decay_schedule(learning_rate, decay_steps)
  elif decay == 'linear':
    schedule = optax.linear_schedule(learning_rate, 0.0, decay_steps)
  elif decay == 'rsqrt':
    schedule = lambda step: learning_rate * jax.lax.rsqrt(1 + step / timescale)  # noqa: E731
  else:
    schedule = optax.constant_schedule(learning_rate)
  if warmup:
    increase = optax.linear_schedule(0.0, learning_rate, warmup)
    schedule = optax.join_schedules([increase, schedule], [warmup])
  if not cooldown_fraction:
    return schedule
  steps = min(max(1, round(cooldown_fraction * total_steps)), decay_steps)
  cooldown: Callable[..., Any] = optax.linear_schedule(
    1.0, 0.0, steps, transition_begin=total_steps - steps
  )
  return lambda step: schedule(step) * cooldown(step)


def _check_schedule(decay: str, warmup_fraction: float, cooldown_fraction: float) -> None:
  if decay not in DECAYS:
    raise ValueError(f'config.optimizer.decay = {decay!r} is unknown; use one of {DECAYS}')
  for name, value in (('warmup', warmup_fraction), ('cooldown', cooldown_fraction)):
    if not 0 <= value < 1:
      raise ValueError(f'config.optimizer.{name}_fraction = {value} is not in [0, 1)')
  if warmup_fraction + cooldown_fraction > 1:
    raise ValueError(
      f'config.optimizer.cooldown_fraction = {cooldown_fraction} begins before '
      f'config.optimizer.warmup_fraction = {warmup_fraction} ends; their sum must be at most 1'
    )
  if decay == 'wsd' and not cooldown_fraction:
    raise ValueError(
      "config.optimizer.cooldown_fraction = 0 and config.optimizer.decay = 'wsd', which ends with "
      "a cooldown; use a fraction such as 0.2, or decay = 'constant'"
    )


def make_optimizer(
  schedule,
  *,
  b1: float,
  b2: float,
  epsilon: float,
  weight_decay: float,
  clip_norm: float | None,
  name: str = 'adamw',
  rates=None,
  max_scale: float = 100.0,
  axes: Any = None,
) -> optax.GradientTransformation:
  """Global-norm clipping, the optimizer of a name, and bounds on the scale.

  Weight decay excludes biases, norms and the scale.

  Args:
    schedule: step -> learning rate.
    b1: decay rate of the first moment; in LARS and SGD, of the momentum.
    b2: decay rate of the second moment; in Lion, of the momentum.
    epsilon: added to the square root of the second moment; in Adafactor, to the squared gradient;
      in LARS, to the norm of the gradient. Lion and SGD have none.
    weight_decay: decoupled weight decay, multiplied by the learning rate; in LARS and SGD, added to
      the gradient, before its norm is taken.
    clip_norm: maximum global norm of the gradient; None or 0 for no clipping.
    name: 'adafactor', 'adamw', 'lars', 'lion', 'muon' or 'sgd', see the functions of these names.
    rates: tree of learning rate multipliers from `parameter_rates`; None for ones. Parameters with
      multiplier 0 are frozen: no update, no weight decay, no optimizer state. Their gradients must
      be zero, see `freeze`.
    max_scale: upper bound of the learned scale, with lower bound 1; 0 for no bounds. A scale that
      starts out of bounds can only move toward them.
    axes: logical axes of the parameters, `Definition.axes`, to find stacked layers and, for Muon,
      hidden matrices; None if no parameter stacks layers.

  Raises:
    ValueError: if `name` is unknown, `max_scale` is below 1 and not 0, or Muon finds no matrix.
  """
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  if name not in RULES:
    raise ValueError(f'config.optimizer.name = {name!r} is unknown; use one of {sorted(RULES)}')
  if not (max_scale == 0 or max_scale >= 1):
    raise ValueError(f'config.optimizer.max_scale = {max_scale}; use 1 or more, or 0 for no bound')
  rule = RULES[name](schedule, b1, b2, epsilon, weight_decay=weight_decay, mask=decays, axes=axes)
  bound = bound_scale(max_scale) if max_scale else optax.identity()
  if rates is None:
    return optax.chain(clip, rule, bound)
  multiply = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates))
  trained = jax.tree.map(lambda rate: bool(np.any(rate)), rates)
  return optax.chain(clip, optax.masked(rule, trained), multiply, optax.masked(bound, trained))


def adamw(
  learning_rate, b1: float, b2: float, epsilon: float, *, weight_decay: float, mask, axes
) -> optax.GradientTransformation:
  """`optax.adamw`. It works elementwise, so stacked layers need no special case."""
  del axes
  return optax.adamw(learning_rate, b1, b2, epsilon, weight_decay=weight_decay, mask=mask)


def adafactor(
  learning_rate, b1: float, b2: float, epsilon: float, *, weight_decay: float, mask, axes
) -> optax.GradientTransformation:
  """Adafactor as modified for vision transformers [1]: AdamW with a factored second moment.

  The decay rate of the second moment grows with the step, up to `b2`. Updates are not scaled by
  the norm of the parameter.

  References:
    [1] Zhai et al., Scaling Vision Transformers, 2022.
  """

  def decay(step, exponent):
    return jnp.minimum(b2, 1 - (step + 1.0) ** -exponent)

  # A minimum of 32 also factors attention kernels, which have an axis of one head's width.
  factored = optax.scale_by_factored_rms(
    min_dim_size_to_factor=32, epsilon=epsilon, decay_rate_fn=decay
  )
  return optax.chain(
    by_layer(factored, _stacked(axes)),
    optax.ema(b1, debias=False),
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )


def lion(
  learning_rate, b1: float, b2: float, epsilon: float, *, weight_decay: float, mask, axes
) -> optax.GradientTransformation:
  """`optax.lion`: the sign of a momentum [1]. It works elementwise.

  The paper uses a learning rate 3 to 10 times below AdamW's and a weight decay as many times above.

  References:
    [1] Chen et al., Symbolic Discovery of Optimization Algorithms, 2023.
  """
  del axes, epsilon
  return optax.lion(learning_rate, b1, b2, weight_decay=weight_decay, mask=mask)


def lars(
  learning_rate, b1: float, b2: float, epsilon: float, *, weight_decay: float, mask, axes
) -> optax.GradientTransformation:
  """LARS [1]: momentum SGD whose gradients have a thousandth of the norm of their parameter.

  Norms are taken per parameter and layer. As in SimCLR and BYOL, parameters without weight decay
  keep their gradient's norm.

  References:
    [1] You et al., Large Batch Training of Convolutional Networks, 2017.
  """
  del b2
  stacked = _stacked(axes)
  ratio = optax.scale_by_trust_ratio(trust_coefficient=0.001, eps=epsilon)

  def scale(gradients, parameters):
    def scale_one(path, gradient, parameter):
      one = lambda gradient, parameter: ratio.update(gradient, ratio.init(()), parameter)[0]  # noqa: E731
      return (jax.vmap(one) if path in stacked else one)(gradient, parameter)

    return jax.tree_util.tree_map_with_path(scale_one, gradients, parameters)

  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask),
    optax.masked(optax.stateless(scale), mask),
    optax.scale_by_learning_rate(learning_rate),
    optax.trace(b1),
  )


def sgd(
  learning_rate, b1: float, b2: float, epsilon: float, *, weight_decay: float, mask, axes
) -> optax.GradientTransformation:
  """`optax.sgd` with a momentum; weight decay is part of the gradient. It works elementwise."""
  del axes, b2, epsilon
  decay = optax.add_decayed_weights(weight_decay, mask)
  return optax.chain(decay, optax.sgd(learning_rate, momentum=b1))


def muon(
  learning_rate, b1: float, b2: float, epsilon: float, *, weight_decay: float, mask, axes
) -> optax.GradientTransformation:
  """Muon [1] for the matrices of hidden layers, and AdamW for everything else.

  Hidden matrices are the kernels of attention and of MLPs in towers, poolers, decoders and an
  encoder's projector, and, flattened, those of dense convolutions in convolutional towers and
  stems, see `hidden_matrices`. Embeddings, patch stems, convolutions of pixels or per channel,
  norms, biases, projections to the shared space, the captioner's output, the methods' heads and
  scalars take AdamW with `b1`, `b2` and `epsilon`.
  Muon's momentum is Nesterov's with decay rate 0.95, and five Newton-Schulz steps orthogonalize it.
  Updates are scaled to the root mean square of AdamW's, so both take the same learning rate and
  weight decay [2].

  Raises:
    ValueError: if the model has no hidden matrix.

  References:
    [1] Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024.
    [2] Liu et al., Muon is Scalable for LLM Training, 2025.
  """
  matrices = hidden_matrices(axes)
  if not matrices:
    raise ValueError(
      "config.optimizer.name = 'muon', and the model has no attention and no MLP, whose matrices "
      "it orthogonalizes; use 'adamw'"
    )
  at_paths = lambda function: lambda tree: jax.tree_util.tree_map_with_path(function, tree)  # noqa: E731

  def scale(path, update):
    size = lambda axes: math.prod(update.shape[axis] for axis in axes)  # noqa: E731
    longer = max(map(size, matrices[path]))
    return 0.2 * math.sqrt(longer) * update

  orthogonal = optax.chain(
    optax.contrib.scale_by_muon(weight_dimension_numbers=at_paths(lambda path, _: matrices[path])),
    optax.stateless(lambda updates, _: at_paths(scale)(updates)),
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )
  others = adamw(learning_rate, b1, b2, epsilon, weight_decay=weight_decay, mask=mask, axes=axes)
  labels = at_paths(lambda path, _: 'muon' if path in matrices else 'adamw')
  return optax.partition({'muon': orthogonal, 'adamw': others}, labels)


# Parts of a model whose matrices are no hidden ones.
_OUTPUTS = ('heads', 'image_projection', 'text_projection', 'second_text_projection')

RULES = {
  'adamw': adamw,
  'adafactor': adafactor,
  'lars': lars,
  'lion': lion,
  'muon': muon,
  'sgd': sgd,
}


def hidden_matrices(axes: Any) -> Mapping[Any, optax.contrib.MuonDimensionNumbers]:
  """The matrices of hidden layers by key path, with their axes of inputs and of outputs.

  A hidden matrix maps between 'embed' and 'mlp', 'heads' with the width of a head, or 'channels'
  with the places of a convolution. Other axes number matrices that are orthogonalized separately:
  stacked layers, and keys and values.

  Args:
    axes: logical axes of the parameters, a tree of tuples; None for none. The methods' heads, under
      'heads', and projections to the shared space are left out.
  """
  found: dict[Any, optax.contrib.MuonDimensionNumbers] = {}
  for path, names in _named(axes):
    inner = next((name for name in ('mlp', 'heads', 'channels') if name in names), None)
    if path[0].key in _OUTPUTS or path[-1].key != 'kernel' or not inner or 'embed' not in names:
      continue
    start = names.index(inner)
    # A convolution is flattened: it maps from the features of all its places.
    flat = tuple(axis for axis, name in enumerate(names) if name not in ('embed', 'layers'))
    hidden = {'mlp': (start,), 'heads': (start, start + 1), 'channels': flat}[inner]
    sides = sorted([hidden, (names.index('embed'),)])
    found[path] = optax.contrib.MuonDimensionNumbers(*sides)
  return found


def by_layer(
  factored: optax.GradientTransformation, stacked: frozenset
) -> optax.GradientTransformation:
  """Applies `optax.scale_by_factored_rms` to each layer of stacked parameters separately.

  optax factors the two longest axes of a parameter; in a deep stack, one of them is the layer axis.

  Args:
    factored: from `optax.scale_by_factored_rms`.
    stacked: key paths of the parameters whose first axis is the layer.
  """

  def state_axes(parameter):
    layer = jax.ShapeDtypeStruct(parameter.shape[1:], parameter.dtype)
    # Unused statistics are placeholders of shape (1,), shared by all layers.
    is_factored = jax.eval_shape(factored.init, layer).v_row.shape != (1,)
    row, full = (0, None) if is_factored else (None, 0)
    return optax.FactoredState(count=None, v_row=row, v_col=row, v=full)

  def init(parameters):
    def init_one(path, parameter):
      init = factored.init
      if path in stacked:
        init = jax.vmap(init, out_axes=state_axes(parameter))
      return tuple(init(parameter)[1:])

    statistics = jax.tree_util.tree_map_with_path(init_one, parameters)
    return optax.FactoredState(jnp.zeros([], jnp.int32), *_unzip(statistics, 3))

  def update(gradients, state, parameters):
    def update_one(path, gradient, parameter, *statistics):
      update = factored.update
      if path in stacked:
        axes = state_axes(parameter)
        update = jax.vmap(update, in_axes=(0, axes, 0), out_axes=(0, axes))
      factored_state = optax.FactoredState(state.count, *statistics)
      scaled, new_state = update(gradient, factored_state, parameter)
      return scaled, *new_state[1:]

    results = jax.tree_util.tree_map_with_path(update_one, gradients, parameters, *state[1:])
    updates, *statistics = _unzip(results, 4)
    return updates, optax.FactoredState(optax.safe_increment(state.count), *statistics)

  return optax.GradientTransformation(init, update)


def _unzip(tree, size: int) -> list:
  """Splits a tree of plain tuples into one tree per element; named tuples are nodes."""
  is_result = lambda node: type(node) is tuple  # noqa: E731
  return [jax.tree.map(lambda result: result[i], tree, is_leaf=is_result) for i in range(size)]  # noqa: B023


def _stacked(axes) -> frozenset:
  """Key paths of the parameters whose first axis is 'layers'."""
  return frozenset(path for path, names in _named(axes) if names[:1] == ('layers',))


def _named(axes) -> list:
  """Pairs of the key path of a parameter and its logical axes."""
  return jax.tree_util.tree_leaves_with_path(axes, is_leaf=lambda node: isinstance(node, tuple))


def decays(parameters):
  """Mask for weight decay: False for biases, norms and the scale, True for all others."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key not in ('bias', 'scale', 'log_scale'), parameters
  )


def bound_scale(max_scale: float) -> optax.GradientTransformation:
  """Keeps the parameter `log_scale` in [0, log(max_scale)].

  Updates are clipped instead of the value in the forward pass, so the gradient at a bound is not
  zero. A value that starts out of bounds, as in weights of others, can only move toward them.
  """

  def update(updates, state, parameters):
    def clip(path, change, value):
      if path[-1].key != 'log_scale':
        return change
      low, high = jnp.minimum(value, 0.0), jnp.maximum(value, jnp.log(max_scale))
      return jnp.clip(value + change, low, high) - value

    return jax.tree_util.tree_map_with_path(clip, updates, parameters), state

  return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)
