"""Restores the parameters of a run to evaluate, export or load, and nothing that trained them."""

import pathlib
from typing import Any, NamedTuple

import orbax.checkpoint as ocp
from absl import logging
from ml_collections import ConfigDict

from contrastive_jax.models.definition import join_statistics
from contrastive_jax.sharding import rules
from contrastive_jax.training.checkpoint import fingerprint, read_newest, read_part
from contrastive_jax.training.opening import OpenModel, open_model
from contrastive_jax.training.workdir import finished_steps


class Restored(NamedTuple):
  """The parameters of a checkpoint.

  Attributes:
    parameters: a nested dict of arrays.
    step: the number of updates that they had.
  """

  parameters: Any
  step: int


def open_run(config: ConfigDict, workdir: pathlib.Path, devices: list | None = None) -> OpenModel:
  """Opens the model of a run that has a checkpoint; reads no parameters yet.

  Args:
    config: of the run; its objective, optimizer and schedule are not read.
    workdir: of the run.
    devices: for the mesh; default all.

  Raises:
    ValueError: if the workdir has no checkpoint, and as `open_model`.
  """
  if not finished_steps(workdir):
    raise ValueError(f'workdir {workdir} has no checkpoint to evaluate; train first')
  return open_model(config, devices)


def restore_parameters(model: OpenModel, workdir: pathlib.Path) -> Restored:
  """Restores the parameters to evaluate: the moving average where one is kept.

  Reads the newest checkpoint that can be read, and passes over damaged ones with a warning. Writes
  nothing to the workdir, and reads nothing else of the training state.

  Args:
    model: of the run, from `open_run`; its mesh may differ from that of training.
    workdir: of the run.

  Raises:
    ValueError: if no checkpoint can be read, or a sharding rule does not fit.
  """
  target = model.config.get('evaluate_target', '')
  averaged = model.config.get('average_decay', 0) > 0
  field = 'targets' if target else 'average' if averaged else 'parameters'
  shapes = model.definition.shapes
  sharding_rules = model.config.sharding.to_dict()
  placed = rules.parameter_shardings(model.definition.axes, shapes, sharding_rules, model.mesh)
  trained, statistics = model.definition.part(rules.place(shapes, placed))
  items = {field: {target: trained} if target else trained} | (
    {'statistics': statistics} if statistics else {}
  )
  folder = workdir.absolute() / 'checkpoints'

  def read(step):
    progress = ocp.JsonCheckpointHandler().restore(folder / str(step) / 'progress')
    restored = read_part(folder / str(step), items)
    found = restored[field][target] if target else restored[field]
    return join_statistics(found, restored.get('statistics')), progress

  def intact(parameters, progress):
    # Earlier versions saved the fingerprint of the whole state alone.
    saved = progress.get('evaluated_fingerprint')
    return saved is None or saved == fingerprint(parameters)

  found = read_newest(folder, finished_steps(workdir), read, intact)
  for step, error in found.damaged.items():
    logging.warning('checkpoint %d cannot be read, and is passed over: %s', step, error)
  return Restored(found.tree, found.step)
