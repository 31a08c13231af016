"""What all tasks read of their configs: checks of fields, and the loop."""

import functools
import operator
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from contrastive_jax.training.fit import Fit, fit
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


def fit_by(
  config: ConfigDict, task: Fit, workdir: pathlib.Path, total_steps: int | None = None
) -> Any:
  """`training.fit.fit` by the fields of a config.

  Args:
    config: with `seed`, `log_every` and `checkpoint_every`.
    task: what is fitted.
    workdir: of the run.
    total_steps: number of steps; None for `config.total_steps`.
  """
  steps = config.total_steps if total_steps is None else total_steps
  every = {name: config[name] for name in ('log_every', 'checkpoint_every')}
  return fit(task, workdir, total_steps=steps, seed=config.seed, **every)
