"""Checks of command line flags, and what is set up by a config before anything is computed."""

import itertools
import pathlib
from collections.abc import Iterator, Sequence

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from contrastive_jax.runtime import buckets, compilation_cache, cpu, xla


class _OptionalFloat(flags.FloatParser):
  """Reads a number, or None."""

  # absl's parser returns numbers alone.
  def parse(self, argument: str | float) -> float | None:  # type: ignore[override]
    return None if argument == 'None' else super().parse(argument)


def accept_none() -> None:
  """Allows None for float fields of a config, and numbers for fields that are None.

  As in --config.optimizer.clip_norm=None and --config.objective.decoupled.sigma=0.5.
  """
  for kind in (float, type(None)):
    config_flags.register_flag_parser_for_type(kind, _OptionalFloat())


def check_flags(arguments: Sequence[str], known: flags.FlagValues = flags.FLAGS) -> None:
  """Checks that no flag is given twice with different values.

  Adjacent duplicates are an error: a shell produces them from unquoted braces. Other duplicates,
  such as flags that a script appends to its own, give a warning, and the last value is used. Flags
  of tuples, such as --config.evaluation.splits, may be repeated.

  Args:
    arguments: the command line, without the program.
    known: the flags parsed from it.

  Raises:
    ValueError: if adjacent duplicates differ; names the flag and both values.
  """
  given: dict[str, str] = {}
  previous = None
  for name, value in _single_values(arguments, known):
    if name in given and given[name] != value:
      message = f'--{name} is given twice, as {given[name]!r} and as {value!r}'
      if name == previous:
        raise ValueError(
          f'{message}; give it once. Quote braces, which a shell expands to several flags: '
          f"'--{name}=...{{00..99}}...'"
        )
      logging.warning('%s; the last is used', message)
    given[name] = value
    previous = name


def _single_values(arguments, known) -> Iterator[tuple[str, str]]:
  """Yields names and values of the flags that take a single value."""
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


def check_saves(folder: pathlib.Path) -> None:
  """Checks that checkpoints saved in a workdir can be restored.

  Raises:
    ValueError: if the path contains a bracket, or it is in a bucket that cannot be written.
  """
  # Orbax lists its files by a glob pattern that contains the path unescaped.
  if '[' in str(folder.absolute()):
    raise ValueError(
      f'workdir {folder.absolute()} has a bracket in its path, so checkpoints could not be '
      'restored; use another --workdir, or a symbolic link to it without brackets'
    )
  if buckets.is_bucket(folder):
    buckets.check_writable(folder)


def set_up_programs(config: ConfigDict) -> None:
  """Sets XLA's flags and the precision of products; call before JAX's first computation."""
  xla.set_flags(config.xla_flags)
  if config.matmul_precision != 'highest':  # the models' own default
    jax.config.update('jax_default_matmul_precision', config.matmul_precision)


def set_up_process(config: ConfigDict) -> None:
  """Makes CPU cores devices, and keeps memory and programs; call before the first computation."""
  cpu.split_cores(spare_threads=not runs_collectives_in_turn(config))
  cpu.keep_memory()
  compilation_cache.keep_programs()


def runs_collectives_in_turn(config: ConfigDict) -> bool:
  """Whether a step of a config has one collective at a time; see `cpu.reserve_threads`.

  So has a single loss of pairs on a mesh of 'data'. Sharded parameters are gathered side by side,
  and gradients are summed beside the statistics of batch norms.
  """
  losses, mesh = [*config.get('objective', ())], config.get('mesh', '')
  image = config.get('model', {}).get('image', {})
  has_batch_norm = image.get('tower', 'vit') != 'vit' or image.get('stem') == 'nested'
  has_batch_norm = has_batch_norm or image.get('stem_norm') == 'batch'
  pairs_alone = losses in (['info_nce'], ['sigmoid'])
  return pairs_alone and not has_batch_norm and 'fsdp' not in mesh and 'tensor' not in mesh
