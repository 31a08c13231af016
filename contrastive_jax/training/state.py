"""The training state, and its placement on a mesh."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from contrastive_jax.methods import Momentum, Slot
from contrastive_jax.methods.method import fold_name
from contrastive_jax.models.definition import Definition, join_statistics, part_statistics
from contrastive_jax.sharding import rules
from contrastive_jax.sharding.mesh import BATCH_AXES, batch_shards

Heads = Mapping[str, Mapping[str, Definition]]
Memory = Mapping[str, Mapping[str, Slot]]

# Logical axes of memory that lie on the batch axes of the mesh.
_BATCH_LIKE = ('queue', 'examples')
# The key of the frozen target, `config.teacher`.
FROZEN = str(Momentum(1.0))
# Fields that later versions added.
_OPTIONAL = ('heads', 'memory', 'targets', 'teacher', 'statistics')


class TrainState(struct.PyTreeNode):
  """A pytree: all that the next step depends on, except the batch.

  Attributes:
    step: number of updates made or skipped.
    parameters: the model's, a nested dict of float32 arrays.
    optimizer_state: optax's, of parameters and heads together.
    key: the run's random key data; a step folds its number in.
    average_norm: a moving average of the gradient's norm over the good steps; 0 before the first.
    average: an exponential moving average of the parameters and heads, or None.
    heads: parameters of the methods' heads, by method and name; None without heads. They are
      trained with the model, for training alone.
    memory: arrays of the methods, by method and name; None without memory.
    targets: parameters and heads of target encoders, by their momentum; None without targets.
    teacher: parameters of the teacher, which never change; None without one.
    statistics: running statistics of the model's layers, a nested dict; None without any.
    evaluated_target: key of the target that is evaluated; '' for the average or the parameters.
  """

  step: jax.Array
  parameters: Any
  optimizer_state: optax.OptState
  key: jax.Array
  average_norm: jax.Array
  average: Any = None
  heads: Any = None
  memory: Any = None
  targets: Any = None
  teacher: Any = None
  statistics: Any = None
  evaluated_target: str = struct.field(pytree_node=False, default='')

  @property
  def items(self) -> dict[str, Any]:
    """The fields by name, as checkpoints keep them: optional ones that are None are left out.

    Checkpoints of versions without these fields have the same form.
    """
    absent = {name for name in _OPTIONAL if getattr(self, name) is None} | {'evaluated_target'}
    return {name: value for name, value in vars(self).items() if name not in absent}

  @property
  def trained(self):
    """What the optimizer trains: the parameters, and the heads under 'heads'."""
    return self.parameters if self.heads is None else self.parameters | {'heads': self.heads}

  def with_trained(self, trained) -> 'TrainState':
    """The state with other parameters and heads."""
    parameters, heads = part_heads(trained)
    return self.replace(parameters=parameters, heads=heads)

  @property
  def evaluated(self):
    """The parameters to evaluate: a target, the average where one is kept, or the model's own."""
    trained = self.parameters if self.average is None else self.average
    if self.evaluated_target:
      trained = self.targets[self.evaluated_target]
    return join_statistics(part_heads(trained)[0], self.statistics)


def part_heads(trained) -> tuple[Any, Any]:
  """Parts what the optimizer trains into (parameters, heads); None without heads."""
  heads = trained.get('heads')
  return (trained if heads is None else {k: v for k, v in trained.items() if k != 'heads'}), heads


def with_heads(definition: Definition, heads: Heads) -> Definition:
  """The definition whose parameters include the heads' under 'heads'; `bind` ignores these."""
  if not heads:
    return definition

  def init(key):
    own = {
      method: {
        name: _traced_once(head.init)(fold_name(key, f'{method}/{name}'))
        for name, head in by_name.items()
      }
      for method, by_name in heads.items()
    }
    return _traced_once(definition.init)(key) | {'heads': own}

  axes = {
    method: {name: head.axes for name, head in by_name.items()} for method, by_name in heads.items()
  }
  return definition._replace(
    init=init,
    bind=lambda tree: definition.bind(part_heads(tree)[0]),
    axes=definition.axes | {'heads': axes},
  )


def _traced_once(init):
  """The function for use in a jit, where it shares the trace of `Definition.shapes`."""
  return jax.jit(init, inline=True)


def bind_heads(heads: Heads | None, parameters) -> dict[str, dict[str, nnx.Module]]:
  """The heads' modules with their parameters, by method and name."""
  return {
    method: {name: head.bind(parameters[method][name]) for name, head in by_name.items()}
    for method, by_name in (heads or {}).items()
  }


