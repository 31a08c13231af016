"""From a config to a run: checked, but nothing of it compiled yet."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.data.augmentation import augment, augment_on_host
from contrastive_jax.models.definition import Definition, define
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.config_checks import check_config
from contrastive_jax.training.objective import Objective
from contrastive_jax.training.optimizer import make_optimizer, make_schedule
from contrastive_jax.training.rates import hold, parameter_rates
from contrastive_jax.training.state import TrainState, plan_state
from contrastive_jax.training.step import jit_train_step, make_train_step


class Run(NamedTuple):
  """What a config describes: checked, but nothing of it compiled yet.

  Attributes:
    config: the config.
    mesh: all devices.
    definition: the model.
    tokenizer: texts -> tokens.
    augment: (step, batch) -> batch, on the host, before the step.
    create_state: seed -> the initial state, in place.
    abstract_state: its shapes and shardings.
    train_step: jitted; (state, batch) -> (state, metrics).
    schedule: step -> learning rate.
  """

  config: ConfigDict
  mesh: Mesh
  definition: Definition
  tokenizer: data.Tokenizer
  augment: Callable
  create_state: Callable[[int], TrainState]
  abstract_state: TrainState
  train_step: Callable
  schedule: Callable


def build(config: ConfigDict, devices: list | None = None) -> Run:
  """Builds all that a config names.

  Args:
    config: the config.
    devices: for the mesh; default all. Others, as of a topology, can be compiled for, not run on.

  Raises:
    ValueError: for whatever in the config cannot work, before anything is compiled.
  """
  mesh = make_mesh(config.mesh, devices)
  check_config(config, mesh)
  tokenizer = data.open_tokenizer(config.data.tokenizer, config.model.text.length)
  if config.model.text.vocabulary < tokenizer.vocab_size:
    raise ValueError(
      f'config.model.text.vocabulary = {config.model.text.vocabulary} is too small for the '
      f'tokenizer {config.data.tokenizer!r}; use {tokenizer.vocab_size} or more'
    )
  augment_in_step, augment_before = _augmentation(config)
  definition = define(**config.model.to_dict())
  objective = Objective(config.objective.to_dict(), mesh if mesh.size > 1 else None)
  optimizer_fields = config.optimizer.to_dict()
  schedule = make_schedule(
    learning_rate=optimizer_fields.pop('learning_rate'),
    warmup_fraction=optimizer_fields.pop('warmup_fraction'),
    decay=optimizer_fields.pop('decay', 'cosine'),
    total_steps=config.total_steps,
  )
  rates = parameter_rates(
    definition, optimizer_fields.pop('rates', ()), optimizer_fields.pop('layer_decay', 1.0)
  )
  optimizer = make_optimizer(schedule, **optimizer_fields, rates=rates, axes=definition.axes)
  create_state, abstract_state = plan_state(
    definition,
    optimizer,
    mesh,
    config.sharding.to_dict(),
    averaged=config.average_decay > 0,
  )
  train_step = make_train_step(
    hold(definition, rates),
    objective,
    optimizer,
    mesh,
    augment=augment_in_step,
    average_decay=config.average_decay,
    micro_batches=config.micro_batches,
    views=config.get('views', 1),
    skip_bad=config.bad_steps.action == 'skip',
    spike=config.bad_steps.spike,
  )
  return Run(
    config=config,
    mesh=mesh,
    definition=definition,
    tokenizer=tokenizer,
    augment=augment_before,
    create_state=create_state,
    abstract_state=abstract_state,
    train_step=jit_train_step(train_step, abstract_state, mesh),
    schedule=schedule,
  )


def _augmentation(config: ConfigDict) -> tuple[Callable, Callable]:
  """(keys, images) -> images in the step, and (step, batch) -> batch before it."""
  strengths, size = config.augmentation.to_dict(), config.model.image.size
  if config.get('augment_on', 'device') == 'device':
    return lambda keys, images: augment(keys, images, size, strengths), lambda step, batch: batch
  change = augment_on_host(size, strengths)

  def on_host(step, batch):
    # By the example, so that its changes do not hang on which process feeds it.
    seeds = [np.random.SeedSequence([config.seed, step, number]) for number in batch['id']]
    seeds = np.array([seed.generate_state(1)[0] for seed in seeds])
    return batch | {'image': change(seeds, batch['image'])}

  return lambda keys, images: images, on_host
