"""Converts any source to shards: python -m contrastive_jax.data.convert SOURCE TARGET.

  python -m contrastive_jax.data.convert 'webdataset:gs://bucket/{00000..00099}.tar' /data/pairs
  python -m contrastive_jax.data.convert emoji webdataset:/data/emoji --split=train

SOURCE is any value of config.data.name. TARGET is a folder, for ArrayRecord, or FORMAT:FOLDER with
the format arrayrecord, webdataset or jsonl; the last line printed is the name to train with. Each
image is decoded once. Bad examples are left out and listed in FOLDER/SPLIT.convert.json. Each shard
is read back before it counts as written. The same command resumes an interrupted conversion after
its last complete shard.
"""

import functools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import rich.progress
from absl import app, flags, logging

from contrastive_jax.data import images
from contrastive_jax.data.batches import BadExamples
from contrastive_jax.data.captions import draw_caption
from contrastive_jax.data.readers import encoded_image
from contrastive_jax.data.sources import (
  Source,
  array_record,
  files,
  open_source,
  rows,
  webdataset,
)
from contrastive_jax.data.sources.source import location_of

# File extension, writer and reader per format.
_FORMATS = {
  'arrayrecord': ('array_record', array_record.write, array_record.ArrayRecords),
  'jsonl': ('jsonl', rows.write, functools.partial(rows.Rows, table=False)),
  'webdataset': ('tar', webdataset.write, webdataset.WebDataset),
}


