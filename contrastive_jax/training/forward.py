"""The forward pass of a step: views and texts of each micro-batch through the towers."""

import dataclasses
import functools
import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from contrastive_jax.methods import Objective, Result, inputs
from contrastive_jax.models.definition import (
  Definition,
  join_statistics,
  set_training,
  updated_statistics,
)
from contrastive_jax.models.dropout import fold
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.sharding.mesh import merge_micro_batches, split_micro_batches
from contrastive_jax.training.views import Preprocess

Batch = Mapping[str, jax.Array]


class Encoded(NamedTuple):
  """What the towers say of a batch.

  Attributes:
    outputs: what the methods read per example, and the scale.
    targets: the outputs of each target encoder, by its key.
    teacher: the outputs of the teacher; None without one.
    partial: the results of methods that are sums over micro-batches, by method.
    statistics: running statistics after the step; {} for towers without.
  """

  outputs: Outputs
  targets: Mapping[str, Outputs]
  teacher: Outputs | None
  partial: Mapping[str, Result]
  statistics: Any


@dataclasses.dataclass(frozen=True)
class Forward:
  """The towers' forward pass over a batch, in micro-batches.

  Attributes:
    definition: the model.
    objective: says what is read.
    mesh: the mesh over which the batch is sharded.
    preprocess: (keys [B], images [B, H, H, 3]) -> the model's images [B, S, S, 3].
    micro_batches: n, parts in which the towers visit the batch. Activations of one part are kept
      at a time, for a second forward pass (gradient caching [1]).
    views: V, of each image, each preprocessed with keys of its own; the first goes with the text.
    view_preprocess: `preprocess` of the views after the first; () for the same.
    teach: (its parameters, micro-batch) -> the outputs of the teacher; None without one.
    locators: (keys [B] of `preprocess`) -> the boxes [B, 4] of a view in the images, per view; ()
      where no method reads 'boxes'.

  References:
    [1] Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021.
  """

  definition: Definition
  objective: Objective
  mesh: Mesh
  _: dataclasses.KW_ONLY
  preprocess: Preprocess = lambda keys, images: images
  micro_batches: int = 1
  views: int = 1
  view_preprocess: Sequence[Preprocess] = ()
  teach: Callable[[Any, Batch], Outputs] | None = None
  locators: Sequence[Callable[[jax.Array], jax.Array]] = ()

  def __call__(
    self, parameters, statistics, targets, memory, batch: Batch, teacher=None, **heads: Any
  ) -> Encoded:
    """Encodes a batch.

    Args:
      parameters: the model's.
      statistics: its running statistics.
      targets: parameters of the target encoders, by key.
      memory: the methods' arrays, for `Method.transform` and `Method.partial`.
      batch: the whole batch, with a `key` per example.
      teacher: parameters of the teacher; None without one.
      **heads: `heads` and `target_heads` of the methods, for `Method.partial`.
    """
    totals = self.objective.totals(batch)
    state = heads | {'memory': memory}
    visit: Callable[[Batch], Encoded] = functools.partial(
      self._visit, parameters, statistics, targets, teacher, totals, state
    )
    if self.micro_batches == 1:
      return visit(batch)
    # The same keys make augmentation and dropout identical in the second forward pass.
    visit = jax.checkpoint(visit, prevent_cse=False)
    parts = jax.lax.map(visit, split_micro_batches(batch, self.micro_batches, self.mesh))
    return Encoded(
      merge_micro_batches(parts.outputs, self.mesh),
      merge_micro_batches(parts.targets, self.mesh),
      merge_micro_batches(parts.teacher, self.mesh),
      jax.tree.map(lambda terms: jnp.sum(terms, 0), parts.partial),
      jax.tree_util.tree_map_with_path(self._merge_statistics, parts.statistics),
    )

  def _merge_statistics(self, path, moved: jax.Array) -> jax.Array:
    """The mean over the parts, each of which moved a running statistic from the same start."""
    is_frozen = tuple(part.key for part in path) in self.definition.frozen_statistics
    return moved[0] if is_frozen else jnp.mean(moved, 0)

  def _visit(self, parameters, statistics, targets, teacher, totals, state, part) -> Encoded:
    """Encodes a micro-batch."""
    objective = self.objective
    further = self.view_preprocess or [self.preprocess] * (self.views - 1)
    seen = [view(part, n, change) for n, change in enumerate([self.preprocess, *further])]
    if self.locators:
      found = [locate(split_keys(part, n)[0]) for n, locate in enumerate(self.locators)]
      boxes = {'boxes': jnp.stack(found, 1)}
      seen = [({**each, **boxes}, keys) for each, keys in seen]
    aims = {}
    for key, target in targets.items():
      # Without keys: a target drops no patches.
      views = [(each, None) for each, _ in seen]
      outputs, _ = self._encode(jax.lax.stop_gradient(target), statistics, views, 'target')
      aims[key] = jax.lax.stop_gradient(outputs)
    # The teacher sees what the student sees, before the methods change it.
    taught = self.teach and self.teach(teacher, part)
    of_teacher = inputs.fields(objective.reads, 'teacher') - {*Outputs.TOKENS}
    seen = [
      (objective.transform(number, each, aims, state['memory'], keys), keys)
      for number, (each, keys) in enumerate(seen)
    ]
    outputs, statistics = self._encode(parameters, statistics, seen)
    wanted = (inputs.fields(objective.reads) | {'scale'}) - {*Outputs.TOKENS}
    of_target = inputs.fields(objective.reads, 'target') - {*Outputs.TOKENS}
    return Encoded(
      outputs.keep(wanted),
      {key: aim.keep(of_target) for key, aim in aims.items()},
      jax.lax.stop_gradient(taught and taught.keep(of_teacher)),
      # Losses of tokens read the first view, as the methods changed it, and masks of the others.
      objective.partial(outputs, merge_views(seen), totals, targets=aims, **state),
      statistics,
    )

  def _encode(self, parameters, statistics, seen, encoder='') -> tuple[Outputs, Any]:
    """The outputs for the first view with all views and texts, and the running statistics."""
    model = self.definition.bind(join_statistics(parameters, statistics))
    set_training(model, self.definition.frozen_statistics)
    paired = 'tokens' in self.definition.inputs
    read = inputs.views_read(self.objective.reads, encoder, self.views, paired)
    outputs = encode(model, seen, read)
    return outputs, updated_statistics(model) if self.definition.statistics else {}


