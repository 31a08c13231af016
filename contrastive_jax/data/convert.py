"""Turns any source into shards: python -m contrastive_jax.data.convert SOURCE TARGET.

  python -m contrastive_jax.data.convert 'webdataset:gs://bucket/{00000..00099}.tar' /data/pairs
  python -m contrastive_jax.data.convert emoji webdataset:/data/emoji --split=train

SOURCE is what config.data.name may be. TARGET is a folder, for ArrayRecord, or FORMAT:FOLDER with
the format arrayrecord, webdataset or jsonl; the last line printed is the name to train with. Each
picture is decoded once, and what could not be trained on is left out and named in
FOLDER/SPLIT.convert.json. Each shard is read back before it counts as written. A conversion that
was stopped goes on, by the same command, after its last whole shard.
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
from contrastive_jax.data.batches import Skips
from contrastive_jax.data.captions import draw_caption
from contrastive_jax.data.pipeline import encoded_image
from contrastive_jax.data.sources import (
  Source,
  array_record,
  files,
  open_source,
  rows,
  webdataset,
)
from contrastive_jax.data.sources.source import place_of

# Each with the ending of its files, what writes one, and what reads some.
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
  """Writes a split of a source as shards; goes on where an earlier call of the same was stopped.

  Args:
    name: of the source, see `open_source`.
    target: 'FOLDER' or 'FORMAT:FOLDER', on a disk.
    split: see `open_source`.
    folder: see `open_source`.
    shard_size: examples read for a shard; those skipped are missing in it.
    tolerated: share of bad examples above which it stops.

  Returns:
    The report: the arguments, `examples` read, `written`, `skipped` (pairs of id and reason) and
    `name`, under which `open_source` finds the result.

  Raises:
    ValueError: if the source or the target cannot be used, or too many examples are bad.
    OSError: if a shard, read back, does not hold what was written.
  """
  style, place = _parse_target(target)
  ending, write, reader = _FORMATS[style]
  source = open_source(name, split, folder)
  stem = split.split('[')[0].strip()
  count = -(-len(source) // shard_size)
  asked = {'source': name, 'split': split, 'format': style, 'examples': len(source)}
  asked['shard_size'] = shard_size
  place.mkdir(parents=True, exist_ok=True)
  state = place / f'{stem}.convert.json'
  shards = _read_state(state, asked)
  for partial in place.glob(f'{stem}[-.]*.partial'):
    partial.unlink()  # Of a conversion that was killed.

  skips = Skips(len(source), tolerated)
  skips.seen = sum(shard['examples'] for shard in shards)
  skips.skipped = sum(len(shard['skipped']) for shard in shards)
  with _progress() as progress:
    task = progress.add_task(stem, total=len(source), completed=skips.seen)
    for number in range(len(shards), count):
      numbers = range(number * shard_size, min((number + 1) * shard_size, len(source)))
      skipped: list[list] = []
      path = place / f'{stem}-{number:05}-of-{count:05}.{ending}'
      good = _good(source, numbers, skips, skipped)
      write(str(path), progress.track(good, task_id=task, total=len(source)))
      _read_back(reader, path, len(numbers) - len(skipped))
      shards.append({'file': path.name, 'examples': len(numbers), 'skipped': skipped})
      with files.whole(str(state)) as partial:
        pathlib.Path(partial).write_text(json.dumps(asked | {'shards': shards}, indent=1))
      progress.update(task, completed=skips.seen)
  return asked | {
    'written': skips.seen - skips.skipped,
    'skipped': [pair for shard in shards for pair in shard['skipped']],
    'name': f'{style}:{place}/{{split}}-*.{ending}',
  }


def _parse_target(target: str) -> tuple[str, pathlib.Path]:
  style, separator, place = target.partition(':')
  if not separator:
    style, place = 'arrayrecord', target
  if style not in _FORMATS or place.startswith('//'):
    raise ValueError(
      f'TARGET = {target!r}; use a folder on a disk, or FORMAT:FOLDER with one of {[*_FORMATS]}'
    )
  if wild := sorted(set(place) & set('{}*?')):
    raise ValueError(
      f'TARGET = {target!r} has {wild}, which make a pattern of the name of a source; use a folder '
      'without'
    )
  return style, pathlib.Path(place)


def _read_state(path: pathlib.Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
  """The shards that an earlier call finished."""
  if not path.exists():
    return []
  state = json.loads(path.read_bytes())
  if different := {key: state.get(key) for key in asked if state.get(key) != asked[key]}:
    raise ValueError(
      f'{path} is of another conversion, with {different}; go on with that, or use another folder'
    )
  return state['shards']


def _good(source, numbers: range, skips: Skips, skipped: list) -> Iterator[dict[str, Any]]:
  """The examples that can be trained on; the others are added to `skipped`."""
  for number in numbers:
    example = source[number]
    if 'error' not in example:
      try:
        images.decode(encoded_image(example))
        if 'caption' in example:
          draw_caption(example, {'caption': 1.0}, np.random.default_rng(0))
      except ValueError as error:
        example = {'id': example['id'], 'error': f'{place_of(source, number)}: {error}'}
    if skips(example):
      # By its place in the order: a selection may show an example twice.
      yield example | {'id': number}
    else:
      skipped.append([example['id'], example['error']])


def _read_back(reader, path: pathlib.Path, count: int) -> None:
  """Reads each example of a shard, while what was written is still in memory."""
  if not count:
    return  # All its examples were bad, and readers refuse a file without any.
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
  """Converts, and prints the report."""
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
  # Here, as other commands of one process may have flags of the same names.
  flags.DEFINE_string('split', 'train', 'Split of the source, as config.data.split.')
  flags.DEFINE_string('folder', None, 'Of prepared TFDS data sets, as config.data.folder.')
  flags.DEFINE_integer('shard_size', 10_000, 'Examples of a shard.', lower_bound=1)
  flags.DEFINE_float('tolerated', 0.01, 'Share of bad examples that stops.', 0.0, 1.0)
  app.run(main)
