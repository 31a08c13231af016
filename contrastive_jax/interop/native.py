"""The native format, for any model: fields in config.json, parameters in model.safetensors."""

import pathlib

from contrastive_jax.interop import tensors
from contrastive_jax.interop.model import Model, shapes_of, stack_layers, unstack_layers
from contrastive_jax.interop.table import Row, read

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
FORMAT = 'contrastive_jax'


def write_model(model: Model, folder: str | pathlib.Path) -> None:
  """Writes a model in the native format."""
  folder = pathlib.Path(folder)
  config = {'format': FORMAT, 'model': model.fields, 'end_id': model.end_id}
  if given := model.source.get('preprocess_cfg'):
    config['preprocess_cfg'] = given
  if model.sequence_length:
    config['sequence_length'] = model.sequence_length
  tensors.write_json(folder / CONFIG, config)
  tensors.write(folder / WEIGHTS, unstack_layers(model.parameters))


def read_model(folder: str | pathlib.Path, *, image_size: int | None = None) -> Model:
  """Reads a model in the native format.

  Args:
    folder: holds config.json and model.safetensors.
    image_size: side of the images in pixels; default the config's. For another size the position
      embeddings are interpolated.

  Raises:
    ValueError: if a file is missing or incomplete, or tensors are missing, unexpected, or of
      another shape.
  """
  path = tensors.find(folder, (WEIGHTS,))
  config = tensors.read_json(pathlib.Path(folder) / CONFIG)
  if config.get('format') != FORMAT:
    raise ValueError(f'{folder}/{CONFIG} was not written by write_model; use read_hugging_face?')
  fields = config['model']
  shapes = shapes_of(fields)
  rows = [Row(name, name, _axes(shape)) for name, shape in shapes.items()]
  parameters = stack_layers(read(rows, tensors.read(path), shapes, str(path)), fields)
  length = config.get('sequence_length', 0)
  model = Model(fields, parameters, config.get('end_id'), sequence_length=length)
  return model if image_size is None else model.resize(image_size)


def _axes(shape: tuple[int, ...]) -> str:
  axes = ' '.join(f'axis{i}' for i in range(len(shape)))
  return f'{axes} -> {axes}'
