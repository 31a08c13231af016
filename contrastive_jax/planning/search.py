"""Searches the fastest setting of a config that fits a topology.

The settings are products of rematerialization, attention, micro-batches and mesh. Those whose state
and activations alone exceed the memory are left out. The others are compiled in the order of their
recomputation, until the time is over.
"""

import itertools
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from contrastive_jax.models.transformer import REMATS
from contrastive_jax.planning import costs
from contrastive_jax.planning.estimate import estimate
from contrastive_jax.planning.hlo import Program
from contrastive_jax.planning.topology import Topology
from contrastive_jax.sharding.mesh import batch_shards
from contrastive_jax.training import build
from contrastive_jax.training.batch import batch_shapes

_FIELDS = ('model.remat', 'model.attention', 'micro_batches', 'mesh')
# FLOPs that are computed again, to those of the model: by rematerialization, and by gradient
# caching, which repeats the forward pass. They order the settings; compiled ones are counted.
_RECOMPUTED = {'none': 0.0, 'dots': 0.05, 'full': 0.33, 'pairs': 0.33}
_FORWARD = 0.33
_MAX_FSDP = 16


class Setting(NamedTuple):
  """Values of the searched fields."""

  remat: str
  attention: str
  micro_batches: int
  mesh: str

  @property
  def recomputed(self) -> float:
    """FLOPs that are computed again, to those of the model."""
    return _RECOMPUTED[self.remat] + _FORWARD * (self.micro_batches > 1)

  def repeats(self, other: 'Setting') -> bool:
    """Whether it differs from another setting by recomputing more, and cannot be faster."""
    same = (self.attention, self.mesh) == (other.attention, other.mesh)
    more = _RECOMPUTED[self.remat] >= _RECOMPUTED[other.remat]
    return same and more and self.micro_batches >= other.micro_batches


def search(
  config: ConfigDict, topology: Topology, given: dict[str, Any], until: float
) -> Iterator[dict[str, Any]]:
  """Compiles settings that could be faster than the config's or, if that does not fit, could fit.

  Args:
    config: the config.
    topology: the topology.
    given: the plan of the config, with `fits` and `flops`.
    until: value of `time.perf_counter` after which nothing is compiled.

  Yields:
    Of each setting `flags`, and `fits`, None where the time was over before. Of compiled ones also
    `needed_bytes`, `available_bytes` and, if they fit a chip, the `estimate`.
  """
  own = _setting(config)
  fitting = [own] if given['fits'] else []
  for setting in sorted(_settings(config, topology), key=lambda one: _order(one, own)):
    if any(setting.repeats(other) for other in fitting):
      continue
    if fitting and topology.chip is None:
      return  # nothing says which is faster
    flags = [
      f'--config.{field}={value}'
      for field, value, before in zip(_FIELDS, setting, own, strict=True)
      if value != before
    ]
    found = {'flags': flags, 'fits': None}
    if time.perf_counter() < until:
      found |= _compile(_with(config, setting), topology, given['flops']['analytic'])
    if found['fits']:
      fitting.append(setting)
    yield found


def fastest(given: dict[str, Any], settings: list[dict[str, Any]]) -> dict[str, Any] | None:
  """Returns the fitting setting with the shortest step; None if that is the given one, or none."""
  fitting = [one for one in (given, *settings) if one['fits']]
  found = min(fitting, key=_seconds, default=given)
  return None if found is given else found


def _seconds(found) -> float:
  return found['estimate']['step_seconds_in_turn'] if 'estimate' in found else 0.0


def _order(setting: Setting, own: Setting):
  return setting.recomputed, setting.micro_batches, setting.mesh != own.mesh, setting.attention


def _setting(config: ConfigDict) -> Setting:
  return Setting(config.model.remat, config.model.attention, config.micro_batches, config.mesh)


def _with(config: ConfigDict, setting: Setting) -> ConfigDict:
  changed = ConfigDict(config.to_dict())
  changed.update_from_flattened_dict(dict(zip(_FIELDS, setting, strict=True)))
  return changed


def _settings(config: ConfigDict, topology: Topology) -> Iterator[Setting]:
  """Yields the settings whose state and activations fit, without that of the config."""
  own, shapes = _setting(config), batch_shapes(config).shapes
  runs = {config.mesh: build.build(config, topology.devices)} | _fsdp(config, topology)
  attentions = {own.attention}
  if own.attention == 'auto' and topology.chip is not None and topology.chip.torus:
    attentions.add('splash')
  for remat, attention in itertools.product(REMATS, sorted(attentions)):
    changed = _with(config, own._replace(remat=remat, attention=attention))
    per_example = costs.residual_bytes(build.build(changed, topology.devices))
    for mesh, run in runs.items():
      shards = batch_shards(run.mesh)
      per_device = config.batch_size // shards
      for parts in (1 << power for power in range(per_device.bit_length())):
        setting = Setting(remat, attention, parts, mesh)
        size = costs.state_bytes(run) + per_example * per_device / parts
        divides = not any(shape.batch_size % (shards * parts) for shape in shapes)
        if setting != own and divides and size <= topology.memory:
          yield setting


def _fsdp(config: ConfigDict, topology: Topology) -> dict[str, build.Run]:
  """Returns a run with sharded parameters by its mesh; none where the config has one."""
  devices, size = len(topology.devices), _MAX_FSDP
  while 'fsdp' not in config.mesh and size > 1:
    mesh = f'data:{devices // size},fsdp:{size}'
    try:
      return {
        mesh: build.build(_with(config, _setting(config)._replace(mesh=mesh)), topology.devices)
      }
    except ValueError:
      size //= 2  # it does not divide the devices or a parameter
  return {}


def _compile(config: ConfigDict, topology: Topology, analytic: dict[str, float]) -> dict[str, Any]:
  """Compiles a setting, and returns what `search` yields of it."""
  built = build.build(config, topology.devices)
  program, needed, limit = costs.compile_step(built)
  available = topology.memory if limit is None else limit
  fits = program is not None and needed <= available
  found: dict[str, Any] = {
    'fits': fits,
    'needed_bytes': needed,
    'available_bytes': available,
  }
  if fits and topology.chip is not None:
    step, hlo = costs.step_flops(built), Program(program.as_text())
    counted = {'analytic': analytic, 'traced': step.total, 'traced_float32': step.exact}
    found['estimate'] = estimate(counted, hlo.collectives(), hlo.moved_bytes(), topology)
  return found
