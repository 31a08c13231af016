"""AdamW, as in CLIP, or Adafactor, as in CoCa, with warmup and decay of the learning rate."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def make_schedule(
  *, learning_rate: float, warmup_fraction: float, total_steps: int, decay: str = 'cosine'
):
  """Linear warmup from 0 to `learning_rate`, then decay to 0.

  Args:
    learning_rate: peak learning rate; without warmup, that of the first step.
    warmup_fraction: warmup steps as a fraction of all steps; 0 for no warmup.
    total_steps: number of steps, after which the learning rate is 0.
    decay: 'cosine' or 'linear'.

  Returns:
    An optax schedule: step -> learning rate.

  Raises:
    ValueError: if `warmup_fraction` is outside [0, 1), or `decay` is unknown.
  """
  if not 0 <= warmup_fraction < 1:
    raise ValueError(f'config.optimizer.warmup_fraction = {warmup_fraction} is not in [0, 1)')
  warmup = max(1, round(warmup_fraction * total_steps)) if warmup_fraction else 0
  warmup = min(warmup, total_steps - 1)  # Short runs still reach the peak.
  decay_steps = total_steps - warmup
  if decay == 'cosine':
    after_warmup = optax.cosine_decay_schedule(learning_rate, decay_steps)
  elif decay == 'linear':
    after_warmup = optax.linear_schedule(learning_rate, 0.0, decay_steps)
  else:
    raise ValueError(f"config.optimizer.decay = {decay!r} is unknown; use 'cosine' or 'linear'")
  if warmup == 0:
    return after_warmup
  increase = optax.linear_schedule(0.0, learning_rate, warmup)
  return optax.join_schedules([increase, after_warmup], [warmup])


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
  """Global-norm clipping, AdamW or Adafactor, and bounds on the scale.

  Weight decay excludes biases, norms and the scale.

  Args:
    schedule: step -> learning rate.
    b1: decay rate of the first moment.
    b2: decay rate of the second moment.
    epsilon: added to the square root of the second moment; in Adafactor, to the squared gradient.
    weight_decay: decoupled weight decay, multiplied by the learning rate.
    clip_norm: maximum global norm of the gradient; None or 0 for no clipping.
    name: 'adamw' or 'adafactor'.
    rates: tree of learning rate multipliers from `parameter_rates`; None for ones. Parameters with
      multiplier 0 are frozen: no update, no weight decay, no optimizer state. Their gradients must
      be zero, see `freeze`.
    max_scale: upper bound of the learned scale, with lower bound 1; 0 for no bounds. A scale that
      starts out of bounds can only move toward them.
    axes: logical axes of the parameters, `Definition.axes`, to find stacked layers; None if no
      parameter stacks layers.

  Raises:
    ValueError: if `name` is unknown, or `max_scale` is below 1 and not 0.
  """
  clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
  if name not in RULES:
    raise ValueError(f'config.optimizer.name = {name!r} is unknown; use one of {sorted(RULES)}')
  if not (max_scale == 0 or max_scale >= 1):
    raise ValueError(f'config.optimizer.max_scale = {max_scale}; use 1 or more, or 0 for no bound')
  rule = RULES[name](
    schedule, b1, b2, epsilon, weight_decay=weight_decay, mask=decays, stacked=_stacked(axes)
  )
  bound = bound_scale(max_scale) if max_scale else optax.identity()
  if rates is None:
    return optax.chain(clip, rule, bound)
  multiply = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, rates))
  trained = jax.tree.map(lambda rate: bool(np.any(rate)), rates)
  return optax.chain(clip, optax.masked(rule, trained), multiply, optax.masked(bound, trained))


def adamw(
  learning_rate, b1: float, b2: float, epsilon: float, *, weight_decay: float, mask, stacked
) -> optax.GradientTransformation:
  """`optax.adamw`. It works elementwise, so stacked layers need no special case."""
  del stacked
  return optax.adamw(learning_rate, b1, b2, epsilon, weight_decay=weight_decay, mask=mask)


def adafactor(
  learning_rate, b1: float, b2: float, epsilon: float, *, weight_decay: float, mask, stacked
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
    by_layer(factored, stacked),
    optax.ema(b1, debias=False),
    optax.add_decayed_weights(weight_decay, mask),
    optax.scale_by_learning_rate(learning_rate),
  )


RULES = {'adamw': adamw, 'adafactor': adafactor}


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
  named = jax.tree_util.tree_leaves_with_path(axes, is_leaf=lambda node: isinstance(node, tuple))
  return frozenset(path for path, names in named if names[:1] == ('layers',))


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
