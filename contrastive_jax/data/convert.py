"""Converts any source to shards: python -m contrastive_jax.data.convert SOURCE TARGET.

  python -m contrastive_jax.data.convert 'webdataset:gs://bucket/{00000..00099}.tar' /data/pairs
  python -m contrastive_jax.data.convert emoji webdataset:/data/emoji --split=train

SOURCE is any value of config.data.name. TARGET is a folder, for ArrayRecord, or FORMAT:FOLDER with
the format arrayrecord, webdataset, parquet or jsonl; the last line printed is the name to train
with. Each image is decoded once. Bad examples are left out and listed in FOLDER/SPLIT.convert.json.
Each shard is read back before it counts as written. `--workers` processes, by default one per core,
write a shard each at a time. The same command resumes an interrupted conversion after the last
shard before which all are complete.
"""

import functools
import json
import multiprocessing
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import cloudpickle
import numpy as np
import rich.progress
from absl import app, flags, logging

from contrastive_jax.data import images
from contrastive_jax.data.batches import BadExamples
from contrastive_jax.data.captions import draw_caption
from contrastive_jax.data.cores import available_cores
from contrastive_jax.data.readers import encoded_image
from contrastive_jax.data.sources import (
  Source,
  array_record,
  files,
  open_source,
  optional,
  rows,
  webdataset,
)
from contrastive_jax.data.sources.source import location_of

# File extension, writer and reader per format.
_FORMATS = {
  'arrayrecord': ('array_record', array_record.write, array_record.ArrayRecords),
  'jsonl': ('jsonl', rows.write, functools.partial(rows.Rows, table=False)),
  'parquet': (
    'parquet',
    lambda path, records: optional.load('parquet').write(path, records),
    lambda paths: optional.load('parquet').Parquet(paths),
  ),
  'webdataset': ('tar', webdataset.write, webdataset.WebDataset),
}

# Seconds between updates of the progress bar.
_PROGRESS_SECONDS = 0.2
# The shards and the shared count of examples, in a worker process.
_worker: tuple['_Shards', Any]


def convert(
  name: str,
  target: str,
  *,
  split: str = 'train',
  folder: str | None = None,
  shard_size: int = 10_000,
  tolerated: float = 0.01,
  workers: int = 1,
) -> dict[str, Any]:
  """Writes a split of a source as shards; resumes an earlier call with the same arguments.

  Args:
    name: name of the source, see `open_source`.
    target: 'FOLDER' or 'FORMAT:FOLDER', on a disk.
    split: see `open_source`.
    folder: see `open_source`.
    shard_size: examples read per shard; a shard with bad examples holds fewer.
    tolerated: share of bad examples above which the conversion stops, after the shard at hand.
    workers: number of processes, each of which writes a shard at a time; the files are the same for
      any number. With several, they import the main module again.

  Returns:
    A report: the arguments, `examples` read, `written`, `skipped` (pairs of id and reason) and
    `name`, which `open_source` takes for the result.

  Raises:
    ValueError: if the source or the target cannot be used, or too many examples are bad.
    OSError: if a shard, read back, differs from the examples written.
  """
  style, target_folder = _parse_target(target)
  source = open_source(name, split, folder)
  stem = split.split('[')[0].strip()
  shards_of = _Shards(source, style, target_folder, stem, shard_size)
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
    show = functools.partial(progress.advance, task)
    for number, skipped in _written(shards_of, range(len(shards), shards_of.count), workers, show):
      numbers = shards_of.numbers(number)
      for position in numbers:
        bad_examples(skipped.get(position, {}))
      pairs = [[example['id'], example['error']] for example in skipped.values()]
      shards.append(
        {'file': shards_of.path(number).name, 'examples': len(numbers), 'skipped': pairs}
      )
      with files.atomic_write(str(state)) as partial:
        pathlib.Path(partial).write_text(json.dumps(asked | {'shards': shards}, indent=1))
  return asked | {
    'written': bad_examples.seen - bad_examples.skipped,
    'skipped': [pair for shard in shards for pair in shard['skipped']],
    'name': f'{style}:{target_folder}/{{split}}-*.{shards_of.ending}',
  }


