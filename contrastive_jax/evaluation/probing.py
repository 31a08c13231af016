"""What is fitted for an evaluation: probes, regressions, a segmentation, and a finetuned tower."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh

from contrastive_jax.evaluation.encoder import Encoder
from contrastive_jax.evaluation.few_shot import FewShot
from contrastive_jax.evaluation.finetuned import Finetuned
from contrastive_jax.evaluation.knn import KNN
from contrastive_jax.evaluation.probes import linear_probe
from contrastive_jax.evaluation.regression import read_numbers, regress
from contrastive_jax.evaluation.segmentation import Segmentation
from contrastive_jax.evaluation.splits import Split, first_of, labels_of

# Probes: (unit features [N, D], labels, mesh=) -> an object with `metrics(features, labels)`.
PROBES: dict[str, Callable[..., Any]] = {
  'linear': linear_probe,
  'neighbours': KNN,
  'prototypes': FewShot,
}
FUSED = 'fused_'  # prefix of a probe on image and text
KINDS = (*PROBES, *(FUSED + kind for kind in PROBES))
DENSE = 'segmentation'  # a probe on tokens, see `Segmentation`
FINETUNED = 'finetuned'  # a probe that trains the tower too, see `Finetuned`


class Probing:
  """Fits to the examples of `config.evaluation.probe_split`, and tests on the other splits.

  Args:
    encoder: embeds splits.
    mesh: over which embeddings are sharded.
    splits: those to test on, by name.
    probed: the examples to fit to; None for no fits.
    classes: class names by label, by field.
    probes: names of `KINDS`, `DENSE` or `FINETUNED`.
    numbers: fields of numbers, to which ridge regressions are fitted.
    field: of the texts of a fused probe; '' without texts.
    of_images: the probes that read images in place of embeddings.
  """

  def __init__(
    self,
    encoder: Encoder,
    mesh: Mesh,
    splits: Mapping[str, Split],
    probed: Split | None,
    classes: Mapping[str, Mapping[str, str]],
    *,
    probes: Sequence[str],
    numbers: Sequence[str],
    field: str,
    of_images: Sequence[Segmentation | Finetuned] = (),
  ):
    self._encoder, self._mesh, self._splits, self._probed = encoder, mesh, splits, probed
    self._classes, self._probes, self._field = classes, probes, field
    self._of_images = of_images
    fitted = {'': probed} if probed and numbers else {}
    self._numbers = {
      name: read_numbers(f'split {name!r}' if name else 'probe_split', split.fields, numbers)
      for name, split in {**fitted, **splits}.items()
    }

  def __call__(self, parameters, embedded: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the metrics of all fits.

    Args:
      parameters: the model's.
      embedded: image embeddings of splits by name.
    """
    metrics = self.probe(parameters, embedded) | self.probe_images(parameters)
    if '' not in self._numbers:
      return metrics
    features = {'': self._encoder.first(parameters, self._probed), **embedded}
    return metrics | regress(features, self._numbers, [*self._numbers['']])

  def probe(
    self,
    parameters,
    embedded: Mapping[str, np.ndarray] | None = None,
    kinds: Collection[str] = KINDS,
  ) -> dict[str, float]:
    """Fits probes on unit embeddings, for each class field, and tests them on every split.

    Args:
      parameters: the model's parameters.
      embedded: image embeddings of splits by name; other splits are embedded here.
      kinds: names of the probes to fit, of those that the config has.
    """
    probes = [kind for kind in self._probes if kind in kinds]
    if self._probed is None or not probes:
      return {}
    splits, given = {'': self._probed, **self._splits}, embedded or {}
    images = {
      name: given[name] if name in given else self._encoder.first(parameters, split)
      for name, split in splits.items()
    }
    features = {'': images}
    if any(kind.startswith(FUSED) for kind in probes):
      features[FUSED] = self._fuse(parameters, images, splits)
    tests = {name: labels_of(split, self._classes) for name, split in self._splits.items()}
    metrics = {}
    for field, labels in labels_of(self._probed, self._classes).items():
      for kind in probes:
        prefix = FUSED if kind.startswith(FUSED) else ''
        vectors, fit = features[prefix], PROBES[kind.removeprefix(prefix)]
        fitted = fit(vectors[''], labels, mesh=self._mesh)
        for name, own_labels in tests.items():
          if field in own_labels and name in vectors:
            own = fitted.metrics(vectors[name], own_labels[field])
            metrics |= {f'{name}/{field}_{prefix}{key}': own[key] for key in own}
    return metrics

  def probe_images(self, parameters) -> dict[str, float]:
    """Returns the metrics of every split by the probes that read images."""
    metrics: dict[str, float] = {}
    if self._probed is not None:
      for probe in self._of_images:
        metrics |= probe(parameters, self._probed, self._splits, self._classes)
    return metrics

  def _fuse(self, parameters, images, splits) -> dict[str, np.ndarray]:
    """Returns unit vectors of image and first text, for the splits that have the texts."""
    encode = partial(self._encoder.texts, parameters)
    return {
      name: np.hstack([images[name], encode(list(map(first_of, split.fields[self._field])))])
      / 2**0.5
      for name, split in splits.items()
      if self._field in split.fields
    }
