"""Moving averages of parameters and heads: the one that is evaluated, and target encoders."""

from collections.abc import Mapping

import jax.numpy as jnp
import optax

from contrastive_jax.methods import Momentum
from contrastive_jax.training.state import FROZEN, TrainState


def move_averages(
  before: TrainState,
  trained,
  *,
  average_decay: float,
  targets: Mapping[str, Momentum],
  total_steps: int,
) -> TrainState:
  """Moves the average and the targets of a state toward its new parameters and heads.

  Args:
    before: the state before the step.
    trained: parameters and heads after the step.
    average_decay: of the average that is evaluated, where the state keeps one. It grows from 0.1,
      so that the average forgets the random start.
    targets: the momentum of each target.
    total_steps: of the run.
  """
  after = before
  if before.average is not None:
    decay = jnp.minimum(average_decay, (1 + before.step) / (10 + before.step))
    average = optax.incremental_update(trained, before.average, 1 - decay)
    after = after.replace(average=average)
  if before.targets is not None:
    after = after.replace(
      targets={
        key: before.targets[key]
        if key == FROZEN
        else optax.incremental_update(
          trained, before.targets[key], 1 - momentum(before.step, total_steps)
        )
        for key, momentum in targets.items()
      }
    )
  return after
