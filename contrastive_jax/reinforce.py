"""Stores teachers' embeddings: python -m contrastive_jax.reinforce --config=CONFIG --table=FOLDER.

  python -m contrastive_jax.reinforce --config=configs/methods/distill.py --table=runs/table
  python launch.py --config=configs/methods/distill.py --config.teacher=runs/table

The table holds, for each example of the config's data, the embeddings of `--views` augmented views,
with the seed that rebuilds each, and of all its captions. A run that takes it for its teacher sees
these views, and spares the teacher's forward pass. `--teachers` are trained models, by default
`config.teacher`; of several, methods average the softmax. The same command resumes an interrupted
one. Dataset reinforcement [1]; the authors store 10 to 30 views.

[1] Vasu et al., https://arxiv.org/abs/2311.17049
"""

import functools
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
import rich.progress
from absl import app, flags, logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict, config_flags

from contrastive_jax import data
from contrastive_jax.data import reinforcement
from contrastive_jax.data.batch_shapes import BatchShape
from contrastive_jax.data.batches import BadExamples
from contrastive_jax.data.readers import Images
from contrastive_jax.data.sources.source import location_of
from contrastive_jax.evaluation.batches import in_batches, jit_batched
from contrastive_jax.methods.method import fold_name
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import opening, teacher, workdir


def reinforce(
  config: ConfigDict,
  folder: str | pathlib.Path,
  *,
  teachers: Sequence[str] = (),
  views: int = 10,
  chunk: int = 128,
) -> reinforcement.Table:
  """Writes a table of embeddings; resumes an earlier call with the same arguments.

  Args:
    config: of the runs that will use the table: their data, augmentation and student.
    folder: of the table.
    teachers: what `config.teacher` takes; default `config.teacher`.
    views: A, per example.
    chunk: examples after which progress is saved.

  Returns:
    The table.

  Raises:
    ValueError: if the data, a teacher or the folder cannot be used, or over 1% of the examples are
      bad.
  """
  config = workdir.upgrade(config)
  if views < 1:
    raise ValueError(f'views = {views}; use 1 or more')
  given = config.data.captions
  lines = [given] if isinstance(given, str) else given
  captions = [data.parse_captions(line) for line in lines]
  fields = reinforcement.check_fields(captions, config.data.prompts)
  if data.TextAugmentation(**config.data.text_augmentation).changes:
    raise ValueError(
      f'config.data.text_augmentation = {config.data.text_augmentation.to_dict()} edits texts, '
      'which no table can hold; use 0 for all'
    )
  student, mesh = opening.open_model(config), make_mesh(devices=jax.local_devices())
  opened = [_open(config, student, name, mesh) for name in teachers or [config.teacher]]
  source = data.open_source(config.data.name, config.data.split, config.data.folder or None)
  numbers = _numbers(source)
  read = functools.partial(_texts, source, fields)
  index = {
    'examples': source.rows,
    'views': views,
    'teachers': [each.told for each in opened],
    'drawing': teacher.drawing(config),
    'captions': fields,
    'seed': config.seed,
  }
  writer = reinforcement.Writer(folder, index, [len(read(number)) for number in numbers])
  bad = BadExamples(source.rows)
  images = Images(config.data.size, config.data.crop or None, in_memory=False)
  with rich.progress.Progress(console=rich.console.Console(stderr=True)) as progress:
    task = progress.add_task('examples', total=source.rows, completed=writer.done)
    for start in range(writer.done, source.rows, chunk):
      rows = range(start, min(start + chunk, source.rows))
      seeds, pixels = _views(source, images, numbers, rows, index, bad)
      flat = seeds.reshape(-1), pixels.reshape(-1, *pixels.shape[2:])
      texts = [text for row in rows for text in read(numbers[row])]
      of_images = [each.encode_images(flat) for each in opened]
      of_texts = [each.encode_texts(texts) for each in opened]
      embeddings = np.concatenate(of_images, -1).reshape(*seeds.shape, -1)
      writer.write(seeds, embeddings, np.concatenate(of_texts, -1))
      progress.advance(task, len(rows))
  return reinforcement.Table(folder)


