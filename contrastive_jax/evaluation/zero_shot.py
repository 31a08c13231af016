"""Zero-shot classification: a class is the mean of its prompts."""

import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from contrastive_jax.evaluation.retrieval import hits

ACCURACIES = (1, 5)  # cut-offs of the evaluation

_EMBEDDED = pathlib.Path(__file__).parent / 'prompts'


def class_embeddings(
  encode: Callable[[Sequence[str]], np.ndarray], classes: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
  """One unit vector a class, the mean of its prompts' unit vectors, as CLIP ensembles [1].

  Args:
    encode: texts -> unit vectors [., D].
    classes: K names.
    templates: prompts with `{}` for the name.

  Returns:
    [K, D]

  Raises:
    ValueError: if a template has no `{}`: all classes would be one.

  References:
    [1] Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
  """
  for template in templates:
    if '{}' not in template:
      raise ValueError(f"template {template!r} has no {{}} for the class's name; write one into it")
  prompts = encode([template.replace('{}', name) for name in classes for template in templates])
  return unit(prompts.reshape(len(classes), len(templates), -1).mean(axis=1))


def unit(vectors: np.ndarray) -> np.ndarray:
  """Rows [N, D] of length 1; a row of zeros stays one."""
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(lengths == 0, 1, lengths)


def classify(
  features: np.ndarray,
  prototypes: np.ndarray,
  labels: Sequence,
  classes: Sequence,
  ks: Sequence[int] = (1, 5),
  *,
  mesh: Mesh | None = None,
) -> dict[str, float]:
  """Accuracy of the class of highest score, equal scores in random order.

  Args:
    features: [N, D]
    prototypes: a vector a class, [K, D]; its products with the features are the class's scores.
    labels: N labels.
    classes: K labels. An example of another class is a miss.
    ks: cut-offs, 1 among them.
    mesh: over which examples are cut; None for one device.

  Returns:
    accuracy@k: the share of examples whose class is among the first k.
    mean_per_class_recall: accuracy@1 within each class that occurs, averaged over those.

  Raises:
    ValueError: if no label is of a class.
  """
  found = class_hits(features, prototypes, labels, classes, ks, mesh=mesh)
  return class_figures(found, labels)


def class_figures(found: Mapping[int, np.ndarray], labels: Sequence) -> dict[str, float]:
  """The figures of `classify`, of what `class_hits` gives."""
  figures = {f'accuracy@{k}': float(chances.mean()) for k, chances in found.items()}
  return figures | {'mean_per_class_recall': mean_per_class(found[1], labels)}


def class_hits(
  features: np.ndarray,
  prototypes: np.ndarray,
  labels: Sequence,
  classes: Sequence,
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
) -> dict[int, np.ndarray]:
  """By k the chance [N] that each example's class is among the first k; see `classify`."""
  known = np.isin(np.array(labels), np.array(classes))
  if not known.any():
    raise ValueError(f'of the {len(classes)} classes, {classes[0]!r} and so on, none is a label')
  kept = [label for label, is_known in zip(labels, known, strict=True) if is_known]
  found = {k: np.zeros(len(labels)) for k in ks}
  for k, chances in hits(features[known], prototypes, kept, classes, ks, mesh=mesh).items():
    found[k][known] = chances
  return found


def mean_per_class(right: np.ndarray, labels: Sequence) -> float:
  """The mean over classes of the share that is right [N] in each."""
  _, codes = np.unique(np.array(labels), return_inverse=True)
  return float(np.mean(np.bincount(codes, right) / np.bincount(codes)))


def read_templates(templates: Sequence[str]) -> list[str]:
  """The prompts, with `{}` for the name of the class.

  Args:
    templates: prompts; one without `{}` names a list of them: 'imagenet', the 80 of CLIP, or a
      file with a prompt a line or a JSON list, in which '{c}' is read as '{}'.

  Raises:
    ValueError: if there is no such file, there are no prompts, or one has no place for the name.
  """
  prompts = []
  for template in templates:
    written = re.search('[{}]', template)
    read = [template] if written else _read(template, 'templates', 'templates')
    prompts += [prompt.replace('{c}', '{}') if _is_text(prompt) else prompt for prompt in read]
  for prompt in prompts:
    if not _is_text(prompt) or '{}' not in prompt:
      raise ValueError(
        f'config.evaluation.templates: {prompt!r} has no {{}} for the name of the class'
      )
  if not prompts:
    raise ValueError(
      f"config.evaluation.templates = {tuple(templates)} has no prompt; use ('{{}}',) for plain "
      'names'
    )
  return prompts


def read_classes(field: str, values: Callable[[str], Sequence]) -> tuple[str, dict[str, str]]:
  """The field that holds a class, and the classes' names by label.

  Args:
    field: 'FIELD', whose values are names, their hyphens and underscores read as spaces; or
      'FIELD=NAMES', whose values are labels, with NAMES 'imagenet', for its WordNet ids, or a
      file: a name a line or a JSON list for labels from 0, or a JSON mapping from labels to names.
    values: the values of a field.

  Raises:
    ValueError: if there is no such file, or the examples have no such field.
  """
  field, _, place = field.partition('=')
  if not place:
    try:
      labels = sorted({str(value) for value in values(field) if value is not None})
    except ValueError as error:
      raise ValueError(
        f'config.evaluation.zero_shot names {field!r}, whose classes are those of the training '
        f"data: {error}; use another field, 'FIELD=NAMES', or ()"
      ) from error
    return field, {label: label.replace('-', ' ').replace('_', ' ') for label in labels}
  names = _read(place, 'classes', 'zero_shot')
  pairs = dict(names if isinstance(names, Mapping) else enumerate(names))
  wrong = [name for name in pairs.values() if not _is_text(name)]
  if wrong or not pairs:
    raise ValueError(
      f'config.evaluation.zero_shot names {place!r}, which has {len(pairs)} names'
      + (f', of which {wrong[0]!r} is no text' if wrong else '')
      + '; give each class one'
    )
  return field, {str(label): name for label, name in pairs.items()}


def _is_text(value) -> bool:
  """Whether a value is a text that a tokenizer can read; JSON can spell half a surrogate pair."""
  return isinstance(value, str) and bool(value.strip()) and not re.search('[\ud800-\udfff]', value)


def _read(place: str, part: str, setting: str):
  embedded = _EMBEDDED / f'{place}.json'
  try:
    if embedded.is_file():
      return json.loads(embedded.read_text(encoding='utf-8'))[part]
    text = pathlib.Path(place).read_text(encoding='utf-8')
    read = json.loads(text) if place.endswith('.json') else text.splitlines()
    if not isinstance(read, list | Mapping):
      raise ValueError(f'it holds a {type(read).__name__}, no list')
    return read
  except (OSError, ValueError) as error:
    known = ', '.join(sorted(repr(path.stem) for path in _EMBEDDED.glob('*.json')))
    raise ValueError(
      f'config.evaluation.{setting} names {place!r}, which cannot be read: {error}; '
      f'use {known}, a file of lines or a .json'
    ) from error
