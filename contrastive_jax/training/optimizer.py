"""AdamW, as CLIP trains, or Adafactor, as CoCa does, with warm-up and decay."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax


def make_schedule(
  *, learning_rate: float, warmup_fraction: float, total_steps: int, decay: str = 'cosine'
):
  """Linear warm-up to `learning_rate` over a share of the steps, then decay to zero.

  Warm-up starts at 0. Without warm-up, the first step is at `learning_rate`.

  Args:
    learning_rate: the greatest.
    warmup_fraction: share of the steps in which it is reached; 0 for no warm-up.
    total_steps: after which it is zero.
    decay: 'cosine' or 'linear'.
  """
  if not 0 <= warmup_fraction < 1:
    raise ValueError(f'config.optimizer.warmup_fraction = {warmup_fraction} is not in [0, 1)')
  warmup = max(1, round(warmup_fraction * total_steps)) if warmup_fraction else 0
  warmup = min(warmup, total_steps - 1)  # The last step at the latest is at the peak.
  rest = total_steps - warmup
  if decay == 'cosine':
    fall = optax.cosine_decay_schedule(learning_rate, rest)
  elif decay == 'linear':
    fall = optax.linear_schedule(learning_rate, 0.0, rest)
  else:
    raise ValueError(f"config.optimizer.decay = {decay!r} is unknown; use 'cosine' or 'linear'")
  if warmup == 0:
    return fall
  return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup), fall], [warmup])


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
  """Global-norm clipping, AdamW or Adafactor, and the bounds of the scale.

  Biases, norms, and the scale do not decay.

  Args:
    schedule: step -> learning rate.
    b1: decay of the gradient's average.
    b2: decay of its square's average.
    epsilon: added to the root of the latter; Adafactor adds it to the square.
    weight_decay: share of a weight that a step at learning rate 1 takes away.
    clip_norm: the largest norm of the whole gradient; None or 0 for no clipping.
    name: 'adamw' or 'adafactor'.
    rates: a tree of multipliers of the learning rate, from `parameter_rates`; None for ones. What
      has 0 neither moves nor decays, and has no averages; its gradient must be zero, see
      `freeze`.
    max_scale: upper bound of the learned scale, whose lower bound is 1; 0 for no bounds. A scale
      that starts outside of them moves only toward them.
    axes: the model's logical axes, `Definition.axes`, which say what parameters stack layers;
      None if none does.

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
  """AdamW, which treats stacked layers like any other parameter."""
  del stacked
  return optax.adamw(learning_rate, b1, b2, epsilon, weight_decay=weight_decay, mask=mask)


def adafactor(
  learning_rate, b1: float, b2: float, epsilon: float, *, weight_decay: float, mask, stacked
) -> optax.GradientTransformation:
  """Adafactor as vision transformers are trained with [1]: AdamW whose squares are factored.

  The average of the squares of a matrix is kept as its rows' and its columns'. Its decay grows to
  `b2` with the steps; the parameters' size scales no update.

  References:
    [1] Zhai et al., Scaling Vision Transformers, 2022.
  """

  def decay(step, exponent):
    return jnp.minimum(b2, 1 - (step + 1.0) ** -exponent)

  # Kernels of attention have an axis for the heads; the width of one must be factored too.
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

  optax factors the two longest axes of a parameter, and in a deep stack the layers are one of them.

  Args:
    factored: from `optax.scale_by_factored_rms`.
    stacked: key paths of the parameters whose first axis is the layers.
  """

  def state_axes(parameter):
    layer = jax.ShapeDtypeStruct(parameter.shape[1:], parameter.dtype)
    # Placeholders of shape (1,), shared by all layers, stand for what is not kept.
    is_factored = jax.eval_shape(factored.init, layer).v_row.shape != (1,)
    rows, whole = (0, None) if is_factored else (None, 0)
    return optax.FactoredState(count=None, v_row=rows, v_col=rows, v=whole)

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
      change, after = update(gradient, optax.FactoredState(state.count, *statistics), parameter)
      return change, *after[1:]

    results = jax.tree_util.tree_map_with_path(update_one, gradients, parameters, *state[1:])
    updates, *statistics = _unzip(results, 4)
    return updates, optax.FactoredState(optax.safe_increment(state.count), *statistics)

  return optax.GradientTransformation(init, update)


def _unzip(tree, size: int) -> list:
  """A tree of each element of a tree's plain tuples; optax's own nodes are named tuples."""
  is_result = lambda node: type(node) is tuple  # noqa: E731
  return [jax.tree.map(lambda result: result[i], tree, is_leaf=is_result) for i in range(size)]  # noqa: B023


def _stacked(axes) -> frozenset:
  """The key paths of the parameters whose first axis is 'layers'."""
  named = jax.tree_util.tree_leaves_with_path(axes, is_leaf=lambda node: isinstance(node, tuple))
  return frozenset(path for path, names in named if names[:1] == ('layers',))


def decays(parameters):
  """A tree of booleans: matrices and tables decay; biases, norms and the scale do not."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key not in ('bias', 'scale', 'log_scale'), parameters
  )


def bound_scale(most: float) -> optax.GradientTransformation:
  """Keeps the parameter `log_scale` in [0, log most].

  The update is cut, not the value in the forward pass, so that the gradient lives on at the bound.
  A value outside of the bounds, from other weights, stays where it is until it moves toward them.
  """

  def update(updates, state, parameters):
    def cut(path, change, value):
      if path[-1].key != 'log_scale':
        return change
      least, greatest = jnp.minimum(value, 0.0), jnp.maximum(value, jnp.log(most))
      return jnp.clip(value + change, least, greatest) - value

    return jax.tree_util.tree_map_with_path(cut, updates, parameters), state

  return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)
