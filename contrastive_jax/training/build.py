"""From a config to a run: checked, but nothing of it compiled yet."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.data.augmentation import augment_on_host
from contrastive_jax.data.images import normalizer
from contrastive_jax.methods import Objective, Sizes
from contrastive_jax.methods.inputs import count, gather, parse
from contrastive_jax.models.definition import Definition
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.training.batch import abstract_batch, abstract_inputs, batch_shapes
from contrastive_jax.training.config_checks import check_config, check_inputs
from contrastive_jax.training.opening import open_model
from contrastive_jax.training.optimizer import make_optimizer, make_schedule
from contrastive_jax.training.rates import frozen_statistics, parameter_rates
from contrastive_jax.training.state import FROZEN, TrainState, plan_state, with_heads
from contrastive_jax.training.step import jit_train_step, make_train_step
from contrastive_jax.training.teacher import StoredTeacher, Teacher, open_teacher
from contrastive_jax.training.views import Preprocess, locators, preprocesses

# Tables are padded to a multiple of this, so that meshes of up to so many shards divide them.
TABLE_MULTIPLE = 1024


class Run(NamedTuple):
  """What a config describes: checked, but nothing of it compiled yet.

  Attributes:
    config: the config.
    mesh: all devices.
    definition: the model.
    objective: the methods.
    sizes: what their heads and memory are built from.
    tokenizer: texts -> tokens; None where the model reads no texts.
    teacher: the frozen model that methods read; None where none does.
    augment: (step, batch) -> batch, on the host, before the step.
    create_state: seed -> the initial state, in place.
    abstract_state: its shapes and shardings.
    train_step: jitted; (state, batch) -> (state, metrics).
    schedule: step -> learning rate.
    unmasked: the run as its last steps see it, without patch dropout; None if all steps are alike.
  """

  config: ConfigDict
  mesh: Mesh
  definition: Definition
  objective: Objective
  sizes: Sizes
  tokenizer: data.Tokenizer | None
  teacher: Teacher | StoredTeacher | None
  augment: Callable
  create_state: Callable[[int], TrainState]
  abstract_state: TrainState
  train_step: jax.stages.Wrapped
  schedule: Callable
  unmasked: 'Run | None' = None

  def at(self, step: int) -> 'Run':
    """The run that takes a step, counted from 1: this one, or `unmasked`."""
    fraction, total = self.config.unmasked_fraction, self.config.total_steps
    if self.unmasked is None or step <= total - max(1, round(fraction * total)):
      return self
    return self.unmasked

  @property
  def abstract_batch(self) -> dict[str, Any]:
    """The shapes of a batch, of the longest sequences."""
    return _abstract_batch(self.config, self.definition, self.teacher)


def build(config: ConfigDict, devices: list | None = None, examples: int | None = None) -> Run:
  """Builds all that a config names.

  Args:
    config: the config.
    devices: for the mesh; default all. Others, as of a topology, can be compiled for, not run on.
    examples: in the training data; needed where a method keeps a table by example, unless
      `config.data.examples` says it.

  Raises:
    ValueError: for whatever in the config cannot work, before anything is compiled.
  """
  _, mesh, definition, tokenizer = open_model(config, devices)
  check_config(config, mesh)
  check_inputs(config, definition.inputs)
  preprocess, augment_before = _augmentation(config, definition.inputs)
  objective = Objective(
    config.objective.to_dict(),
    mesh if mesh.size > 1 else None,
    gather_bytes=config.gather_bytes,
  )
  _check_targets(config, objective)
  _check_patches(config, objective)
  teacher = None
  if objective.reads_teacher:
    teacher = open_teacher(config, definition, tokenizer, examples)
  patterns = config.optimizer.to_dict().get('rates', ())
  definition = definition._replace(frozen_statistics=frozen_statistics(definition, patterns))
  sizes = _sizes(config, definition, objective, teacher, examples)
  heads = objective.heads(sizes)
  trained = with_heads(definition, heads)
  schedule, rates, optimizer = _optimizer(config, trained)
  create_state, abstract_state = plan_state(
    trained,
    optimizer,
    mesh,
    config.sharding.to_dict(),
    averaged=config.average_decay > 0,
    memory=_memory(config, objective, sizes),
    targets=objective.targets,
    teacher=None if teacher is None else teacher.definition,
    evaluated_target=config.evaluate_target,
  )
  train_step = make_train_step(
    definition,
    objective,
    optimizer,
    mesh,
    heads=heads,
    rates=rates,
    preprocess=preprocess[0],
    view_preprocess=preprocess[1:],
    locators=locators(config) if count(objective.reads, 'boxes') else (),
    teach=None if teacher is None else teacher.teach(config, objective.reads),
    average_decay=config.average_decay,
    micro_batches=config.micro_batches,
    views=config.views,
    skip_bad=config.bad_steps.action == 'skip',
    spike=config.bad_steps.spike,
    total_steps=config.total_steps,
  )
  run = Run(
    config=config,
    mesh=mesh,
    definition=definition,
    objective=objective,
    sizes=sizes,
    tokenizer=tokenizer,
    teacher=teacher,
    augment=augment_before,
    create_state=create_state,
    abstract_state=abstract_state,
    train_step=jit_train_step(train_step, abstract_state, mesh),
    schedule=schedule,
  )
  if config.unmasked_fraction:
    run = run._replace(unmasked=build(_without_dropout(config), devices, examples))
  return run


def _without_dropout(config: ConfigDict) -> ConfigDict:
  """The config of the last steps, whose state is the same."""
  config = ConfigDict(config.to_dict())
  config.unmasked_fraction = config.model.image.patch_dropout = 0.0
  return config


def _optimizer(config: ConfigDict, trained: Definition):
  """The schedule, the multipliers of the learning rate, and the optimizer of what is trained."""
  fields = config.optimizer.to_dict()
  schedule = make_schedule(
    learning_rate=fields.pop('learning_rate'),
    warmup_fraction=fields.pop('warmup_fraction'),
    decay=fields.pop('decay', 'cosine'),
    cooldown_fraction=fields.pop('cooldown_fraction', 0.0),
    timescale=fields.pop('timescale', 10_000),
    total_steps=config.total_steps,
  )
  rates = parameter_rates(trained, fields.pop('rates', ()), fields.pop('layer_decay', 1.0))
  axes = trained.part(trained.axes)[0]
  return schedule, rates, make_optimizer(schedule, **fields, rates=rates, axes=axes)


def _sizes(
  config: ConfigDict,
  definition: Definition,
  objective: Objective,
  teacher: Teacher | StoredTeacher | None,
  examples: int | None,
) -> Sizes:
  """The sizes that heads and memory are built from, once the objective's reads are checked."""
  outputs = abstract_outputs(config, definition, config.batch_size)
  counts = config.views, config.texts, config.data.negatives
  batch, taught = _abstract_batch(config, definition, teacher), None
  if teacher is not None:
    taught = abstract_taught(config, objective, teacher, batch)
  objective.check(outputs, batch, *counts, teacher=taught)
  examples = config.data.examples or examples or 0
  width = lambda array, axis=-1: 0 if array is None else array.shape[axis]  # noqa: E731
  pixels = gather(('pixels',), outputs, batch)
  return Sizes(
    batch=config.batch_size,
    embed=width(outputs.first),
    image_features=width(outputs.image_features),
    text_features=width(outputs.text_features),
    patches=0 if outputs.image_tokens is None else outputs.image_tokens.shape[1],
    image_tokens=width(outputs.image_tokens),
    tokens=0 if outputs.hidden is None else outputs.hidden.shape[1],
    hidden=width(outputs.hidden),
    vocabulary=0 if outputs.vocabulary is None else outputs.vocabulary.shape[0],
    examples=-(-examples // TABLE_MULTIPLE) * TABLE_MULTIPLE,
    views=config.views,
    texts=config.texts,
    teacher=0 if taught is None else sum(map(width, jax.tree.leaves(taught.first))),
    classes=config.data.classes,
    side=width(pixels.get('pixels'), 1),
  )


def _abstract_batch(
  config: ConfigDict, definition: Definition, teacher: Teacher | StoredTeacher | None
) -> dict[str, Any]:
  return abstract_batch(config, definition, columns={} if teacher is None else teacher.columns)


def _check_targets(config: ConfigDict, objective: Objective) -> None:
  targets = sorted(objective.targets)
  if (target := config.evaluate_target) and target not in targets:
    raise ValueError(
      f'config.evaluate_target = {target!r} is no target of config.objective; use one of '
      f"{targets}, or ''"
    )
  is_read = FROZEN in objective.targets or objective.reads_teacher
  if is_read and not config.teacher:
    raise ValueError(
      "config.teacher = '', and a method of config.objective reads a teacher; give the workdir of "
      'a run, or a folder of weights'
    )
  if config.teacher and not is_read:
    raise ValueError(
      f'config.teacher = {config.teacher!r}, and no method of config.objective reads a teacher, or '
      "has a momentum of 1; use ''"
    )


def _check_patches(config: ConfigDict, objective: Objective) -> None:
  """Checks that methods which compare patches see the same ones by model and target."""
  for name, method in objective.methods.items():
    if not any(parse(read)[1] == 'tokens_of_view' for read in method.reads):
      continue
    if dropped := config.model.image.get('patch_dropout', 0):
      raise ValueError(
        f'config.model.image.patch_dropout = {dropped} drops patches that config.objective.{name} '
        'compares; use 0'
      )
    if lengths := config.data.sequence_lengths:
      raise ValueError(
        f'config.data.sequence_lengths = {lengths}, and config.objective.{name} compares patches '
        'of square images; use ()'
      )


def _memory(config: ConfigDict, objective: Objective, sizes: Sizes):
  memory = objective.memory(sizes)
  varies = len({shape.batch_size for shape in batch_shapes(config).shapes}) > 1
  for name, slots in memory.items():
    if varies and any('queue' in slot.axes for slot in slots.values()):
      raise ValueError(
        f'config.objective.{name} keeps a queue of whole batches, whose size must not vary; give '
        'config.data.sequence_lengths one length'
      )
    if not sizes.examples and any('examples' in slot.axes for slot in slots.values()):
      raise ValueError(
        f'config.objective.{name} keeps a table with a row per example, and config.data.examples = '
        '0; give the number of examples in the training data'
      )
  return memory


def abstract_outputs(config: ConfigDict, definition: Definition, batch_size: int) -> Outputs:
  """Shapes of the outputs of a batch, with all views, texts and negatives."""
  V, K, M = config.views, config.texts, config.data.negatives

  def with_several(outputs):
    several = lambda array, count: jnp.stack([array] * count, 1)  # noqa: E731
    if V > 1:
      names = {'views': 'image', 'view_features': 'image_features', 'view_tokens': 'image_tokens'}
      found = {name: several(getattr(outputs, first), V) for name, first in names.items()}
      outputs = outputs.replace(**found)
    if K > 1:
      texts, features = several(outputs.text, K), several(outputs.text_features, K)
      outputs = outputs.replace(texts=texts, texts_features=features)
    if M:
      outputs = outputs.replace(negatives=several(outputs.text, M))
    return outputs

  batch = abstract_inputs(config, definition, batch_size)
  outputs = jax.eval_shape(_encoder(definition.bind), definition.shapes, batch)
  return jax.eval_shape(with_several, outputs)


def abstract_taught(
  config: ConfigDict,
  objective: Objective,
  teacher: Teacher | StoredTeacher,
  batch: Mapping[str, Any],
) -> Outputs:
  """Shapes of the outputs of the teacher for a batch, with all views and texts."""
  (size, *_), *_ = (leaf.shape for leaf in jax.tree.leaves(batch))
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), size))
  teach = teacher.teach(config, objective.reads)
  return jax.eval_shape(teach, teacher.shapes, {**batch, 'key': keys})