def plan_state(
  definition: Definition,
  optimizer: optax.GradientTransformation,
  mesh: Mesh,
  sharding_rules: dict[str, str | None],
  *,
  averaged: bool = False,
  memory: Memory | None = None,
  targets: Collection[str] = (),
  teacher: Definition | None = None,
  evaluated_target: str = '',
) -> tuple[Callable[[int], TrainState], TrainState]:
  """Plans a state without making one.

  Args:
    definition: the model, with the methods' heads, see `with_heads`.
    optimizer: an optax transformation.
    mesh: the mesh.
    sharding_rules: mesh axis by logical axis; see `rules.parameter_shardings`.
    averaged: keep a moving average of the parameters.
    memory: slots by method and name.
    targets: keys of the target encoders.
    teacher: the teacher; None without one.
    evaluated_target: see `TrainState`.

  Returns:
    (create, abstract): the jitted function from a seed to the initial state, each array made in
    place so that no device ever holds it whole; and the tree of `ShapeDtypeStruct`s with shardings,
    where optimizer state, average and targets follow the parameters.

  Raises:
    ValueError: if a rule does not fit.
  """
  memory = memory or {}

  def create(seed):
    key = jax.random.key(seed)
    trained, statistics = definition.part(_traced_once(definition.init)(key))
    parameters, heads = part_heads(trained)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      parameters=parameters,
      optimizer_state=optimizer.init(trained),
      key=jax.random.key_data(jax.random.fold_in(key, 1)),
      average_norm=jnp.zeros(()),
      # Copies: donated buffers may not be shared.
      average=jax.tree.map(jnp.copy, trained) if averaged else None,
      heads=heads,
      memory=_first_memory(memory, key) or None,
      targets={name: jax.tree.map(jnp.copy, trained) for name in targets} or None,
      teacher=teacher and _traced_once(teacher.init)(fold_name(key, 'teacher')),
      statistics=statistics or None,
      evaluated_target=evaluated_target,
    )

  shapes = jax.eval_shape(create, 0)
  trained_axes = definition.part(definition.axes)[0]
  placed = rules.parameter_shardings(trained_axes, shapes.trained, sharding_rules, mesh)
  shardings = _shardings(shapes, placed, optimizer, memory, mesh)
  if teacher is not None:
    own = rules.parameter_shardings(teacher.axes, shapes.teacher, sharding_rules, mesh)
    shardings = shardings.replace(teacher=own)
  return jax.jit(create, out_shardings=shardings), rules.place(shapes, shardings)


def _shardings(
  shapes: TrainState, placed, optimizer: optax.GradientTransformation, memory: Memory, mesh: Mesh
) -> TrainState:
  """The placement of a state, given that of what is trained."""
  parameters, heads = part_heads(placed)
  replicated = NamedSharding(mesh, PartitionSpec())

  def place(leaf, sharding, parameter):
    if _is_masked(leaf):
      return leaf
    # Adafactor's factored moments are replicated: they are small.
    return sharding if leaf.shape == parameter.shape else replicated

  optimizer_state = optax.tree.map_params(
    optimizer,
    place,
    shapes.optimizer_state,
    placed,
    shapes.trained,
    transform_non_params=lambda _: replicated,
    is_leaf=_is_masked,
  )
  return shapes.replace(
    step=replicated,
    parameters=parameters,
    optimizer_state=optimizer_state,
    key=replicated,
    average_norm=replicated,
    average=placed if shapes.average is not None else None,
    heads=heads,
    memory=jax.tree.map(lambda slot: _place_memory(slot, mesh), memory, is_leaf=_is_slot) or None,
    targets=shapes.targets and dict.fromkeys(shapes.targets, placed),
    statistics=jax.tree.map(lambda _: replicated, shapes.statistics),
  )


def start_from(
  state: TrainState, parameters: Any = None, target: Any = None, teacher: Any = None
) -> TrainState:
  """A new state with other parameters of the model, each placed as the one that it replaces.

  Args:
    state: a new state.
    parameters: of the model, or of some of its parts, by their keys; average and targets start from
      them too. None for the state's own.
    target: parameters of the frozen target; None without one.
    teacher: parameters of the teacher; None for the state's own.
  """
  if parameters is not None:
    parameters, statistics = _place_like(state, parameters)
    state = state.replace(parameters=parameters, statistics=statistics or None)
    if state.average is not None:
      state = state.replace(average=_copy(state.trained))
    if state.targets is not None:
      state = state.replace(targets={key: _copy(state.trained) for key in state.targets})
  if target is not None:
    frozen = state.targets[FROZEN] | _place_like(state, target)[0]
    state = state.replace(targets=state.targets | {FROZEN: frozen})
  if teacher is not None:
    state = state.replace(teacher=_placed(teacher, state.teacher))
  return state


def _place_like(state: TrainState, parameters: Any) -> tuple[Any, Any]:
  """Copies of a model's parameters and running statistics, placed as those of a state."""
  whole = join_statistics(state.parameters, state.statistics)
  paths = nnx.traversals.flatten_mapping(state.statistics or {})
  return part_statistics(_placed({**whole, **parameters}, whole), paths)


def _placed(tree: Any, like: Any) -> Any:
  """A copy of a tree, since donated buffers may not be shared, placed as another."""
  return _copy(jax.tree.map(lambda new, old: jax.device_put(new, old.sharding), tree, like))


def _copy(tree):
  return jax.tree.map(jnp.copy, tree)


def _first_memory(memory: Memory, key: jax.Array) -> dict[str, dict[str, jax.Array]]:
  def first(path, slot):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if slot.init is None:
      return jnp.zeros(slot.shape, slot.dtype)
    return slot.init(fold_name(key, name)).astype(slot.dtype)

  return jax.tree_util.tree_map_with_path(first, dict(memory), is_leaf=_is_slot)


def _place_memory(slot: Slot, mesh: Mesh) -> NamedSharding:
  """A slot's placement; a dimension that the mesh does not divide is copied to all devices."""
  axes = slot.axes or (None,) * len(slot.shape)
  spec = [
    BATCH_AXES if axis in _BATCH_LIKE and size % batch_shards(mesh) == 0 else None
    for axis, size in zip(axes, slot.shape, strict=True)
  ]
  return NamedSharding(mesh, PartitionSpec(*spec))


def _is_slot(node) -> bool:
  return isinstance(node, Slot)


def _is_masked(node) -> bool:
  """Where the optimizer keeps nothing of a frozen parameter."""
  return isinstance(node, optax.MaskedNode)
