"""Teachers: frozen models of their own, whose outputs methods read as 'teacher.NAME'."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from contrastive_jax.data.images import normalizer
from contrastive_jax.data.reinforcement import Table, is_table
from contrastive_jax.interop.tokenizers import ModelTokens, unknown_tokenizer
from contrastive_jax.methods.inputs import views_read
from contrastive_jax.models.definition import Definition, define
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.training.forward import encode, view
from contrastive_jax.training.trained import read_trained
from contrastive_jax.training.views import Preprocess, preprocesses, strengths_of

# The `config.teacher` of a run that tries a config: the student's model with random parameters.
UNTRAINED = 'untrained'

Columns = Mapping[str, tuple[tuple[int, ...], Any]]
Teach = Callable[[Any, Mapping[str, jax.Array]], Outputs]


class Teacher(NamedTuple):
  """A frozen model of any architecture, which the step runs.

  Attributes:
    fields: the arguments of `models.definition.define`.
    definition: the model.
    parameters: a nested dict of arrays; None for random ones.
    normalize: pixels from 0 to 255 -> the model's images.
    tokenize: N texts -> tokens [N, L]; None for a model without texts.
  """

  fields: dict[str, Any]
  definition: Definition
  parameters: Any
  normalize: Callable
  tokenize: Callable | None

  @property
  def shapes(self) -> Any:
    """Shapes of the parameters."""
    return self.definition.shapes

  @property
  def columns(self) -> Columns:
    """Shape per example and dtype of what batches hold for it, by name."""
    if 'tokens' not in self.definition.inputs:
      return {}
    return {'teacher_tokens': ((self.fields['text']['length'],), jnp.int32)}

  def preprocesses(self, config: ConfigDict) -> list[Preprocess]:
    """(keys [B], images [B, H, H, 3]) -> each view of the student, at the teacher's size."""
    return preprocesses(config, self.fields['image']['size'], self.normalize)

  def teach(self, config: ConfigDict, reads: Collection[str]) -> Teach:
    """(parameters, micro-batch) -> the outputs for all views and texts that are read."""
    has_images, has_texts = (name in self.definition.inputs for name in ('image', 'tokens'))
    changes = self.preprocesses(config) if has_images else [lambda keys, images: images]
    names = ('key', 'seed', 'image') if has_images else ('key',)
    read = views_read(reads, 'teacher', config.views, has_texts)

    def teach(parameters, part):
      own = {name: part[name] for name in names if name in part}
      if has_texts:
        tokens = part['teacher_tokens']
        several = tokens.ndim == 3
        own |= {'texts': tokens, 'tokens': tokens[:, 0]} if several else {'tokens': tokens}
      seen = [(view(own, number, change)[0], None) for number, change in enumerate(changes)]
      return encode(self.definition.bind(parameters), seen, read)

    return teach


@dataclasses.dataclass(frozen=True)
class StoredTeacher:
  """Teachers whose embeddings of some views and of all captions a table holds.

  Attributes:
    table: the table.
  """

  table: Table

  # What a teacher that the step runs has.
  definition: ClassVar[None] = None
  parameters: ClassVar[None] = None
  shapes: ClassVar[None] = None
  tokenize: ClassVar[None] = None

  @property
  def columns(self) -> Columns:
    """As `Teacher.columns`."""
    return self.table.columns

  def teach(self, config: ConfigDict, reads: Collection[str]) -> Teach:
    """(None, micro-batch) -> the embeddings that the batch holds; tuples, of several teachers."""
    del config, reads
    several = len(self.table.widths) > 1

    def teach(parameters, part):
      del parameters
      images, texts = (self.table.part(part[f'teacher_{name}']) for name in ('image', 'text'))
      scales = tuple(map(jnp.float32, self.table.scales))
      own = {'image': images, 'text': texts, 'scale': scales}
      if texts[0].ndim == 3:
        own |= {'text': tuple(text[:, 0] for text in texts), 'texts': texts}
      return Outputs(**own if several else {name: parts[0] for name, parts in own.items()})

    return teach