def view(part: Batch, number: int, preprocess: Preprocess) -> tuple[Batch, jax.Array]:
  """A view of each example, and keys for the model.

  Args:
    part: images and a `key` per example; with a `seed` per example, that of the first view.
    number: of the view, from 0.
    preprocess: see `Forward`.
  """
  keys, model_keys = split_keys(part, number)
  if 'image' in part:
    part = {**part, 'image': preprocess(keys, part['image'])}
  return part, model_keys


def split_keys(part: Batch, number: int) -> tuple[jax.Array, jax.Array]:
  """The keys of a view of each example: those of its augmentation, and those for the model.

  Args:
    part: see `view`.
    number: likewise.
  """
  keys = part['key']
  if number:
    # Folded in past the first, so that the first view is the same with and without others.
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, number + 1)
  image_keys, model_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
  if 'seed' in part and not number:
    image_keys = jax.vmap(jax.random.key)(part['seed'])
  return image_keys, model_keys


def encode(model, seen: Sequence[tuple[Batch, jax.Array | None]], read: Collection[int]) -> Outputs:
  """A model's outputs for the first view, with all views, texts and negatives.

  Args:
    model: the model.
    seen: each view and the keys of it, see `view`; None for keys that drop nothing.
    read: numbers of the views that are encoded; zeros stand for the others.
  """
  (first, keys), *rest = seen
  outputs = model.encode(first, keys=keys)
  if rest:
    encoded = [(outputs.image, outputs.image_features, outputs.image_tokens)]
    encoded += [model.image_embedding(each['image'], keys=keys) for each, keys in rest]
    # Zeros in place of views that nothing reads, so that these are not computed.
    nothing = jax.tree.map(jnp.zeros_like, encoded[0])
    parts = zip(*[x if n in read else nothing for n, x in enumerate(encoded)], strict=True)
    vectors, features, tokens = (jnp.stack(views, 1) for views in parts)
    outputs = outputs.replace(views=vectors, view_features=features, view_tokens=tokens)
  return _encode_texts(model, outputs, first, keys)


def _encode_texts(model, outputs: Outputs, part: Batch, keys) -> Outputs:
  """The outputs with those of the texts after the first, and of the negatives."""
  further = [part['texts'][:, 1:]] if 'texts' in part else []
  further += [part['negative_tokens']] if 'negative_tokens' in part else []
  if not further:
    return outputs
  tokens = jnp.concatenate(further, 1)
  B, count, L = tokens.shape
  if keys is not None:
    keys = jnp.stack([fold(keys, number + 1) for number in range(count)], 1).reshape(-1)
  encoded = model.text_embedding(tokens.reshape(-1, L), keys=keys)
  encoded = [array.reshape(B, count, -1) for array in encoded]
  others = further[0].shape[1] if 'texts' in part else 0
  if others:
    first: Any = outputs.text, outputs.text_features
    vectors, features = (
      jnp.concatenate([own[:, None], more[:, :others]], 1)
      for own, more in zip(first, encoded, strict=True)
    )
    outputs = outputs.replace(texts=vectors, texts_features=features)
  return outputs.replace(negatives=encoded[0][:, others:]) if others < count else outputs


def merge_views(views: Sequence[tuple[Batch, jax.Array]]) -> Batch:
  """The first of some views, each with its keys, with the arrays that only others have."""
  return functools.reduce(operator.or_, [{**view} for view, _ in reversed(views)])


def with_texts(batch: Batch) -> Batch:
  """A batch whose `tokens` and `same` are of the first text.

  All K texts are its `texts` [B, K, L] and `texts_same` [B, K].
  """
  if batch.get('tokens') is None or batch['tokens'].ndim == 2:
    return batch
  first = {name: batch[name][:, 0] for name in ('tokens', 'same')}
  return {**batch, **first, 'texts': batch['tokens'], 'texts_same': batch['same']}