class _Teacher:
  """A teacher with its parameters on the devices.

  Attributes:
    told: what the table tells of it.
  """

  def __init__(self, config: ConfigDict, model: teacher.Teacher, mesh: Mesh):
    parameters = model.parameters
    if parameters is None:
      # As in a run with this seed.
      key = fold_name(jax.random.key(config.seed), 'teacher')
      parameters = jax.jit(model.definition.init)(key)
    bind, preprocess = model.definition.bind, model.preprocesses(config)[0]
    self._tokenize, self._mesh, self._batch_size = model.tokenize, mesh, config.batch_size
    placed = jax.device_put(parameters, NamedSharding(mesh, PartitionSpec()))

    def of_images(parameters, batch):
      keys, images = jax.vmap(jax.random.key)(batch[0]), batch[1]
      return bind(parameters).encode_image(preprocess(keys, images)).astype('float32')

    def of_texts(parameters, tokens):
      return bind(parameters).encode_text(tokens).astype('float32')

    self._of_images = functools.partial(jit_batched(of_images, mesh), placed)
    self._of_texts = functools.partial(jit_batched(of_texts, mesh), placed)
    scale = float(np.exp(bind(parameters).log_scale[...]))
    self.told = {'folder': config.teacher, 'width': model.fields['embed'], 'scale': scale}

  def encode_images(self, batch: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Unit vectors [n, D] of (seeds [n], pixels [n, H, H, 3])."""
    return in_batches(self._of_images, batch, self._batch_size, self._mesh)

  def encode_texts(self, texts: list[str]) -> np.ndarray:
    """Unit vectors [m, D] of texts."""
    if not texts:
      return np.zeros((0, self.told['width']), np.float32)
    tokens = np.asarray(self._tokenize(texts), np.int32)
    return in_batches(self._of_texts, tokens, self._batch_size, self._mesh)


def _open(config: ConfigDict, student: opening.OpenModel, name: str, mesh: Mesh) -> _Teacher:
  own = ConfigDict(config.to_dict())
  own.teacher, own.augment_on = str(name), 'device'
  if not name or reinforcement.is_table(name):
    raise ValueError(f'config.teacher = {name!r} is no trained model; give --teachers=RUN')
  model = teacher.open_teacher(own, student.definition, student.tokenizer)
  if {*model.definition.inputs} != {'image', 'tokens'}:
    raise ValueError(f'config.teacher = {name!r} does not encode images and texts; use a CLIP')
  return _Teacher(own, model, mesh)


def _numbers(source) -> list[int | None]:
  """A number of each row in the source; None for rows that the split leaves out."""
  numbers: list[int | None] = [None] * source.rows
  for number in range(len(source)):
    numbers[source.fields(number)['id']] = number
  return numbers


def _texts(source, fields: Sequence[str], number: int | None) -> list[str]:
  """The texts of a row; none of a bad one."""
  if number is None:
    return []
  try:
    return reinforcement.texts_of_example(source.fields(number), fields)
  except ValueError:
    return []


def _views(source, images: Images, numbers, rows: range, index, bad: BadExamples):
  """Seeds [n, A], −1 for bad examples, and the cropped pixels [n, A, S, S, 3] of some rows."""
  seeds = np.full((len(rows), index['views']), -1, np.int32)
  pixels = np.zeros((*seeds.shape, images.size, images.size, 3), np.uint8)
  for place, row in enumerate(rows):
    number = numbers[row]
    if number is None:
      continue
    example = source[number]
    try:
      if 'error' in example:
        raise ValueError(example['error'])
      reinforcement.texts_of_example(example, index['captions'])
      own = reinforcement.seeds_of(index['seed'], row, index['views'])
      for view, pixel in enumerate(_cropped(images, example, own)):
        pixels[place, view] = pixel
      seeds[place] = own
    except ValueError as error:
      example = {'id': row, 'error': f'{location_of(source, number)}: {error}'}
    bad(example)
  return seeds, pixels


def _cropped(images: Images, example, seeds: np.ndarray) -> Iterator[np.ndarray]:
  """The pixels [S, S, 3] of the views of an example, as batches of a run hold them."""
  for seed in seeds.tolist():
    drawn = images.draw(example, reinforcement.crop_rng(seed))
    yield images.pixels(example['id'], drawn, BatchShape(1))[0]


def main(_) -> None:
  """Writes the table."""
  logging.set_verbosity(logging.WARNING)
  given = flags.FLAGS
  table = reinforce(given.config, given.table, teachers=given.teachers, views=given.views)
  print(
    f'{table.folder} holds {table.index["views"]} views of {table.index["examples"]:,} examples\n'
    f'--config.teacher={table.folder}'
  )


if __name__ == '__main__':
  config_flags.DEFINE_config_file('config', None, 'Config file, or FILE:VARIANT.')
  flags.DEFINE_string('table', None, 'Folder of the table.', required=True)
  flags.DEFINE_list('teachers', [], 'Trained models; default config.teacher.')
  flags.DEFINE_integer('views', 10, 'Views per example.', lower_bound=1)
  app.run(main)
