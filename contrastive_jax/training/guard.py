"""Bad steps within the step: what is not finite, or spikes, is marked, and skipped on demand."""

import jax
import jax.numpy as jnp
import optax

from contrastive_jax.training.state import TrainState

# Good steps after which the average norm says what a spike is.
_WARMUP_STEPS = 100


def guard(
  before: TrainState, after: TrainState, loss: jax.Array, gradients, *, skip: bool, spike: float
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Follows the gradient's norm, and keeps the state as it was at a bad step.

  Args:
    before: the state before the step.
    after: the state after it.
    loss: scalar.
    gradients: of all that is trained.
    skip: leave the state as it was at a bad step; otherwise the step is marked alone.
    spike: a step is bad if its loss or gradient is not finite, or if the gradient's norm exceeds
      `spike` times its average over the good steps; 0 for no bound.

  Returns:
    The state, and the metrics `gradient_norm` and `bad`.
  """
  norm, usual = optax.tree.norm(gradients), before.average_norm
  bad = ~(jnp.isfinite(loss) & jnp.isfinite(norm))
  if spike:
    bad |= (before.step >= _WARMUP_STEPS) & (norm > spike * usual)
  # The average starts at the norm of the first good step; until then it is 0.
  average_norm = jnp.where(usual == 0, norm, 0.99 * usual + 0.01 * norm)
  after = after.replace(average_norm=jnp.where(bad, usual, average_norm))
  if skip:
    after = jax.tree.map(lambda old, new: jnp.where(bad, old, new), before, after)
  return after, {'gradient_norm': norm, 'bad': bad}
