"""The forward pass of a step: views and texts of each micro-batch through the towers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from contrastive_jax.methods import Objective, inputs
from contrastive_jax.models.definition import Definition, join_statistics, updated_statistics
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.sharding.mesh import merge_micro_batches, split_micro_batches

Batch = Mapping[str, jax.Array]
Preprocess = Callable[[jax.Array, jax.Array], jax.Array]


class Encoded(NamedTuple):
  """What the towers say of a batch.

  Attributes:
    outputs: what the methods read per example, and the scale.
    targets: the outputs of each target encoder, by its key.
    partial: the terms that are sums over micro-batches, by method.
    statistics: running statistics after the step; {} for towers without.
  """

  outputs: Outputs
  targets: Mapping[str, Outputs]
  partial: Mapping[str, jax.Array]
  statistics: Any


def make_forward(
  definition: Definition,
  objective: Objective,
  mesh: Mesh,
  *,
  preprocess: Preprocess = lambda keys, images: images,
  micro_batches: int = 1,
  views: int = 1,
) -> Callable[[Any, Any, Mapping[str, Any], Any, Batch], Encoded]:
  """Returns `forward(parameters, statistics, targets, memory, batch) -> Encoded`.

  Args:
    definition: the model.
    objective: says what is read.
    mesh: the mesh over which the batch is sharded.
    preprocess: (keys [B], images [B, H, H, 3]) -> the model's images [B, S, S, 3].
    micro_batches: n, parts in which the towers visit the batch. Activations of one part are kept
      at a time, for a second forward pass (gradient caching [1]).
    views: V, of each image, each preprocessed with keys of its own; the first goes with the text.

  References:
    [1] Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021.
  """
  wanted = inputs.fields(objective.reads) | {'scale'}
  of_target = inputs.fields(objective.reads, 'target')

  def view(part: Batch, number: int) -> tuple[Batch, jax.Array]:
    """A view of each example, and keys for the model."""
    keys = part['key']
    if number:
      # Folded in past the first, so that the first view is the same with and without others.
      keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number + 1)
    image_keys, model_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    if 'image' in part:
      part = part | {'image': preprocess(image_keys, part['image'])}
    return part, model_keys

  def encode(model: nnx.Module, seen: list[tuple[Batch, jax.Array]]) -> Outputs:
    """The outputs for the first view, with the embeddings of all views and texts."""
    outputs = model.encode(seen[0][0], keys=seen[0][1])
    if len(seen) > 1:
      others = [model.image_embedding(part['image'], keys=keys) for part, keys in seen[1:]]
      vectors, features = zip((outputs.image, outputs.image_features), *others, strict=True)
      outputs = outputs.replace(views=jnp.stack(vectors, 1), view_features=jnp.stack(features, 1))
    if (texts := seen[0][0].get('texts')) is not None:
      B, K, L = texts.shape
      vectors, features = (
        jnp.concatenate([first[:, None], others.reshape(B, K - 1, -1)], 1)
        for first, others in zip(
          (outputs.text, outputs.text_features),
          model.text_embedding(texts[:, 1:].reshape(-1, L)),
          strict=True,
        )
      )
      outputs = outputs.replace(texts=vectors, texts_features=features)
    return outputs

  def visit(parameters, statistics, targets, memory, part, totals) -> Encoded:
    model = definition.bind(join_statistics(parameters, statistics))
    model.set_attributes(use_running_average=False, raise_if_not_found=False)
    seen = [view(part, number) for number in range(views)]
    aims = {key: encode_target(target, statistics, seen) for key, target in targets.items()}
    seen = [(objective.transform(part, aims, memory, keys), keys) for part, keys in seen]
    outputs = encode(model, seen)
    # Losses of tokens read the first view, as the methods changed it.
    partial = objective.partial(outputs, seen[0][0], totals)
    return Encoded(
      outputs.keep(wanted - {*Outputs.TOKENS}),
      {key: aim.keep(of_target - {*Outputs.TOKENS}) for key, aim in aims.items()},
      partial,
      updated_statistics(model) if definition.statistics else {},
    )

  def encode_target(parameters, statistics, seen) -> Outputs:
    parameters = jax.lax.stop_gradient(parameters)
    model = definition.bind(join_statistics(parameters, statistics))
    model.set_attributes(use_running_average=False, raise_if_not_found=False)
    # Without keys: a target drops no patches.
    outputs = encode(model, [(part, None) for part, _ in seen])
    return jax.lax.stop_gradient(outputs)

  def forward(parameters, statistics, targets, memory, batch) -> Encoded:
    totals = objective.totals(batch)
    if micro_batches == 1:
      return visit(parameters, statistics, targets, memory, batch, totals)
    # The same keys make augmentation and dropout identical in the second forward pass.
    visit_part = jax.checkpoint(
      lambda part: visit(parameters, statistics, targets, memory, part, totals), prevent_cse=False
    )
    parts = jax.lax.map(visit_part, split_micro_batches(batch, micro_batches, mesh))
    return Encoded(
      merge_micro_batches(parts.outputs, mesh),
      merge_micro_batches(parts.targets, mesh),
      jax.tree.map(jnp.sum, parts.partial),
      # Each part normalizes by its own statistics, and moves the running ones from the same start.
      jax.tree.map(lambda moved: jnp.mean(moved, 0), parts.statistics),
    )

  return forward


def with_texts(batch: Batch) -> Batch:
  """A batch whose `tokens` and `same` are of the first text, with all K as `texts` [B, K, L]."""
  if batch.get('tokens') is None or batch['tokens'].ndim == 2:
    return batch
  tokens, same = batch['tokens'], batch['same']
  return batch | {'texts': tokens, 'tokens': tokens[:, 0], 'same': same[:, 0]}
