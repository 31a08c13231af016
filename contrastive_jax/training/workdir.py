"""The workdir: the folder of a run, with its config and lock."""

import contextlib
import fcntl
import functools
import json
import pathlib
import re
from collections.abc import Iterator
from typing import IO

from absl import logging
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from contrastive_jax.runtime import buckets
from contrastive_jax.runtime.lease import Lease
from contrastive_jax.runtime.waiting import waiting

# Fields that may change on resume: they do not affect what is trained.
_CHANGEABLE = re.compile(
  r'config\.(mesh|gather_bytes|xla_flags|sharding\..*|micro_batches|data\.(folder|workers)|profile'
  r'|model\.((image|text|decoder)\.)?(remat|attention)'
  r'|tracker(_options(\..*)?)?|(log|evaluate|checkpoint)_every|keep_checkpoints|keep_best'
  r'|evaluation\..*|bad_steps\.action)'
)
# Fields added by later versions, with the values that keep the behavior of earlier versions.
_ADDED_FIELDS = {
  'optimizer.max_scale': 100.0,
  'optimizer.name': 'adamw',
  'optimizer.decay': 'cosine',
  'optimizer.cooldown_fraction': 0.0,
  'optimizer.timescale': 10_000,
  'unmasked_fraction': 0.0,
  'init_towers': (),
  'augment_on': 'device',
  'view_augmentation': {},
  'views': 1,
  'texts': 1,
  'data.prompts': (),
  'data.mean': (),
  'data.std': (),
  'data.subset': 1.0,
  'data.replacement': True,
  'data.shuffle': 'global',
  'data.shuffle_buffer': 65_536,
  'data.workers': 0,
  'data.sequence_lengths': (),
  'data.patch_sizes': (),
  'data.batch_multiple': 8,
  'data.text_augmentation': {
    'drop_stop_words': 0.0,
    'synonyms': 0.0,
    'swap': 0.0,
    'delete': 0.0,
    'synonyms_from': 'wordnet',
    'first': 'none',
  },
  'evaluation.sequence_length': 0,
  'data.second_captions': '',
  'data.numbers': (),
  'data.nodes': (),
  'evaluation.second_texts': (),
  'evaluation.arithmetic': (),
  'data.labels': '',
  'data.classes': 0,
  'data.number': '',
  'evaluation.numbers': (),
  'data.audio': (),
  'data.voices': 1,
  'data.audio_seconds': 2.0,
  'data.examples': 0,
  'data.negatives': 0,
  'data.negative_rules': (),
  'data.negative_captions': '',
  'teacher': '',
  'evaluate_target': '',
  'average_decay': 0.0,
  'model.attention': 'xla',
  'gather_bytes': 0,
  'matmul_precision': 'highest',
  'xla_flags': '',
  'tracker': '',
  'tracker_options': {},
}
_LOCK_FILES: list[IO[str]] = []  # Open files hold their locks until the process ends.
_LEASES: list[Lease] = []  # Locks of workdirs in buckets.


def default_workdir(config: ConfigDict) -> pathlib.Path:
  """Returns runs/NAME-VARIANT, the workdir without --workdir."""
  return pathlib.Path('runs') / f'{config.name}-{config.variant}'


def read_config(workdir: pathlib.Path) -> ConfigDict:
  """Reads the config of a run, and adds the fields of later versions.

  Raises:
    ValueError: if the folder contains no run.
  """
  path = workdir / 'config.json'
  with waiting(f'reading {path}'):
    if not path.exists():
      raise ValueError(f'workdir {workdir} holds no run (no config.json); train one first')
    return upgrade(ConfigDict(json.loads(path.read_text())))


def upgrade(config: ConfigDict) -> ConfigDict:
  """Returns a copy of the config with the fields that later versions added.

  Their values keep the behavior of the version that wrote the config. A config of a task has fields
  of its own.
  """
  fields = config.to_dict()
  if 'task' in fields:
    return ConfigDict(fields)
  sigmoid = fields.get('objective', {}).get('sigmoid')
  if sigmoid is not None and 'max_scale' not in fields.get('optimizer', {}):
    # Versions without `max_scale` treated equal captions as negatives in the sigmoid loss.
    options = sigmoid if isinstance(sigmoid, dict) else {'weight': sigmoid}
    fields['objective']['sigmoid'] = {'same': None} | options
  rates = fields.get('optimizer', {}).get('rates', ())
  normalized = fields.get('model', {}).get('image', {}).get('stem_norm') == 'batch'
  if rates and normalized and 'mean' not in fields.get('data', {}):
    # Versions without `data.mean` moved the running statistics of frozen towers.
    fields['optimizer']['rates'] = (('.*/(mean|variance)', 1.0), *rates)
  if fields.get('data', {}).get('name') == 'emoji' and 'sequence_lengths' not in fields['data']:
    # Versions without `data.sequence_lengths` had two styles in the split 'train'.
    fields['data']['split'] = _of_two_styles(fields['data']['split'])
    evaluation = fields.get('evaluation', {})
    for name in ('probe_split', 'partners'):
      if evaluation.get(name):
        evaluation[name] = _of_two_styles(evaluation[name])
  for path, value in _ADDED_FIELDS.items():
    *sections, name = path.split('.')
    section = functools.reduce(lambda node, key: node.setdefault(key, {}), sections, fields)
    section.setdefault(name, value)
  return ConfigDict(fields)