def convert(
  name: str,
  target: str,
  *,
  split: str = 'train',
  folder: str | None = None,
  shard_size: int = 10_000,
  tolerated: float = 0.01,
) -> dict[str, Any]:
  """Writes a split of a source as shards; resumes an earlier call with the same arguments.

  Args:
    name: name of the source, see `open_source`.
    target: 'FOLDER' or 'FORMAT:FOLDER', on a disk.
    split: see `open_source`.
    folder: see `open_source`.
    shard_size: examples read per shard; a shard with bad examples holds fewer.
    tolerated: share of bad examples above which the conversion stops.

  Returns:
    A report: the arguments, `examples` read, `written`, `skipped` (pairs of id and reason) and
    `name`, which `open_source` takes for the result.

  Raises:
    ValueError: if the source or the target cannot be used, or too many examples are bad.
    OSError: if a shard, read back, differs from the examples written.
  """
  style, target_folder = _parse_target(target)
  ending, write, reader = _FORMATS[style]
  source = open_source(name, split, folder)
  stem = split.split('[')[0].strip()
  count = -(-len(source) // shard_size)
  asked = {'source': name, 'split': split, 'format': style, 'examples': len(source)}
  asked['shard_size'] = shard_size
  target_folder.mkdir(parents=True, exist_ok=True)
  state = target_folder / f'{stem}.convert.json'
  shards = _read_state(state, asked)
  for partial in target_folder.glob(f'{stem}[-.]*.partial'):
    partial.unlink()  # left by a killed conversion

  bad_examples = BadExamples(len(source), tolerated)
  bad_examples.seen = sum(shard['examples'] for shard in shards)
  bad_examples.skipped = sum(len(shard['skipped']) for shard in shards)
  with _progress() as progress:
    task = progress.add_task(stem, total=len(source), completed=bad_examples.seen)
    for number in range(len(shards), count):
      numbers = range(number * shard_size, min((number + 1) * shard_size, len(source)))
      skipped: list[list] = []
      path = target_folder / f'{stem}-{number:05}-of-{count:05}.{ending}'
      good = _good(source, numbers, bad_examples, skipped)
      write(str(path), progress.track(good, task_id=task, total=len(source)))
      _read_back(reader, path, len(numbers) - len(skipped))
      shards.append({'file': path.name, 'examples': len(numbers), 'skipped': skipped})
      with files.atomic_write(str(state)) as partial:
        pathlib.Path(partial).write_text(json.dumps(asked | {'shards': shards}, indent=1))
      progress.update(task, completed=bad_examples.seen)
  return asked | {
    'written': bad_examples.seen - bad_examples.skipped,
    'skipped': [pair for shard in shards for pair in shard['skipped']],
    'name': f'{style}:{target_folder}/{{split}}-*.{ending}',
  }


def _parse_target(target: str) -> tuple[str, pathlib.Path]:
  style, separator, target_folder = target.partition(':')
  if not separator:
    style, target_folder = 'arrayrecord', target
  if style not in _FORMATS or target_folder.startswith('//'):
    raise ValueError(
      f'TARGET = {target!r}; use a folder on a disk, or FORMAT:FOLDER with one of {[*_FORMATS]}'
    )
  if wild := sorted(set(target_folder) & set('{}*?')):
    raise ValueError(
      f'TARGET = {target!r} has {wild}, which make a pattern of the name of a source; use a folder '
      'without'
    )
  return style, pathlib.Path(target_folder)


def _read_state(path: pathlib.Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns the shards that an earlier call finished."""
  if not path.exists():
    return []
  state = json.loads(path.read_bytes())
  if different := {key: state.get(key) for key in asked if state.get(key) != asked[key]}:
    raise ValueError(
      f'{path} is of another conversion, with {different}; resume that, or use another folder'
    )
  return state['shards']


def _good(source, numbers: range, bad_examples: BadExamples, skipped: list) -> Iterator[dict]:
  """Yields the good examples; appends the others to `skipped`."""
  for number in numbers:
    example = source[number]
    if 'error' not in example:
      try:
        images.decode(encoded_image(example))
        if 'caption' in example:
          draw_caption(example, {'caption': 1.0}, np.random.default_rng(0))
      except ValueError as error:
        example = {'id': example['id'], 'error': f'{location_of(source, number)}: {error}'}
    if bad_examples(example):
      # Ids count positions in the selection, which may show an example twice.
      yield example | {'id': number}
    else:
      skipped.append([example['id'], example['error']])


def _read_back(reader, path: pathlib.Path, count: int) -> None:
  """Reads each example of a shard while it is still in the page cache."""
  if not count:
    return  # All examples were bad, and readers refuse an empty file.
  read = Source(reader([str(path)]))
  bad = [read[number]['error'] for number in range(len(read)) if 'error' in read[number]]
  if bad or len(read) != count:
    raise OSError(
      f'{path} holds {len(read) - len(bad)} of the {count} examples that were written '
      f'({bad[:1] or "the others are missing"}); give the same command again, which writes it anew'
    )


def _progress() -> rich.progress.Progress:
  return rich.progress.Progress(
    *rich.progress.Progress.get_default_columns(),
    rich.progress.MofNCompleteColumn(),
    console=rich.console.Console(stderr=True),
  )


def main(arguments: list[str]) -> None:
  """Converts a source and prints the report."""
  logging.set_verbosity(logging.WARNING)
  if len(arguments) != 3:
    raise app.UsageError('give SOURCE and TARGET')
  _, name, target = arguments
  names = ('split', 'folder', 'shard_size', 'tolerated')
  report = convert(name, target, **{name: flags.FLAGS[name].value for name in names})
  print(
    f'wrote {report["written"]:,} of {report["examples"]:,} examples, '
    f'skipped {len(report["skipped"]):,}'
  )
  for number, reason in report['skipped'][:10]:
    print(f'  {number}: {reason}')
  print(f'--config.data.name={report["name"]}')


if __name__ == '__main__':
  # Flags are defined here because other modules in the process may define the same names.
  flags.DEFINE_string('split', 'train', 'Split of the source, as config.data.split.')
  flags.DEFINE_string('folder', None, 'Folder of prepared TFDS datasets, as config.data.folder.')
  flags.DEFINE_integer('shard_size', 10_000, 'Examples per shard.', lower_bound=1)
  flags.DEFINE_float('tolerated', 0.01, 'Share of bad examples above which to stop.', 0.0, 1.0)
  app.run(main)
