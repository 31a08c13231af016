"""Zero-shot classification with prompt ensembles."""

import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from contrastive_jax.data.sources import files
from contrastive_jax.evaluation.retrieval import hits

ACCURACIES = (1, 5)  # cutoffs of the evaluation

_EMBEDDED = pathlib.Path(__file__).parent / 'prompts'


def class_embeddings(
  encode: Callable[[Sequence[str]], np.ndarray], classes: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
  """Returns a unit vector per class, the mean of its prompts' embeddings, CLIP's ensemble [1].

  Args:
    encode: texts -> unit vectors [., D].
    classes: K names.
    templates: prompts with `{}` for the name.

  Returns:
    [K, D]

  Raises:
    ValueError: if a template has no `{}`: all classes would be equal.

  References:
    [1] Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
  """
  for template in templates:
    if '{}' not in template:
      raise ValueError(f"template {template!r} has no {{}} for the class's name; write one into it")
  prompts = encode([template.replace('{}', name) for name in classes for template in templates])
  return unit(prompts.reshape(len(classes), len(templates), -1).mean(axis=1))


def unit(vectors: np.ndarray) -> np.ndarray:
  """Scales rows [N, D] to length 1; a row of zeros stays zero."""
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(lengths == 0, 1, lengths)


def classify(
  features: np.ndarray,
  class_vectors: np.ndarray,
  labels: Sequence,
  classes: Sequence,
  ks: Sequence[int] = (1, 5),
  *,
  mesh: Mesh | None = None,
) -> dict[str, float]:
  """Accuracy of the class of highest score, with ties in random order.

  Args:
    features: [N, D]
    class_vectors: [K, D]; the score of a class is the product of its vector and the features.
    labels: N labels.
    classes: K labels. An example of another class counts as wrong.
    ks: cutoffs, 1 among them.
    mesh: mesh over which examples are sharded; None for one device.

  Returns:
    accuracy@k: share of examples whose class is among the first k.
    mean_per_class_recall: accuracy@1 per class, averaged over the classes that occur.

  Raises:
    ValueError: if no label is among the classes.
  """
  found = class_hits(features, class_vectors, labels, classes, ks, mesh=mesh)
  return class_metrics(found, labels)


def class_metrics(found: Mapping[int, np.ndarray], labels: Sequence) -> dict[str, float]:
  """Returns the metrics of `classify`, from the result of `class_hits`."""
  metrics = {f'accuracy@{k}': float(chances.mean()) for k, chances in found.items()}
  return metrics | {'mean_per_class_recall': mean_per_class(found[1], labels)}


def class_hits(
  features: np.ndarray,
  class_vectors: np.ndarray,
  labels: Sequence,
  classes: Sequence,
  ks: Sequence[int],
  *,
  mesh: Mesh | None = None,
) -> dict[int, np.ndarray]:
  """Returns, by k, the probability [N] that an example's class is among the first k."""
  known = np.isin(np.array(labels), np.array(classes))
  if not known.any():
    raise ValueError(f'of the {len(classes)} classes, {classes[0]!r} and so on, none is a label')
  kept = [label for label, is_known in zip(labels, known, strict=True) if is_known]
  found = {k: np.zeros(len(labels)) for k in ks}
  for k, chances in hits(features[known], class_vectors, kept, classes, ks, mesh=mesh).items():
    found[k][known] = chances
  return found


def mean_per_class(right: np.ndarray, labels: Sequence) -> float:
  """Averages `right` [N] within each class, then over the classes."""
  _, codes = np.unique(np.array(labels), return_inverse=True)
  return float(np.mean(np.bincount(codes, right) / np.bincount(codes)))


def read_templates(
  templates: Sequence[str], setting: str = 'config.evaluation.templates'
) -> list[str]:
  """Returns the prompts, with `{}` for the name of the class.

  Args:
    templates: prompts. One without `{}` names a list of prompts: 'imagenet', CLIP's 80, or a file
      with one prompt per line or a JSON list, in which '{c}' is read as '{}'.
    setting: the setting that holds them, for errors.

  Raises:
    ValueError: if a file is missing, there are no prompts, or a prompt has no `{}`.
  """
  prompts = []
  for template in templates:
    written = re.search('[{}]', template)
    read = [template] if written else _read(template, 'templates', setting)
    prompts += [prompt.replace('{c}', '{}') if _is_text(prompt) else prompt for prompt in read]
  for prompt in prompts:
    if not _is_text(prompt) or '{}' not in prompt:
      raise ValueError(f'{setting}: {prompt!r} has no {{}} for the name of the class')
  if not prompts:
    raise ValueError(f"{setting} = {tuple(templates)} has no prompt; use ('{{}}',) for plain names")
  return prompts


def read_classes(
  field: str,
  values: Callable[[str], Sequence],
  setting: str = 'config.evaluation.zero_shot',
) -> tuple[str, dict[str, str]]:
  """Returns the field that holds a class, and the class names by label.

  Args:
    field: 'FIELD', whose values are names, with hyphens and underscores read as spaces; or
      'FIELD=NAMES', whose values are labels. NAMES is 'imagenet', for its WordNet ids, or a file:
      one name per line or a JSON list, for labels from 0, or a JSON mapping from labels to names.
    values: field -> its values.
    setting: the setting that holds the field, for errors.

  Raises:
    ValueError: if the file is missing, or the examples lack the field.
  """
  field, _, path = field.partition('=')
  if not path:
    try:
      labels = sorted({str(value) for value in values(field) if value is not None})
    except ValueError as error:
      raise ValueError(
        f'{setting} names {field!r}, whose classes are those of the training data: {error}; use '
        "another field, 'FIELD=NAMES', or ()"
      ) from error
    return field, {label: label.replace('-', ' ').replace('_', ' ') for label in labels}
  names = _read(path, 'classes', setting)
  pairs = dict(names if isinstance(names, Mapping) else enumerate(names))
  wrong = [name for name in pairs.values() if not _is_text(name)]
  if wrong or not pairs:
    raise ValueError(
      f'{setting} names {path!r}, which has {len(pairs)} names'
      + (f', of which {wrong[0]!r} is no text' if wrong else '')
      + '; give each class one'
    )
  return field, {str(label): name for label, name in pairs.items()}


def _is_text(value) -> bool:
  """Whether a tokenizer can read the value; JSON can spell a lone surrogate."""
  return isinstance(value, str) and bool(value.strip()) and not re.search('[\ud800-\udfff]', value)


def _read(path: str, part: str, setting: str):
  embedded = _EMBEDDED / f'{path}.json'
  try:
    if embedded.is_file():
      return json.loads(embedded.read_text(encoding='utf-8'))[part]
    text = files.read(path).decode()
    read = json.loads(text) if path.endswith('.json') else text.splitlines()
    if not isinstance(read, list | Mapping):
      raise ValueError(f'it holds a {type(read).__name__}, no list')
    return read
  except (OSError, ValueError) as error:
    known = ', '.join(sorted(repr(path.stem) for path in _EMBEDDED.glob('*.json')))
    raise ValueError(
      f'{setting} names {path!r}, which cannot be read: {error}; '
      f'use {known}, a file of lines or a .json'
    ) from error