class _Shards:
  """Writes the shards of a source, each by its number.

  Attributes:
    count: number of shards.
    ending: of their files.
  """

  def __init__(self, source, style: str, folder: pathlib.Path, stem: str, size: int):
    """Writes nothing yet; see `convert` for the arguments."""
    self._source, self._style, self._folder = source, style, folder
    self._stem, self._size = stem, size
    self.count = -(-len(source) // size)
    self.ending = _FORMATS[style][0]

  def numbers(self, shard: int) -> range:
    """Returns the numbers of a shard's examples in the source."""
    return range(shard * self._size, min((shard + 1) * self._size, len(self._source)))

  def path(self, shard: int) -> pathlib.Path:
    """Returns the path of a shard."""
    return self._folder / f'{self._stem}-{shard:05}-of-{self.count:05}.{self.ending}'

  def write(self, shard: int, advance: Callable[[], None]) -> dict[int, dict[str, Any]]:
    """Writes a shard and reads it back.

    Args:
      shard: its number.
      advance: called after each example.

    Returns:
      The bad examples that were left out, with `id` and `error`, by their number in the source.
    """
    _, write, reader = _FORMATS[self._style]
    skipped: dict[int, dict[str, Any]] = {}
    numbers, path = self.numbers(shard), self.path(shard)
    write(str(path), _good(self._source, numbers, skipped, advance))
    _read_back(reader, path, len(numbers) - len(skipped))
    return skipped


def _written(
  shards: _Shards, numbers: range, workers: int, advance: Callable[[int], None]
) -> Iterator[tuple[int, dict[int, dict[str, Any]]]]:
  """Writes shards, several at a time; yields each with its bad examples, in order.

  Args:
    shards: the shards.
    numbers: numbers of the shards to write.
    workers: number of processes; with one it is this process.
    advance: called with the number of examples read since the last call.
  """
  if (workers := min(workers, len(numbers))) < 2:
    for number in numbers:
      yield number, shards.write(number, lambda: advance(1))
    return
  context = multiprocessing.get_context('spawn')
  read, shown = context.Value('q', 0), 0
  with futures.ProcessPoolExecutor(
    workers, context, _start_worker, (cloudpickle.dumps(shards), read)
  ) as pool:
    pending = [pool.submit(_write_in_worker, number) for number in numbers]
    try:
      for number, written in zip(numbers, pending, strict=True):
        done = False
        while not done:
          done = bool(futures.wait([written], _PROGRESS_SECONDS).done)
          advance((seen := read.value) - shown)
          shown = seen
        yield number, written.result()
    finally:
      pool.shutdown(cancel_futures=True)


def _start_worker(shards: bytes, read) -> None:
  """Keeps what a worker process writes, and ends it with its parent, however that ends."""
  global _worker
  _worker = cloudpickle.loads(shards), read

  def follow():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=follow, daemon=True).start()


def _write_in_worker(number: int) -> dict[int, dict[str, Any]]:
  shards, read = _worker

  def advance():
    with read.get_lock():
      read.value += 1

  return shards.write(number, advance)


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


def _good(
  source, numbers: range, skipped: dict[int, dict[str, Any]], advance: Callable[[], None]
) -> Iterator[dict]:
  """Yields the good examples; adds the others to `skipped` by their number."""
  for number in numbers:
    example = source[number]
    if 'error' not in example:
      try:
        images.decode(encoded_image(example))
        if 'caption' in example:
          draw_caption(example, {'caption': 1.0}, np.random.default_rng(0))
      except ValueError as error:
        example = {'id': example['id'], 'error': f'{location_of(source, number)}: {error}'}
    if 'error' in example:
      skipped[number] = example
    else:
      # Ids count positions in the selection, which may show an example twice.
      yield example | {'id': number}
    advance()


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
  names = ('split', 'folder', 'shard_size', 'tolerated', 'workers')
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
  flags.DEFINE_integer('workers', available_cores(), 'Processes that write shards.', lower_bound=1)
  app.run(main)
