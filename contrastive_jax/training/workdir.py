"""The folder of a run, which belongs to one config."""

import fcntl
import functools
import json
import pathlib
import re
from typing import Any

from absl import logging
from ml_collections import ConfigDict

# Fields that may change on resume: they say how a run is computed, kept, and evaluated.
_FREE = re.compile(
  r'config\.(mesh|sharding\..*|micro_batches|model\.remat|data\.(folder|workers)|profile'
  r'|(log|evaluate|checkpoint)_every|keep_checkpoints|keep_best|evaluation\..*|bad_steps\.action)'
)
# Fields that later versions added, by path, with the value that keeps what earlier versions did.
_ADDED = {
  'optimizer.max_scale': 100.0,
  'augment_on': 'device',
  'views': 1,
  'texts': 1,
  'data.prompts': (),
  'data.subset': 1.0,
  'data.replacement': True,
  'data.workers': 0,
  'data.second_captions': '',
  'data.numbers': (),
  'data.nodes': (),
  'evaluation.second_texts': (),
  'data.labels': '',
  'data.examples': 0,
  'teacher': '',
  'evaluate_target': '',
  'average_decay': 0.0,
}
_LOCKS = []  # The files stay open, and so locked, for as long as the process lives.


def default_workdir(config: ConfigDict) -> pathlib.Path:
  """runs/NAME-VARIANT."""
  return pathlib.Path('runs') / f'{config.name}-{config.variant}'


def read_config(workdir: pathlib.Path) -> ConfigDict:
  """The config of an existing run, upgraded to this version's fields.

  Raises:
    ValueError: if the folder holds no run.
  """
  path = workdir / 'config.json'
  if not path.exists():
    raise ValueError(f'workdir {workdir} holds no run (no config.json); train one first')
  return upgrade(ConfigDict(json.loads(path.read_text())))


def upgrade(config: ConfigDict) -> ConfigDict:
  """Returns a copy of the config with the fields that later versions added.

  Their values keep what the version did that wrote the config.
  """
  fields = config.to_dict()
  sigmoid = fields.get('objective', {}).get('sigmoid')
  if sigmoid is not None and 'max_scale' not in fields.get('optimizer', {}):
    # The sigmoid loss took equal captions for negatives before `max_scale` was a field.
    options = sigmoid if isinstance(sigmoid, dict) else {'weight': sigmoid}
    fields['objective']['sigmoid'] = {'same': None} | options
  for path, value in _ADDED.items():
    *sections, name = path.split('.')
    section = functools.reduce(lambda node, key: node.setdefault(key, {}), sections, fields)
    section.setdefault(name, value)
  return ConfigDict(fields)


def has_checkpoint(workdir: pathlib.Path) -> bool:
  """Whether the folder holds a finished checkpoint, from which its run goes on."""
  # Unfinished and damaged checkpoints have longer names.
  folders = (workdir / 'checkpoints').glob('*')
  return any(folder.name.isdigit() and folder.is_dir() for folder in folders)


def claim(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Makes the folder the run's, or checks that it is, and this process its only one.

  Fields of `_FREE` may change on resume, and config.json follows. `init_from` may be left out once
  there is a checkpoint, and stays on record.

  Raises:
    ValueError: if it cannot be written, if another process has it, or if it belongs to a run of
      another config; names the fields that differ.
  """
  path = workdir / 'config.json'
  config = upgrade(config)
  if path.exists():
    before = read_config(workdir)
    if before.get('init_from') and not config.get('init_from') and has_checkpoint(workdir):
      config.init_from = before.init_from
    theirs, ours = _flat(before), _flat(config)
    differing = [
      f'{field} = {theirs.get(field, "absent")!r} there, {ours.get(field, "absent")!r} here'
      for field in sorted(theirs.keys() | ours.keys())
      if theirs.get(field) != ours.get(field) and not _FREE.fullmatch(field)
    ]
    if differing:
      raise ValueError(
        f'workdir {workdir} belongs to a run of another config; choose another --workdir, or '
        'give the same config (leave out --config to continue that run). It differs in: '
        f'{"; ".join(differing)}'
      )
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    _lock(workdir)
    written = json.dumps(config.to_dict(), indent=2) + '\n'
    if not path.exists() or path.read_text() != written:
      path.write_text(written)
  except OSError as error:
    raise ValueError(
      f'workdir {workdir} cannot be written: {error}; choose another --workdir'
    ) from error


def _lock(workdir):
  """Locks the folder against other processes; a process that dies gives it up."""
  file = (workdir / 'lock').open('w')
  try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except (BlockingIOError, PermissionError):
    file.close()
    raise ValueError(
      f'workdir {workdir} is in use by another process; wait for it, or choose another --workdir'
    ) from None
  except OSError as error:
    logging.warning('workdir %s cannot be locked against a second run: %s', workdir, error)
  _LOCKS.append(file)


def _flat(node: Any, prefix: str = 'config') -> dict[str, Any]:
  if isinstance(node, ConfigDict):
    node = json.loads(json.dumps(node.to_dict()))
  if not isinstance(node, dict):
    return {prefix: node}
  return {k: v for key, child in node.items() for k, v in _flat(child, f'{prefix}.{key}').items()}
