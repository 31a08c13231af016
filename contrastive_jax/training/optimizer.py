"""AdamW with warm-up and cosine decay, as CLIP trains."""

import jax
import jax.numpy as jnp
import optax

MAX_SCALE = 100.0


def make_schedule(*, learning_rate: float, warmup_fraction: float, total_steps: int):
  """Linear warm-up to `learning_rate` over a share of the steps, then cosine decay to zero."""
  if not 0 <= warmup_fraction < 1:
    raise ValueError(f'config.optimizer.warmup_fraction = {warmup_fraction} is not in [0, 1)')
  warmup = max(1, round(warmup_fraction * total_steps))
  return optax.warmup_cosine_decay_schedule(
    0.0, learning_rate, warmup, max(total_steps, warmup + 1)
  )


def make_optimizer(
  schedule,
  *,
  b1: float,
  b2: float,
  epsilon: float,
  weight_decay: float,
  clip_norm: float | None,
) -> optax.GradientTransformation:
  """Global-norm clipping, AdamW, and the bounds of the scale.

  Biases, norms, and the scale do not decay.

  Args:
    schedule: step -> learning rate.
    b1: decay of the gradient's average.
    b2: decay of its square's average.
    epsilon: added to the root of the latter.
    weight_decay: share of a weight that a step at learning rate 1 takes away.
    clip_norm: the largest norm of the whole gradient; None for no bound.
  """
  return optax.chain(
    optax.identity() if clip_norm is None else optax.clip_by_global_norm(clip_norm),
    optax.adamw(schedule, b1, b2, epsilon, weight_decay=weight_decay, mask=decays),
    bound_scale(MAX_SCALE),
  )


def decays(parameters):
  """A tree of booleans: matrices and tables decay; biases, norms and the scale do not."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key not in ('bias', 'scale', 'log_scale'), parameters
  )


def bound_scale(most: float) -> optax.GradientTransformation:
  """Keeps the parameter `log_scale` in [0, log most].

  The update is cut, not the value in the forward pass, so that the gradient lives on at the bound.
  """

  def update(updates, state, parameters):
    def cut(path, change, value):
      if path[-1].key != 'log_scale':
        return change
      return jnp.clip(value + change, 0.0, jnp.log(most)) - value

    return jax.tree_util.tree_map_with_path(cut, updates, parameters), state

  return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)