@functools.lru_cache(maxsize=16)
def _encoder(bind: Callable) -> Callable:
  """(parameters, batch) -> outputs; JAX traces one function once per shape of the batch."""
  return lambda parameters, batch: bind(parameters).encode(batch)


def _augmentation(config: ConfigDict, inputs: Sequence[str]) -> tuple[list[Preprocess], Callable]:
  """(keys, images) -> the model's images per view, and (step, batch) -> batch before the step."""
  if 'image' not in inputs:
    return [lambda keys, images: images], _without_positions
  normalize = normalizer(config.data.get('mean', ()), config.data.get('std', ()))
  before = _on_host(config) if config.augment_on == 'host' else _without_positions
  return preprocesses(config, config.model.image.size, normalize), before


def _on_host(config: ConfigDict) -> Callable:
  """(step, batch) -> the batch with augmented images."""
  size, strengths = config.model.image.size, config.augmentation.to_dict()
  change = augment_on_host(size, strengths)

  def on_host(step, batch):
    if 'seed' in batch:
      return _without_positions(step, batch) | {'image': change(batch['seed'], batch['image'])}
    # Seeds depend on the example: every process that feeds it changes it alike.
    sources = [np.random.SeedSequence([config.seed, step, number]) for number in batch['position']]
    seeds = np.array([source.generate_state(1)[0] for source in sources])
    return _without_positions(step, batch) | {'image': change(seeds, batch['image'])}

  return on_host


def _without_positions(step: int, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """A batch as the step takes it."""
  return {name: array for name, array in batch.items() if name != 'position'}