def open_teacher(
  config: ConfigDict, definition: Definition, tokenizer, examples: int | None = None
) -> Teacher | StoredTeacher:
  """Opens the teacher of a config.

  Args:
    config: of the run. `teacher` is what `contrastive_jax.load` takes, or a table of embeddings
      from `contrastive_jax.reinforce`, or 'untrained'.
    definition: the student.
    tokenizer: the student's.
    examples: rows of the data; None if they are not opened.

  Raises:
    ValueError: if there is no such model, or the batch cannot give what it reads.
  """
  fields = config.model.to_dict()
  if is_table(config.teacher):
    return StoredTeacher(_open_table(config, definition, examples))
  if config.teacher == UNTRAINED:
    normalize = normalizer(config.data.get('mean', ()), config.data.get('std', ()))
    teacher = Teacher(fields, definition, None, normalize, tokenizer)
  else:
    teacher = _read(config.teacher, fields['dtype'])
  inputs = set(teacher.definition.inputs)
  if lacking := sorted(inputs - {*definition.inputs} | inputs - {'image', 'tokens'}):
    raise ValueError(
      f'config.teacher = {config.teacher!r} is a {teacher.fields["name"]} that reads {lacking}, '
      f'which a teacher of config.model.name = {config.model.name!r} does not get; use a model of '
      f'{sorted({"image", "tokens"} & {*definition.inputs})}'
    )
  _check_square(config, inputs)
  return teacher


def _check_square(config: ConfigDict, inputs: set[str]) -> None:
  if 'image' in inputs and config.data.sequence_lengths:
    raise ValueError(
      f'config.teacher = {config.teacher!r} takes square images; use '
      'config.data.sequence_lengths = ()'
    )


def _open_table(config: ConfigDict, definition: Definition, examples: int | None) -> Table:
  """Opens a table of embeddings; raises ValueError unless it is of the data and the views."""
  if {*definition.inputs} != {'image', 'tokens'}:
    raise ValueError(
      f'config.teacher = {config.teacher!r} is a table of images and texts, and config.model.name '
      f'= {config.model.name!r} reads {sorted(definition.inputs)}'
    )
  _check_square(config, {'image'})
  table = Table(config.teacher)
  table.check_use(drawing(config), examples)
  return table


def drawing(config: ConfigDict) -> dict[str, Any]:
  """What the views and the texts of a run depend on, beside the data and a seed."""
  names = ('size', 'crop', 'captions', 'prompts', 'text_augmentation')
  own = {f'data.{name}': config.data[name] for name in names}
  own['data.text_augmentation'] = config.data.text_augmentation.to_dict()
  # Of the first view, wherever it is augmented.
  on_device = ConfigDict(config.to_dict() | {'augment_on': 'device'})
  return own | {'augmentation': strengths_of(on_device, 0)}


@functools.lru_cache(maxsize=1)
def _read(folder: str, dtype: str) -> Teacher:
  """Reads a teacher, which computes in the dtype of the student."""
  try:
    model, tokenizer, transform, config = read_trained(folder)
    fields = model.fields | {'dtype': dtype, 'remat': 'none'}
    definition = define(**fields)
    if model.sequence_length or (config is not None and config.data.sequence_lengths):
      raise ValueError('it takes images as patches (NaFlex); use a model of square images')
    if 'tokens' in definition.inputs and tokenizer is None:
      raise ValueError(unknown_tokenizer(model))
  except (OSError, ValueError) as error:
    raise ValueError(f'config.teacher = {folder!r} cannot be used: {error}') from error
  tokens = ModelTokens(tokenizer, model) if tokenizer else None
  return Teacher(fields, definition, jax.device_get(model.parameters), transform.normalize, tokens)
