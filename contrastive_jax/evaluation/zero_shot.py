"""Zero-shot classification: a class is the mean of its prompts."""

from collections.abc import Callable, Sequence

import numpy as np


def class_embeddings(
  encode: Callable[[Sequence[str]], np.ndarray], classes: Sequence[str], templates: Sequence[str]
) -> np.ndarray:
  """One unit vector a class, the mean of its prompts' unit vectors, as CLIP ensembles [1].

  Args:
    encode: texts -> unit vectors [., D].
    classes: K names; their hyphens and underscores are read as spaces.
    templates: prompts with `{}` for the name.

  Returns:
    [K, D]

  Raises:
    ValueError: if a template has no place for the name.

  References:
    [1] Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021.
  """
  for template in templates:
    if '{}' not in template:
      raise ValueError(f'template {template!r} has no {{}} for the name of the class')
  names = [name.replace('-', ' ').replace('_', ' ') for name in classes]
  prompts = encode([template.format(name) for name in names for template in templates])
  means = prompts.reshape(len(classes), len(templates), -1).mean(axis=1)
  return means / np.linalg.norm(means, axis=1, keepdims=True)
