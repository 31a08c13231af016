"""Checks of the fields of a task's config."""

import functools
import operator
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from contrastive_jax.training.rules import COUNT, Rule


def check_ranges(config: ConfigDict, rules: Mapping[str, Rule]) -> None:
  """Checks numbers.

  Args:
    config: of a task.
    rules: by path below `config`; those of `log_every` and `checkpoint_every` are added.

  Raises:
    ValueError: names the field, its value and what works.
  """
  for path, rule in {'log_every': COUNT, 'checkpoint_every': COUNT, **rules}.items():
    if not rule.accepts(value := field(config, path)):
      raise ValueError(f'config.{path} = {value!r}; use {rule}')


def check_choices(config: ConfigDict, choices: Mapping[str, Any]) -> None:
  """Checks names, each one of its choices, by path below `config`.

  Raises:
    ValueError: names the field, its value and the choices.
  """
  for path, known in choices.items():
    if (value := field(config, path)) not in known:
      raise ValueError(f'config.{path} = {value!r} is unknown; use one of {tuple(known)}')


def field(config: ConfigDict, path: str) -> Any:
  """The field at a path, with its sections separated by dots."""
  return functools.reduce(operator.getitem, path.split('.'), config)
