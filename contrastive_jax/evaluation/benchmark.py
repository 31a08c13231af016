"""Zero-shot classification and retrieval on any source, by the protocols of CLIP_benchmark.

See https://github.com/LAION-AI/CLIP_benchmark.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from jax.sharding import Mesh

from contrastive_jax import data
from contrastive_jax.data.captions import is_joined
from contrastive_jax.data.sources import files
from contrastive_jax.data.sources.source import named_split
from contrastive_jax.evaluation.encoder import Encoder
from contrastive_jax.evaluation.retrieval import RECALLS, retrieve
from contrastive_jax.evaluation.splits import Split, read_fields, warn_of_repeats
from contrastive_jax.evaluation.zero_shot import (
  ACCURACIES,
  class_embeddings,
  classify,
  read_classes,
  read_templates,
)

RETRIEVAL, ZERO_SHOT = 'retrieval', 'zero_shot'

# Fields by task, of which a source's first one is the default.
_FIELDS = {RETRIEVAL: ('captions', 'caption'), ZERO_SHOT: ('label',)}
# Prompts of a source that has none of its own: CLIP's 80, the default of CLIP_benchmark too.
_TEMPLATES = ('imagenet',)
# The file of the prompts of a set of CLIP_benchmark.
_OWN_TEMPLATES = 'zeroshot_classification_templates'


class Benchmark(NamedTuple):
  """N examples, and the tasks on them.

  Attributes:
    name: its name in the results.
    split: the examples.
    texts: the captions of each image, N lists; None without retrieval.
    labels: N labels by field; empty without classification.
    classes: class names by label, by field.
    templates: prompts of a class, with `{}` for its name.
  """

  name: str
  split: Split
  texts: Sequence[Sequence[str]] | None
  labels: Mapping[str, Sequence[str]]
  classes: Mapping[str, Mapping[str, str]]
  templates: Sequence[str]


def parse_sources(line: str) -> dict[str, str]:
  """Parses sources separated by commas; returns them by name.

  A source without a name, as in 'NAME=SOURCE', is its own. Commas within braces and brackets
  separate nothing.

  >>> parse_sources('emoji:heldout_style,coco=webdataset:/data/coco-{0,1}.tar')
  {'emoji:heldout_style': 'emoji:heldout_style', 'coco': 'webdataset:/data/coco-{0,1}.tar'}

  Raises:
    ValueError: if there are none, or two have the same name.
  """
  named = {}
  for part in re.split(r',(?![^{]*\})(?![^\[]*\])', line):
    match = re.fullmatch(r'(?:([\w.-]+)=)?(.+)', part.strip())
    name, source = (match[1] or match[2], match[2]) if match else ('', '')
    if not source or name in named:
      raise ValueError(
        f'--data={line} has {"two sources named " + repr(name) if source else "an empty source"}; '
        'write SOURCE,SOURCE or NAME=SOURCE,NAME=SOURCE'
      )
    named[name] = source
  return named


def open_named(source: str, open_source: Callable[..., data.Source]) -> data.Source:
  """Opens 'SOURCE' or 'SOURCE:SPLIT', by default the split 'train'.

  Args:
    source: a name for `data.open_source`; a split follows a path or a TFDS name after a colon, as
      in 'karpathy:/data/dataset_coco.json:test'.
    open_source: `data.open_source`, or a function like it.

  Raises:
    ValueError: if it cannot be opened.
  """
  match = re.fullmatch(r'(emoji|\w+:.+):([A-Za-z_]\w*(?:\[[^\]]*\])?)', source)
  try:
    return open_source(*(match.groups() if match else (source, 'train')))
  except ValueError as error:
    raise ValueError(f'--data names {source!r}, which cannot be opened: {error}') from error


def own_files(source: str) -> tuple[str, list[str]]:
  """Returns the classes, 'FIELD=NAMES', and the templates of a set of CLIP_benchmark.

  Other sources have '' and [].

  Args:
    source: a name for `open_named`. 'clip_benchmark:FOLDER:SPLIT' has its class names and prompts
      in files of the folder, of which a set for retrieval has none.
  """
  scheme, _, rest = source.partition(':')
  if scheme != 'clip_benchmark' or not rest:
    return '', []
  folder = os.path.expanduser(named_split(rest, 'train')[0]).rstrip('/')
  names, templates = (f'{folder}/{name}.txt' for name in ('classnames', _OWN_TEMPLATES))
  return f'cls={names}' if _exists(names) else '', [templates] if _exists(templates) else []


def _exists(path: str) -> bool:
  try:
    return bool(files.read(path, 0, 1))
  except OSError:
    return False


def open_benchmark(
  name: str,
  source: data.Source,
  *,
  image_size: int,
  resize: Callable,
  patches: tuple[int, int] | None = None,
  tasks: Sequence[str] = (),
  templates: Sequence[str] = (),
  classes: str = '',
) -> Benchmark:
  """Reads the captions and labels of a source, and decodes its first image.

  Args:
    name: name of the source.
    source: the examples.
    image_size: S, the side of the images.
    resize: (decoded image, S) -> uint8 [S, S, 3]; or (decoded image, L, p) -> `Patches`.
    patches: (L, p), number and side of the patches that the model takes; None for square images.
    tasks: 'retrieval', 'retrieval:FIELD', 'zero_shot', 'zero_shot:FIELD' or
      'zero_shot:FIELD=NAMES', see `zero_shot.read_classes`. Default: retrieval by `captions` or
      `caption` and classification by `label`, whatever the examples have.
    templates: see `zero_shot.read_templates`; default CLIP's 80.
    classes: 'FIELD=NAMES' instead of `label`; '' for none.

  Raises:
    ValueError: if a task, a field or the names of classes are missing or wrong.
  """
  where = f'--data: {name!r}'
  example = source.fields(0)
  if 'error' in example:
    raise ValueError(f'{where}: {example["error"]}')
  known = [field for field in example if field != 'id']
  captions, specs = _find_fields(where, known, tasks, classes)
  images: Any
  if patches:
    images = data.DecodedPatches(source, *patches, resize)
  else:
    images = data.DecodedImages(source, image_size, resize)
  split = Split(images, {})
  try:
    images[0]
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error
  texts, classified = [captions] if captions else [], [*map(_field, specs)]
  fields = read_fields(where, source, texts, classified)
  if empty := [field for field in (*texts, *classified) if field not in fields]:
    raise ValueError(f'{where}: {empty} are empty in all examples; name other fields by --tasks')
  labels = {field: [*map(str, fields[field])] for field in classified}
  return Benchmark(
    name,
    split,
    _captions(where, captions, fields) if captions else None,
    labels,
    {_field(each): _read_names(where, each, labels[_field(each)]) for each in specs},
    read_templates(templates or _TEMPLATES, '--templates') if specs else (),
  )


def evaluate(benchmark: Benchmark, encoder: Encoder, parameters, mesh: Mesh) -> dict[str, float]:
  """Runs the tasks of a benchmark.

  Each caption is a candidate of its own, also where it equals another image's. Otherwise the
  protocols and the names of metrics are those of `Evaluator`.

  Args:
    benchmark: from `open_benchmark`.
    encoder: of the model.
    parameters: the model's parameters.
    mesh: mesh over which queries and candidates are sharded.
  """
  image = encoder.first(parameters, benchmark.split)
  encode, metrics = partial(encoder.texts, parameters), {}
  if benchmark.texts is not None:
    warn_of_repeats(benchmark.name, image, benchmark.texts)
    metrics, _ = retrieve(image, benchmark.texts, encode, RECALLS, mesh=mesh)
  for field, labels in benchmark.labels.items():
    names = benchmark.classes[field]
    class_vectors = class_embeddings(encode, [*names.values()], benchmark.templates)
    found = classify(image, class_vectors, labels, [*names], ACCURACIES, mesh=mesh)
    metrics |= {f'zero_shot_{field}_{measure}': value for measure, value in found.items()}
  return metrics


def _find_fields(
  where: str, known: Sequence[str], tasks: Sequence[str], classes: str
) -> tuple[str, list[str]]:
  """Returns the field of captions, or '', and the fields of labels, with '=NAMES' if given."""
  default = {task: next((f for f in own if f in known), '') for task, own in _FIELDS.items()}
  default[ZERO_SHOT] = classes or default[ZERO_SHOT]
  found: dict[str, list[str]] = {task: [] for task in _FIELDS}
  for task in tasks or [task for task, field in default.items() if field]:
    kind, _, given = task.partition(':')
    if kind not in _FIELDS:
      raise ValueError(
        f"--tasks names {task!r}; use some of 'retrieval', 'retrieval:FIELD', 'zero_shot', "
        "'zero_shot:FIELD' and 'zero_shot:FIELD=NAMES'"
      )
    field = _field(given or default[kind])
    if not is_joined(field) and field not in known:
      raise ValueError(
        f'{where} has no {field or " or ".join(_FIELDS[kind])} for --tasks={task}; name one of its '
        f'fields, {sorted(known)}, as in --tasks={kind}:FIELD'
      )
    found[kind].append(given or default[kind])
  if not any(found.values()):
    raise ValueError(
      f'{where} has the fields {sorted(known)}, without captions, caption or label; name one by '
      '--tasks=retrieval:FIELD or --tasks=zero_shot:FIELD'
    )
  if len(found[RETRIEVAL]) > 1:
    raise ValueError(f'--tasks={",".join(tasks)} has two fields of captions; name one')
  return ''.join(found[RETRIEVAL]), found[ZERO_SHOT]


def _field(classes: str) -> str:
  return classes.partition('=')[0]


def _captions(where: str, field: str, fields: Mapping[str, list]) -> list[list[str]]:
  """Returns the captions of each image."""
  own = fields[field]
  if isinstance(own[0], Mapping):
    raise ValueError(
      f'{where}: {field!r} holds texts by {sorted(own[0])}; name a field of plain texts by '
      '--tasks=retrieval:FIELD'
    )
  return [[texts] if isinstance(texts, str) else list(texts) for texts in own]


def _read_names(where: str, classes: str, labels: Sequence[str]) -> dict[str, str]:
  """Returns class names by label.

  Raises:
    ValueError: if the labels are numbers without names, or some have no name.
  """
  field, _, given = classes.partition('=')
  distinct = set(labels)
  if not given:
    wordnet = all(re.fullmatch(r'n\d{8}', label) for label in distinct)
    if wordnet:
      classes = f'{field}=imagenet'
    elif all(re.fullmatch(r'-?\d+', label) for label in distinct):
      raise ValueError(
        f'{where}: {field!r} holds numbers, such as {labels[0]}; name the classes by '
        f'--tasks=zero_shot:{field}=FILE, a list of names from 0, or evaluate without by '
        '--tasks=retrieval'
      )
  names = read_classes(classes, lambda _: labels, '--tasks')[1]
  if unknown := sorted(distinct - names.keys()):
    raise ValueError(
      f'{where}: {len(unknown)} of {len(distinct)} values of {field!r} have no name, such as '
      f'{unknown[0]!r}; names are known of {len(names)}, such as {next(iter(names))!r}'
    )
  return names
