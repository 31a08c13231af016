"""The train step. `train_step` is the mathematics; `jit_train_step` places it on a mesh."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax.data.images import normalize
from contrastive_jax.models.definition import Definition
from contrastive_jax.sharding.mesh import (
  batch_sharding,
  merge_micro_batches,
  on_mesh,
  split_micro_batches,
)
from contrastive_jax.training.objective import Objective
from contrastive_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
# The average gradient says what a spike is once so many steps have settled it.
_SETTLED = 100


def make_train_step(
  definition: Definition,
  objective: Objective,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  *,
  augment: Callable[[jax.Array, jax.Array], jax.Array] = lambda keys, images: images,
  average_decay: float = 0.0,
  micro_batches: int = 1,
  views: int = 1,
  skip_bad: bool = False,
  spike: float = 0.0,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
  """Returns the pure function `train_step(state, batch) -> (state, metrics)`.

  Args:
    definition: the model.
    objective: the losses.
    optimizer: an optax transformation.
    mesh: the mesh over which the batch is sharded.
    augment: (keys [B], images [B, H, H, 3]) -> images [B, S, S, 3], pixels from 0 to 255.
    average_decay: of the parameters' moving average, where the state keeps one.
    micro_batches: n, parts in which the model visits the batch [1]. The step keeps the activations
      of one part alone, and gives the gradient of the whole, for a second forward pass.
    views: of a picture: 1, or 2, each augmented for itself and encoded, for losses of `second`. The
      first is what the texts are compared with.
    skip_bad: leave the state as it was at a bad step, except for its number, which the learning
      rate follows.
    spike: a step is bad if its loss or gradient is not finite, or if the gradient's norm is more
      than so many times its average over the good steps; 0 for no bound.

  Raises:
    ValueError: if there are not 1 or 2 views, or if a loss compares two and there is one.

  References:
    [1] Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021.
  """
  if views not in (1, 2):
    raise ValueError(f'config.views = {views}; use 1, or 2 for losses that compare two')
  if views == 1 and objective.of_views:
    raise ValueError(
      f'config.objective.{objective.of_views[0]} compares two views of a picture, and '
      'config.views = 1; use 2'
    )

  def look(keys, images):
    """A view of each picture, and keys for the model."""
    augment_keys, model_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    return normalize(augment(augment_keys, images)), model_keys

  def forward(parameters, part, counts=None):
    """The embeddings, scale and bias of a part of the batch, and the losses of its tokens."""
    model = definition.bind(parameters)
    images, keys = look(part['key'], part['image'])
    outputs = model(images, part['tokens'], keys=keys)
    if views == 2:
      # A key beside the two that the first view is drawn with, which stays as it is without this.
      others = jax.vmap(jax.random.fold_in, (0, None))(part['key'], 2)
      images, keys = look(others, part['image'])
      outputs = outputs.replace(second=model.encode_image(images, keys=keys))
    return outputs.embeddings(), objective.of_tokens(outputs, part, counts)

  def visit(parameters, batch):
    """`forward` of the whole batch, part by part."""
    if micro_batches == 1:
      return forward(parameters, batch)
    counts = objective.count_tokens(batch)
    # What is not kept is computed again in the backward pass, and drawn again from the same keys.
    visit_part = jax.checkpoint(lambda part: forward(parameters, part, counts), prevent_cse=False)
    outputs, of_tokens = jax.lax.map(visit_part, split_micro_batches(batch, micro_batches, mesh))
    return merge_micro_batches(outputs, mesh), jax.tree.map(jnp.sum, of_tokens)

  def loss_and_metrics(parameters, batch, step):
    outputs, of_tokens = visit(parameters, batch)
    loss, metrics = objective.join(of_tokens, outputs, batch | {'step': step})
    return loss, metrics | {'scale': outputs.scale}

  def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    # A key an example: what is drawn for it hangs neither on the parts nor on the mesh.
    batch = batch | {'key': jax.random.split(key, len(batch['tokens']))}
    gradient_of = jax.value_and_grad(loss_and_metrics, has_aux=True)
    (loss, metrics), gradients = gradient_of(state.parameters, batch, state.step)
    optimizer_state = _at_step(state.optimizer_state, state.step)
    updates, optimizer_state = optimizer.update(gradients, optimizer_state, state.parameters)
    parameters = optax.apply_updates(state.parameters, updates)
    average = state.average
    if average is not None:
      # The average of few steps would remember the random start: its decay grows to the asked one.
      decay = jnp.minimum(average_decay, (1 + state.step) / (10 + state.step))
      average = optax.incremental_update(parameters, average, 1 - decay)
    norm = optax.tree.norm(gradients)
    bad = ~(jnp.isfinite(loss) & jnp.isfinite(norm))
    if spike:
      bad |= (state.step >= _SETTLED) & (norm > spike * state.average_norm)
    # The average starts at the norm of the first good step; until then it is 0.
    usual = state.average_norm
    average_norm = jnp.where(usual == 0, norm, 0.99 * usual + 0.01 * norm)
    after = state.replace(
      parameters=parameters,
      optimizer_state=optimizer_state,
      average=average,
      average_norm=jnp.where(bad, usual, average_norm),
    )
    if skip_bad:
      after = jax.tree.map(lambda old, new: jnp.where(bad, old, new), state, after)
    return after.replace(step=state.step + 1), metrics | {'gradient_norm': norm, 'bad': bad}

  return train_step


def _at_step(optimizer_state, step):
  """The optimizer state with its schedules at `step`.

  Skipped steps count for the schedule. Bias corrections keep counts of their own, of the gradients
  that they have seen.
  """

  def advance(node):
    return node._replace(count=step) if is_schedule(node) else node

  def is_schedule(node):
    return isinstance(node, optax.ScaleByScheduleState)

  return jax.tree.map(advance, optimizer_state, is_leaf=is_schedule)


def jit_train_step(train_step: Callable, abstract: TrainState, mesh: Mesh) -> Callable:
  """Jits a step: the state placed as `abstract` says and donated, the batch cut along B."""
  shardings = jax.tree.map(lambda array: array.sharding, abstract)

  return jax.jit(
    on_mesh(train_step, mesh),
    in_shardings=(shardings, batch_sharding(mesh)),
    out_shardings=(shardings, NamedSharding(mesh, PartitionSpec())),
    donate_argnums=0,
  )
