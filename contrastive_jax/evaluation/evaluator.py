"""The evaluation of a run: embeds its held-out splits, and follows the config's protocols."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from contrastive_jax import data
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation import checks, diagnostics
from contrastive_jax.evaluation.batches import block_size, in_batches, jit_batched
from contrastive_jax.evaluation.captioner import Captioner
from contrastive_jax.evaluation.captioning import is_right, score_captions
from contrastive_jax.evaluation.embedded import Retrieved
from contrastive_jax.evaluation.few_shot import Prototypes
from contrastive_jax.evaluation.knn import Neighbours
from contrastive_jax.evaluation.outcomes import Outcome, checksums, means
from contrastive_jax.evaluation.pairs import find_pairs, pair_accuracies
from contrastive_jax.evaluation.probes import linear_probe
from contrastive_jax.evaluation.retrieval import RECALLS, languages, retrieve, retrieve_by_query
from contrastive_jax.evaluation.splits import captions_of, read_split
from contrastive_jax.evaluation.zero_shot import (
  ACCURACIES,
  class_embeddings,
  class_figures,
  class_hits,
)
from contrastive_jax.models.definition import Definition

# A probe is called with unit features, labels and `mesh=`, and what it returns has
# `figures(features, labels)`, numbers by name.
PROBES: dict[str, Callable[..., Any]] = {
  'linear': linear_probe,
  'neighbours': Neighbours,
  'prototypes': Prototypes,
}


class Evaluator:
  """Evaluates parameters on the held-out splits, whose pictures it decodes once."""

  def __init__(
    self,
    definition: Definition,
    tokenizer: Callable,
    sources: Mapping[str, data.Source],
    mesh: Mesh,
    *,
    image_size: int,
    batch_size: int,
    classes: Mapping[str, Mapping[str, str]],
    templates: Sequence[str],
    texts: Sequence[str] = ('caption',),
    probes: Sequence[str] = (),
    probe_source: data.Source | None = None,
    pairs: Sequence[str] = (),
    partners: data.Source | None = None,
    captions: Mapping[str, Any] | None = None,
    candidates: data.Source | None = None,
  ):
    """Prepares the splits.

    Args:
      definition: the model.
      tokenizer: texts -> [., L] integers.
      sources: the split's examples by its name.
      mesh: the mesh over which batches are cut.
      image_size: side of the pictures.
      batch_size: pictures or texts embedded at a time.
      classes: by the field that holds an example's class the names by label. A split without the
        field is not classified by it.
      templates: prompts for a class.
      texts: fields with a text, several, or texts by language, the first of them not the latter. By
        this retrieval is measured while training too, by the others at the end alone. A split
        without the first is not retrieved.
      probes: names in `PROBES`, for each field of `classes`.
      probe_source: the examples that they are fitted to.
      pairs: fields in which two examples agree that differ in their text, and are hard to tell
        apart for it; empty for none.
      partners: from which the second of a pair is taken; default: the split itself.
      captions: how to caption, see `Captioner`; empty for not at all.
      candidates: examples from whose captions retrieval chooses, to compare with.

    Raises:
      ValueError: if a probe is unknown, no split has a field, some examples of a split lack what
        others have, a split has none of the classes, or the model cannot caption so.
    """
    checks.check_settings(texts, probes, tuple(PROBES))
    self._tokenizer, self._batch_size, self._mesh = tokenizer, batch_size, mesh
    self._classes, self._templates = classes, templates
    self._texts, self._probes, self._pairs = texts, probes, pairs
    read = partial(read_split, image_size=image_size)
    self._splits = {
      name: read(source, setting='splits', name=name, texts=texts, labels=(*classes, *pairs))
      for name, source in sources.items()
    }
    self._probed = self._partners = None
    if probes:
      self._probed = read(probe_source, setting='probe_split', labels=tuple(classes))
    if partners is not None and pairs:
      self._partners = read(partners, setting='partners', texts=texts[:1], labels=pairs)
    checks.check_fields(self._splits, self._partners, classes, texts, pairs)
    checks.check_labels(
      {name: self._labels(split) for name, split in self._splits.items()},
      self._labels(self._probed) if probes else {},
      classes,
      probes,
    )
    self._encode_image = jit_batched(
      lambda parameters, images: definition.bind(parameters).encode_image(normalize(images)), mesh
    )
    self._encode_text = jit_batched(
      lambda parameters, tokens: definition.bind(parameters).encode_text(tokens), mesh
    )
    self._scale = lambda parameters: jnp.exp(definition.bind(parameters).log_scale[...])
    self._captioner, self._candidates = None, []
    if captions:
      self._captioner = Captioner(definition, tokenizer, mesh, image_size, batch_size, captions)
      # Only where they are asked for: a large data set's captions would fill the memory.
      self._candidates = captions_of(candidates, texts[0])

  @property
  def names(self) -> list[str]:
    """The names of the figures that `__call__` gives."""
    return [
      f'{name}/{own}'
      for name, split in self._splits.items()
      for own in checks.figure_names(split.fields.get(self._texts[0]), self._labels(split))
    ]

  def check_best(self, best: str) -> None:
    """Raises ValueError where `__call__` gives no figure named `best`; '' is none."""
    checks.check_best(best, self.names)

  def __call__(self, parameters) -> dict[str, float]:
    """The figures of every split: recall both ways, accuracy by class field, and of the space."""
    return self.evaluate(parameters)[0]

  def evaluate(self, parameters) -> tuple[dict[str, float], list[Retrieved]]:
    """The figures, and the splits that have texts with their embeddings."""
    figures, retrieved = {}, []
    scale = float(self._scale(parameters))
    encode_text = partial(self._encode_texts, parameters)
    prototypes = {
      field: class_embeddings(encode_text, list(names.values()), self._templates)
      for field, names in self._classes.items()
    }
    for name, split in self._splits.items():
      image = self._encode_images(parameters, split)
      own, shown = self._classify(image, split, prototypes)
      if texts := split.fields.get(self._texts[0]):
        captions = list(map(_first, texts))
        found, text = retrieve_by_query(image, texts, encode_text, RECALLS, mesh=self._mesh)
        space = diagnostics.diagnose(image, text, captions, shown['classes'], scale, self._mesh)
        own = means(found) | own | space
        sums = checksums(captions)
        found |= {name: Outcome(hits, sums) for name, hits in shown.pop('hits').items()}
        retrieved.append(
          Retrieved(name, split.images, captions, image, text, **shown, outcomes=found)
        )
      figures |= _named(name, own)
    return figures, retrieved

  def _classify(self, image, split, prototypes) -> tuple[dict[str, float], dict[str, Any]]:
    """Zero-shot figures of a split, and what its classes are and are taken for."""
    figures, labels, predictions, hits = {}, self._labels(split), {}, {}
    for field, right in labels.items():
      classes = list(self._classes[field])
      found = class_hits(image, prototypes[field], right, classes, ACCURACIES, mesh=self._mesh)
      scores = class_figures(found, right)
      figures |= {f'zero_shot_{field}_{measure}': value for measure, value in scores.items()}
      hits |= {f'zero_shot_{field}_accuracy@{k}': chances for k, chances in found.items()}
      nearest = np.argmax(image @ prototypes[field].T, axis=1)
      predictions[field] = [classes[row] for row in nearest]
    return figures, {'classes': labels, 'predictions': predictions, 'hits': hits}

  def finish(self, parameters) -> tuple[dict[str, float], list[Retrieved]]:
    """`evaluate`, with what is too slow to be done while training.

    That is the probes, the retrieval by other texts, the pairs and the captions.
    """
    figures, retrieved = self.evaluate(parameters)
    figures |= self.probe(parameters, {split.name: split.image_embeddings for split in retrieved})
    for split in retrieved:
      figures |= _named(split.name, self._retrieve_others(parameters, split))
    figures |= self._compare_pairs(parameters, retrieved)
    if self._captioner is None or not retrieved:
      return figures, retrieved
    offered = self._encode_texts(parameters, self._candidates)
    splits = (self._caption(parameters, split, offered) for split in retrieved)
    scores, captioned = zip(*splits, strict=True)
    return figures | {k: v for score in scores for k, v in score.items()}, list(captioned)

  def probe(self, parameters, embedded: Mapping[str, np.ndarray] | None = None) -> dict[str, float]:
    """The figures on every split of probes fitted to each class field, on unit embeddings.

    Args:
      parameters: the model's.
      embedded: splits' pictures as unit vectors, by name; others are embedded here.
    """
    if self._probed is None:
      return {}
    given = embedded or {}
    embedded = {
      name: given[name] if name in given else self._encode_images(parameters, split)
      for name, split in self._splits.items()
    }
    features = self._encode_images(parameters, self._probed)
    tests = {name: self._labels(split) for name, split in self._splits.items()}
    figures = {}
    for field, labels in self._labels(self._probed).items():
      for kind in self._probes:
        fitted = PROBES[kind](features, labels, mesh=self._mesh)
        for name, own_labels in tests.items():
          if field in own_labels:
            own = fitted.figures(embedded[name], own_labels[field])
            figures |= {f'{name}/{field}_{measure}': value for measure, value in own.items()}
    return figures

  def _retrieve_others(self, parameters, split: Retrieved) -> dict[str, float]:
    """Recall of a split by the further fields of texts that it has, and by language."""
    own, figures = self._splits[split.name], {}
    for field in self._texts[1:]:
      if (values := own.fields.get(field)) is None:
        continue
      tasks = {field: (range(len(values)), values)}
      if isinstance(values[0], Mapping):
        tasks = {f'{field}_{language}': task for language, task in languages(values).items()}
      for task, (rows, texts) in tasks.items():
        encode = partial(self._encode_texts, parameters)
        image = split.image_embeddings[np.array(rows)]
        recalls, _ = retrieve(image, texts, encode, RECALLS, mesh=self._mesh)
        figures |= {f'{task}_{measure}': value for measure, value in recalls.items()}
    return figures

  def _compare_pairs(self, parameters, retrieved: Sequence[Retrieved]) -> dict[str, float]:
    """Winoground's scores of the pairs of every split that has any."""
    if not self._pairs:
      return {}
    whole = None
    if self._partners:
      captions = list(map(_first, self._partners.fields[self._texts[0]]))
      images = self._encode_images(parameters, self._partners)
      whole = (
        self._keys(self._partners),
        captions,
        (images, self._encode_texts(parameters, captions)),
      )
    figures = {}
    for split in retrieved:
      keys = self._keys(self._splits[split.name])
      own = keys, split.captions, (split.image_embeddings, split.text_embeddings)
      other = whole or own
      pairs = find_pairs(*own[:2], *other[:2])
      if len(pairs):
        scores = pair_accuracies(own[2], other[2], pairs, mesh=self._mesh)
        figures |= _named(split.name, scores)
    return figures

  def _keys(self, split) -> list:
    """What an example shares with another that makes a pair with it; nothing where it lacks it."""
    if not all(field in split.fields for field in self._pairs):
      return [object() for _ in range(len(split.images))]
    return list(zip(*(split.fields[field] for field in self._pairs), strict=True))

  def _labels(self, split) -> dict[str, list[str]]:
    """The labels of a split's examples by the class fields that it has."""
    fields = (field for field in self._classes if field in split.fields)
    return {field: list(map(str, split.fields[field])) for field in fields}

  def _caption(self, parameters, split: Retrieved, offered) -> tuple[dict[str, float], Retrieved]:
    """The scores of the captions written for a split's pictures, and the split with them.

    Beside them stand those of the candidates, embedded as `offered`, that are nearest to the
    pictures: what a model that does not write would say.
    """
    written = self._captioner(parameters, split.images)
    images = split.image_embeddings
    size = block_size(len(images), len(offered))
    blocks = (images[start : start + size] for start in range(0, len(images), size))
    nearest = np.concatenate([np.argmax(block @ offered.T, axis=1) for block in blocks])
    texts = {'caption': written, 'retrieved_caption': [self._candidates[row] for row in nearest]}
    own = self._splits[split.name].fields[self._texts[0]]
    references = [[right] if isinstance(right, str) else list(right) for right in own]
    figures = {
      f'{split.name}/{kind}_{measure}': value
      for kind, captions in texts.items()
      for measure, value in score_captions(captions, references).items()
    }
    right = np.array([is_right(*pair) for pair in zip(written, references, strict=True)], float)
    found = {'caption_exact_match': Outcome(right, checksums(split.captions))}
    return figures, dataclasses.replace(
      split, generated=written, outcomes={**split.outcomes, **found}
    )

  def _encode_images(self, parameters, split) -> np.ndarray:
    return self._batched(self._encode_image, parameters, split.images)

  def _encode_texts(self, parameters, texts: Sequence[str]) -> np.ndarray:
    return self._batched(self._encode_text, parameters, self._tokenizer(texts))

  def _batched(self, encode, parameters, inputs) -> np.ndarray:
    return in_batches(partial(encode, parameters), inputs, self._batch_size, self._mesh)


def _first(texts: str | Sequence[str]) -> str:
  return texts if isinstance(texts, str) else texts[0]


def _named(split: str, figures: Mapping[str, float]) -> dict[str, float]:
  return {f'{split}/{measure}': value for measure, value in figures.items()}
