"""The objective is data: a weighted sum of methods by name."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from contrastive_jax.losses import pairwise
from contrastive_jax.methods import inputs
from contrastive_jax.methods.method import Arrays, Momentum, Result, Sizes, Slot, fold_name
from contrastive_jax.methods.registry import METHODS
from contrastive_jax.models.definition import Definition
from contrastive_jax.models.outputs import Outputs


class Objective:
  """A weighted sum of methods.

  Attributes:
    methods: the terms by name.
    reads: the names that they read, see `methods.inputs`.
    reads_teacher: whether a method reads a teacher.
    targets: the momentum of each target encoder, by its key.
  """

  def __init__(
    self,
    weights: Mapping[str, float | Mapping[str, Any]],
    mesh: Mesh | None = None,
    *,
    gather_bytes: int | None = None,
    **options,
  ):
    """Makes the methods and checks names and options.

    Args:
      weights: the weight of each method by its name in `METHODS`; or its `weight` and options, as
        in {'weight': 1.0, 'scale': 10.0}. An option of None stands for the method's default. A
        weight may be a schedule: ((step, weight), ...), linear between the steps.
      mesh: the mesh over which the batch is sharded; None for one device.
      gather_bytes: see `pairwise.Ring`, whose default is that of None.
      **options: further options of all methods, such as `block_size` or `kernel='pallas'`.

    Raises:
      ValueError: if a name or an option is unknown, or a weight is missing.
    """
    if not weights:
      raise ValueError(f'config.objective is empty; weigh some of {sorted(METHODS)}')
    ring = mesh if gather_bytes is None or mesh is None else pairwise.Ring(mesh, gather_bytes)
    self._weights, self.methods = {}, {}
    for name, given in weights.items():
      self._weights[name], own = _split(name, given)
      try:
        self.methods[name] = METHODS[name](mesh=ring, **(_accepted(name, options) | own))
      except (TypeError, ValueError) as error:
        raise ValueError(f'config.objective.{name}: {error}') from error
    self.reads = sorted({read for method in self.methods.values() for read in method.reads})
    self.reads_teacher = any(inputs.parse(read)[0] == 'teacher' for read in self.reads)
    targets = (method.target for method in self.methods.values())
    self.targets: dict[str, Momentum] = {str(target): target for target in targets if target}

  def check(
    self,
    outputs: Outputs,
    batch: Mapping[str, Any],
    views: int = 1,
    texts: int = 1,
    negatives: int = 0,
    teacher: Outputs | None = None,
  ) -> None:
    """Checks that the model and the batch give what the methods read.

    Args:
      outputs: the model's, as arrays or shapes.
      batch: the batch, as arrays or shapes.
      views: `config.views`.
      texts: `config.texts`.
      negatives: `config.data.negatives`.
      teacher: the teacher's, likewise; None without one.

    Raises:
      ValueError: names the method, what it needs, and what would work.
    """
    given = {'step': 0, 'progress': 0.0, 'boxes': 0.0, **batch}
    for name, method in self.methods.items():
      asked = inputs.count(method.reads, 'views', 'view_features', 'boxes', *inputs.ONE_VIEW)
      if asked > views:
        raise ValueError(
          f'config.objective.{name} compares {asked} views of an image, and config.views = '
          f'{views}; use {asked}'
        )
      if (asked := inputs.count(method.reads, 'text', 'texts', 'texts_features')) > texts:
        raise ValueError(
          f'config.objective.{name} reads {asked} texts of an example, and config.texts = {texts}; '
          f'use {asked}'
        )
      voices = None if outputs.audio is None else outputs.audio.shape[1]
      if voices and (asked := inputs.count(method.reads, 'audio')) > voices:
        raise ValueError(
          f'config.objective.{name} reads {asked} sounds of an example, and config.data.voices = '
          f'{voices}; use {asked}'
        )
      if (asked := inputs.count(method.reads, 'negatives')) > negatives:
        raise ValueError(
          f'config.objective.{name} reads wrong captions of an example, at least {asked}, and '
          f'config.data.negatives = {negatives}; use {asked} or more'
        )
      needed = [read for read in method.reads if not read.endswith('?')]
      find = functools.partial(inputs.gather, needed)
      found = jax.eval_shape(find, outputs, given, target=outputs, teacher=teacher)
      for read in needed:
        value = found.get(read.partition(':')[0])
        if isinstance(value, tuple) and not method.several_teachers:
          raise ValueError(
            f'config.objective.{name} reads {read!r} of one teacher, and config.teacher is a table '
            f'of {len(value)}; give a table of one'
          )
        if value is None:
          raise ValueError(f'config.objective.{name} needs {read!r}, which {_giver(read, given)}')

  def heads(self, sizes: Sizes) -> dict[str, dict[str, Definition]]:
    """The definitions of the heads, by method and by name; methods without heads are left out."""
    heads = {name: dict(method.heads(sizes)) for name, method in self.methods.items()}
    return {name: own for name, own in heads.items() if own}

  def memory(self, sizes: Sizes) -> dict[str, dict[str, Slot]]:
    """The arrays of memory, by method and by name; methods without memory are left out."""
    memory = {name: dict(method.memory(sizes)) for name, method in self.methods.items()}
    return {name: own for name, own in memory.items() if own}

  def transform(
    self,
    view: int,
    part: Mapping[str, jax.Array],
    targets: Mapping[str, Outputs],
    memory: Mapping[str, Arrays],
    keys: jax.Array,
  ) -> Mapping[str, jax.Array]:
    """A view of a micro-batch as the methods change it before the towers.

    Args:
      view: its number, from 0.
      part: the view, preprocessed.
      targets: outputs of the target encoders for all views, by key.
      memory: arrays by method and name.
      keys: [B] a key per example.
    """
    for name, method in self.methods.items():
      own = jax.vmap(functools.partial(fold_name, name=name))(keys)
      target = method.target and targets[str(method.target)]
      part = method.transform(view, part, target, memory.get(name, {}), own)
    return part

  def totals(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """What each sum over micro-batches is divided by, such as the number of tokens."""
    totals = {
      name: method.total(inputs.gather(method.reads, Outputs(), batch))
      for name, method in self.methods.items()
    }
    return {name: total for name, total in totals.items() if total is not None}

  def partial(
    self,
    outputs: Outputs,
    part: Mapping[str, jax.Array],
    totals: Mapping[str, jax.Array],
    **state,
  ) -> dict[str, Result]:
    """The terms that are sums over micro-batches, of one of them.

    Args:
      outputs: the model's outputs for the micro-batch, values per token included.
      part: the micro-batch, with what `transform` added to its views.
      totals: from `totals` of the whole batch.
      **state: `targets`, of the micro-batch, `heads`, `target_heads` and `memory`, see `__call__`.
    """
    results = {}
    for name, method in self.methods.items():
      given, *own = self._given(name, outputs, part, **state)
      if (result := method.partial(given, totals.get(name), *own)) is not None:
        # Plain dicts are pytrees.
        results[name] = Result(result.loss, dict(result.writes), dict(result.metrics))
    return results

  def _given(
    self,
    name: str,
    outputs,
    batch,
    *,
    targets=None,
    teacher=None,
    heads=None,
    target_heads=None,
    memory=None,
  ) -> tuple[dict[str, Any], dict[str, Any], Arrays]:
    """What a method reads, its heads with those of its target, and its memory."""
    method, target = self.methods[name], None
    modules = dict((heads or {}).get(name, {}))
    if method.target is not None:
      key = str(method.target)
      target = (targets or {}).get(key)
      own = (target_heads or {}).get(key, {}).get(name, {})
      modules |= {f'target.{head}': module for head, module in own.items()}
    found = inputs.gather(method.reads, outputs, batch, target=target, teacher=teacher)
    return found, modules, (memory or {}).get(name, {})

  def __call__(
    self,
    outputs: Outputs,
    batch: Mapping[str, jax.Array],
    *,
    partial: Mapping[str, Result] | None = None,
    targets: Mapping[str, Outputs] | None = None,
    teacher: Outputs | None = None,
    heads: Mapping[str, Mapping[str, Any]] | None = None,
    target_heads: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    memory: Mapping[str, Arrays] | None = None,
    key: jax.Array | None = None,
  ) -> tuple[jax.Array, dict[str, Arrays], dict[str, jax.Array]]:
    """The loss of the whole batch.

    Args:
      outputs: of the whole batch.
      batch: the whole batch.
      partial: terms that are sums over micro-batches, added up; None to make them of `outputs`.
      targets: outputs of the target encoders, by key.
      teacher: outputs of the teacher; None without one.
      heads: modules by method and name.
      target_heads: the same per target.
      memory: arrays by method and name.
      key: for methods that draw.

    Returns:
      (loss, writes, metrics): a scalar; what `update` takes; the loss, and where there are several
      methods each one's, unweighted.
    """
    state: dict[str, Any] = {'targets': targets, 'heads': heads, 'memory': memory}
    state |= {'target_heads': target_heads, 'teacher': teacher}
    if partial is None:
      partial = self.partial(outputs, batch, self.totals(batch), **state)
    terms, writes = {}, {}
    metrics: dict[str, jax.Array] = {}
    for name, method in self.methods.items():
      if (result := partial.get(name)) is None:
        own = None if key is None else fold_name(key, name)
        result = method.loss(*self._given(name, outputs, batch, **state), own)
      assert result is not None, f'{name}: loss and partial are both None'
      terms[name], writes[name] = result.loss, result.writes
      metrics |= {f'{name}/{metric}': value for metric, value in result.metrics.items()}
    step = batch.get('step')
    loss = sum(_weight(weight, step) * terms[name] for name, weight in self._weights.items())
    return loss, writes, {'loss': loss} | ({} if len(terms) == 1 else terms) | metrics

  def update(
    self, memory: Mapping[str, Arrays], writes: Mapping[str, Arrays], heads, step: jax.Array
  ) -> dict[str, Arrays]:
    """The memory after a step, without gradients."""
    writes = jax.lax.stop_gradient({name: dict(own) for name, own in writes.items()})
    return {
      name: self.methods[name].update(own, writes[name], heads.get(name, {}), step)
      for name, own in memory.items()
    }

  def flops(self, sizes: Sizes) -> float:
    """Floating point operations of a step outside of the towers."""
    return sum(method.flops(sizes) for method in self.methods.values())


def _weight(weight: Any, step: Any) -> Any:
  if not isinstance(weight, tuple | list):
    return weight
  steps, weights = zip(*weight, strict=True)
  return jnp.interp(step, jnp.array(steps, float), jnp.array(weights, float))


def _options(name: str) -> set[str]:
  """The options of a method: its arguments by keyword."""
  parameters = inspect.signature(METHODS[name]).parameters.values()
  return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {'mesh', 'count', 'step'}


def _accepted(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
  return {option: value for option, value in options.items() if option in _options(name)}


def _giver(read: str, batch: Mapping[str, Any]) -> str:
  encoder, name, _ = inputs.parse(read)
  if encoder == 'teacher':
    return 'the teacher, config.teacher, does not give'
  if name == 'second':
    return 'the model does not give; a model of images alone gives it with config.views = 2'
  if name == 'labels':
    return 'the batch does not give; set config.data.labels to the field with the class'
  if name == 'number':
    return 'the batch does not give; set config.data.number to the field with the number'
  if name == 'audio':
    return "the model does not give; config.model.name = 'audio_clip' does"
  if name == 'patch_errors':
    return "the model does not give; config.model.name = 'masked_autoencoder' does"
  if name == 'predicted_errors':
    return 'the model does not give; a masked autoencoder with config.model.loss_predictor does'
  return f'the {"batch" if name in inputs.BATCH else "model"} does not give'


def _split(name: str, given: float | Mapping) -> tuple[Any, dict[str, Any]]:
  """The weight of a method, and its own options."""
  if name not in METHODS:
    raise ValueError(f'config.objective.{name} is unknown; use some of {sorted(METHODS)}')
  if not isinstance(given, Mapping):
    return given, {}
  if 'weight' not in given:
    raise ValueError(f'config.objective.{name} = {dict(given)} has no weight; give it one')
  known = _options(name)
  for option in given:
    if option not in known | {'weight'}:
      raise ValueError(
        f'config.objective.{name}.{option} is unknown; use weight and some of {sorted(known)}'
      )
  return given['weight'], {option: value for option, value in given.items() if option != 'weight'}
