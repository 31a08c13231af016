"""Results of benchmarks: a JSON file per source, and a CSV with the columns of CLIP_benchmark."""

import csv
import io
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from contrastive_jax.evaluation.retrieval import RECALLS

CSV = 'benchmark.csv'

# The columns of `clip_benchmark build` in version 1.6.2, which writes them in any order, and the
# names of the metrics here.
_CLASSIFICATION = {
  'acc1': 'accuracy@1',
  'acc5': 'accuracy@5',
  'mean_per_class_recall': 'mean_per_class_recall',
}
_RETRIEVAL = {
  f'{theirs}_retrieval_recall@{k}': f'{ours}_recall@{k}'
  for theirs, ours in (('image', 'text_to_image'), ('text', 'image_to_text'))
  for k in RECALLS
}
_COLUMNS = (
  *_CLASSIFICATION,
  *_RETRIEVAL,
  *('dataset', 'model', 'pretrained', 'task', 'language', 'model_fullname'),
)


def path_of(folder: pathlib.Path, name: str) -> pathlib.Path:
  """Returns the path of the JSON file of a source."""
  slug = ''.join(letter if letter.isalnum() or letter in '-_.' else '_' for letter in name)
  return folder / f'benchmark_{slug.strip("_")}.json'


def prepare(folder: pathlib.Path, pretrained: str, names: Collection[str]) -> None:
  """Creates the folder of the results, and checks that it holds none of another model.

  Args:
    folder: the folder.
    pretrained: path of the model.
    names: the names of the sources.

  Raises:
    ValueError: if it cannot be written, a file holds results of another model, or two names have
      the same file.
  """
  paths = {path_of(folder, name) for name in names}
  if len(paths) < len(names):
    raise ValueError(f'--data: two of {[*names]} have the same file; write NAME=SOURCE for each')
  try:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
      if path.exists() and (other := json.loads(path.read_text()).get('pretrained')) != pretrained:
        raise ValueError(f'{path} holds results of {other}; give another --workdir')
  except OSError as error:
    raise ValueError(f'{folder} cannot be written: {error}; give a --workdir') from error


def write(folder: pathlib.Path, record: Mapping[str, Any]) -> None:
  """Writes the JSON file of a source, and the CSV of all sources in the folder.

  Args:
    folder: folder of the results.
    record: `dataset`, `model`, `pretrained`, `metrics` by the names of `Evaluator`, and `classes`,
      the number of classes by field; other entries are kept.
  """
  path_of(folder, record['dataset']).write_text(json.dumps(record, indent=2) + '\n')
  lines = io.StringIO()
  table = csv.DictWriter(lines, _COLUMNS, restval='', lineterminator='\n')
  table.writeheader()
  for path in sorted(folder.glob('benchmark_*.json')):
    table.writerows(rows(json.loads(path.read_text())))
  (folder / CSV).write_text(lines.getvalue())


def rows(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
  """Yields the row of each task of a record.

  As there, acc5 is NaN for fewer than five classes. Where a source has several fields of labels,
  the data set of each is 'NAME/FIELD'.
  """
  metrics, classes = record['metrics'], record['classes']
  model = {
    'model': record['model'],
    'pretrained': record['pretrained'],
    'language': 'en',  # their default
    'model_fullname': f'{record["model"]} {record["pretrained"]}',
  }
  for field, count in classes.items():
    name = record['dataset'] if len(classes) == 1 else f'{record["dataset"]}/{field}'
    own = {k: metrics[f'zero_shot_{field}_{ours}'] for k, ours in _CLASSIFICATION.items()}
    own |= {} if count >= 5 else {'acc5': float('nan')}
    yield {'dataset': name, 'task': 'zeroshot_classification', **model, **own}
  if metrics.keys() >= set(_RETRIEVAL.values()):
    own = {theirs: metrics[ours] for theirs, ours in _RETRIEVAL.items()}
    yield {'dataset': record['dataset'], 'task': 'zeroshot_retrieval', **model, **own}
