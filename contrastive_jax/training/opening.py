"""Opens the model of a config, with its tokenizer, without parameters."""

from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.models.definition import Definition, define
from contrastive_jax.models.towers import pad_id_of
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.config_checks import check_model


class OpenModel(NamedTuple):
  """What a trained model and its evaluation need of a config; nothing of it is compiled yet.

  Attributes:
    config: the config.
    mesh: all devices.
    definition: the model.
    tokenizer: texts -> tokens; None for a model without texts.
  """

  config: ConfigDict
  mesh: Mesh
  definition: Definition
  tokenizer: data.Tokenizer | None


def open_model(config: ConfigDict, devices: list | None = None) -> OpenModel:
  """Opens the model of a config, without its objective and optimizer.

  Args:
    config: the config, whose fields for training are not read.
    devices: for the mesh; default all.

  Raises:
    ValueError: if the model, its tokenizer, its evaluation or the mesh cannot work.
  """
  mesh = make_mesh(config.mesh, devices)
  check_model(config)
  definition = define(**config.model.to_dict())
  tokenizer = _open_tokenizer(config) if 'text' in config.model else None
  return OpenModel(config, mesh, definition, tokenizer)


def _open_tokenizer(config: ConfigDict) -> data.Tokenizer:
  tokenizer = data.open_tokenizer(config.data.tokenizer, config.model.text.length)
  if config.model.text.vocabulary < tokenizer.vocab_size:
    raise ValueError(
      f'config.model.text.vocabulary = {config.model.text.vocabulary} is too small for the '
      f'tokenizer {config.data.tokenizer!r}; use {tokenizer.vocab_size} or more'
    )
  if (pad_id := pad_id_of(config.model.text)) != tokenizer.pad_id:
    raise ValueError(
      f'config.data.tokenizer = {config.data.tokenizer!r} pads with {tokenizer.pad_id}, and '
      f'config.model.text takes texts padded with {pad_id}; make them the same'
    )
  return tokenizer
