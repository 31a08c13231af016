"""Opens a trained model of any supported format, with its tokenizer and image transform."""

import dataclasses
import pathlib
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from contrastive_jax import data, interop
from contrastive_jax.interop.tokenizers import Tokenize, find_tokenizer
from contrastive_jax.interop.transforms import Transform, read_transform
from contrastive_jax.runtime import buckets
from contrastive_jax.training import restore, workdir


class Trained(NamedTuple):
  """A trained model, as its files describe it.

  Attributes:
    model: fields and parameters.
    tokenizer: N strings -> integers [N, L]; None if unknown, or without texts.
    transform: the image transform.
    config: of the run, for a workdir; else None.
  """

  model: interop.Model
  tokenizer: Tokenize | None
  transform: Transform
  config: ConfigDict | None = None


def read_trained(
  folder: str | pathlib.Path, tokenizer: str | pathlib.Path | Tokenize | None = None
) -> Trained:
  """Reads a model; see `contrastive_jax.load` for the formats and the arguments.

  Raises:
    ValueError: if the folder holds no supported model, or the tokenizer does not fit it.
  """
  folder = buckets.open_path(folder)
  if (folder / 'checkpoints').is_dir():
    return _read_run(folder, tokenizer)
  if buckets.is_bucket(folder):
    raise ValueError(
      f'{folder} holds no checkpoints; of buckets only the workdir of a run is read, so copy other '
      'models to a disk'
    )
  if not folder.is_file() and not _names_config(folder):
    raise ValueError(
      f'{folder} holds no model: give the workdir of a run (checkpoints/), what --mode=export '
      "wrote, open_clip's (open_clip_config.json and open_clip_model.safetensors), or Hugging "
      "Face's (config.json and model.safetensors)"
    )
  model = _read_file(folder) if folder.is_file() else interop.read(folder)
  found = find_tokenizer(folder, model, tokenizer)
  if isinstance(found, data.Tokenizer):
    model = dataclasses.replace(model, end_id=found.end_id)
  return Trained(model, found, read_transform(folder, model))


def _names_config(folder: pathlib.Path) -> bool:
  """Whether a folder holds the config of a model."""
  return any((folder / name).is_file() for name in ('open_clip_config.json', 'config.json'))


def _read_file(path: pathlib.Path) -> interop.Model:
  """Reads a file of OpenAI's; another's config would say what its shapes do not."""
  if _names_config(path.parent):
    raise ValueError(f'{path} lies beside its config; give the folder, {path.parent}')
  return interop.read_openai(path)


def _read_run(folder: pathlib.Path, tokenizer) -> Trained:
  config = workdir.read_config(folder)
  # The run's mesh may have had more devices.
  config.mesh = 'data:-1'
  if isinstance(tokenizer, str | pathlib.Path):
    config.data.tokenizer = str(tokenizer)
  run = restore.open_run(config, folder, jax.local_devices()[:1])
  parameters = restore.restore_parameters(run, folder).parameters
  end_id = None if run.tokenizer is None else run.tokenizer.end_id
  model = interop.Model(config.model.to_dict(), parameters, end_id)
  default = Transform()
  mean, std = (tuple(config.data.get(name, ())) for name in ('mean', 'std'))
  transform = Transform(mean=mean or default.mean, std=std or default.std)
  return Trained(model, tokenizer if callable(tokenizer) else run.tokenizer, transform, config)