def _of_two_styles(split: str) -> str:
  """Restricts a split of the emoji to Noto and Twemoji.

  >>> _of_two_styles('train[skin_tone=]+train+train[vendor=noto]')
  'train[vendor=noto|twemoji,skin_tone=]+train[vendor=noto|twemoji]+train[vendor=noto]'
  """
  return re.sub(
    r'\btrain(?:\[(?!vendor=)(?=[^\]]*[=<>])([^\]]*)\]|(?=\+|$))',
    lambda match: f'train[{",".join(filter(None, ("vendor=noto|twemoji", match[1])))}]',
    split,
  )


def finished_steps(workdir: pathlib.Path) -> list[int]:
  """Steps of the finished checkpoints; unfinished and damaged ones have longer names."""
  folders = (workdir / 'checkpoints').glob('*')
  return [int(folder.name) for folder in folders if folder.name.isdigit() and _is_complete(folder)]


def _is_complete(checkpoint: pathlib.Path) -> bool:
  if buckets.is_bucket(checkpoint):  # where it has its name from the start
    return (checkpoint / buckets.COMMITTED).exists()
  return checkpoint.is_dir()


def has_checkpoint(workdir: pathlib.Path) -> bool:
  """Whether the folder contains a finished checkpoint to resume from."""
  return bool(finished_steps(workdir))


def lock(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Locks a workdir for this process, and writes the config to it.

  On resume, fields matched by `_CHANGEABLE` may change, and config.json is updated. `init_from` may
  be omitted once there is a checkpoint; config.json keeps it.

  Args:
    workdir: folder of the run; created if missing.
    config: config of the run.

  Raises:
    ValueError: if the folder cannot be written, is in use by another process, or belongs to a run
      of another config, whose differing fields are named.
  """
  path = workdir / 'config.json'
  config = upgrade(config)
  if path.exists():
    existing = read_config(workdir)
    if existing.get('init_from') and not config.get('init_from') and has_checkpoint(workdir):
      config.init_from = existing.init_from
    old, new = (
      # As in the file, where tuples are lists.
      flatten_dict({'config': json.loads(json.dumps(each.to_dict()))}, sep='.')
      for each in (existing, config)
    )
    differing = [
      f'{field} = {old.get(field, "absent")!r} there, {new.get(field, "absent")!r} here'
      for field in sorted(old.keys() | new.keys())
      if old.get(field) != new.get(field) and not _CHANGEABLE.fullmatch(field)
    ]
    if differing:
      raise ValueError(
        f'workdir {workdir} belongs to a run of another config; choose another --workdir, or '
        'give the same config (leave out --config to resume that run). It differs in: '
        f'{"; ".join(differing)}'
      )
  try:
    if buckets.is_bucket(workdir):
      _LEASES.append(Lease(workdir))
    else:
      workdir.mkdir(parents=True, exist_ok=True)
      _lock_file(workdir / 'lock')
    text = json.dumps(config.to_dict(), indent=2) + '\n'
    if not path.exists() or path.read_text() != text:
      path.write_text(text)
  except OSError as error:
    raise ValueError(
      f'workdir {workdir} cannot be written: {error}; choose another --workdir'
    ) from error


@contextlib.contextmanager
def unlocking() -> Iterator[None]:
  """A context that releases the locks of this process at its end, however it ends."""
  try:
    yield
  finally:
    while _LEASES:
      _LEASES.pop().release()


def _lock_file(path: pathlib.Path) -> None:
  """Locks a file until this process ends, however it ends."""
  file = path.open('w')
  try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except (BlockingIOError, PermissionError):
    file.close()
    raise ValueError(
      f'workdir {path.parent} is in use by another process; wait for it, or choose another '
      '--workdir'
    ) from None
  except OSError as error:
    logging.warning('workdir %s cannot be locked against a second run: %s', path.parent, error)
  _LOCK_FILES.append(file)
