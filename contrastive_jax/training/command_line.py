"""Flags as a shell hands them over, checked before anything is read or written."""

import itertools
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from absl import flags, logging
from ml_collections import config_flags


class _OptionalFloat(flags.FloatParser):
  """Reads a number, or None."""

  def parse(self, argument: str | float | None) -> float | None:
    return None if argument == 'None' else super().parse(argument)


def accept_none() -> None:
  """Lets flags of a config set float fields to None, as --config.optimizer.clip_norm=None."""
  config_flags.register_flag_parser_for_type(float, _OptionalFloat())


def check_flags(arguments: Sequence[str], known: flags.FlagValues = flags.FLAGS) -> None:
  """Checks that no flag is given twice with different values, of which the last counts.

  Side by side, as a shell writes them for unquoted braces, they are refused. Apart, as where a
  script appends flags to its own, the last is used with a warning. Flags of tuples, such as
  --config.evaluation.splits, take all values that they are given.

  Args:
    arguments: of the command line, without the program.
    known: the flags that were parsed from them.

  Raises:
    ValueError: names the flag and both values.
  """
  given: dict[str, str] = {}
  before = None
  for name, value in _pairs(arguments, known):
    if name in given and given[name] != value:
      twice = f'--{name} is given twice, as {given[name]!r} and as {value!r}'
      if name == before:
        raise ValueError(
          f'{twice}; give it once. Quote braces, of which a shell makes several flags: '
          f"'--{name}=...{{00..99}}...'"
        )
      logging.warning('%s; the last is used', twice)
    given[name] = value
    before = name


def _pairs(arguments, known) -> Iterator[tuple[str, str]]:
  """The names and values of the flags that hold one value each."""
  for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=''):
    if argument == '--':
      return
    name, equals, value = argument.partition('=')
    name = name.lstrip('-')
    if not argument.startswith('-') or name not in known:
      continue
    if isinstance(known[name], flags.MultiFlag):
      continue
    if not equals:
      value = '' if known[name].boolean else following
    yield name, value


def check_paths(folders: Iterable[str]) -> None:
  """Checks that workdirs are paths of a file system.

  Raises:
    ValueError: names the first that is a URL, and what would work.
  """
  for folder in folders:
    if '://' in folder:
      raise ValueError(
        f'workdir {folder} is a URL; use a local folder, or one that is mounted, as gcsfuse mounts '
        'a bucket. Only data is read from URLs'
      )


def check_saves(folder: pathlib.Path) -> None:
  """Checks that checkpoints which are saved in a workdir can be restored.

  Raises:
    ValueError: names the workdir and what would work.
  """
  # Orbax lists its own files by a glob pattern, into which it puts the path as it is.
  if '[' in str(folder.absolute()):
    raise ValueError(
      f'workdir {folder.absolute()} has a bracket in its path, and its checkpoints could not be '
      'restored; use another --workdir, or a symbolic link to it without brackets'
    )
