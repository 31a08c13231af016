"""The evaluation of a run: embeds its held-out splits, then retrieval, zero-shot and captions."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from contrastive_jax import data
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.batches import in_batches, jit_batched
from contrastive_jax.evaluation.captioner import Captioner
from contrastive_jax.evaluation.captioning import score_captions
from contrastive_jax.evaluation.probes import linear_probe
from contrastive_jax.evaluation.report import Retrieved
from contrastive_jax.evaluation.retrieval import recall
from contrastive_jax.evaluation.zero_shot import class_embeddings
from contrastive_jax.models.definition import Definition

_RECALLS = (1, 5, 10)
_ACCURACIES = (1, 5)
_PROBES = {'linear': linear_probe}


def open_evaluator(
  config: ConfigDict, definition: Definition, tokenizer: data.Tokenizer, mesh: Mesh, source
) -> 'Evaluator':
  """The evaluator that a config describes; `source` has the training examples."""
  evaluation = config.evaluation
  open_split = partial(data.open_source, config.data.name, folder=config.data.folder or None)
  return Evaluator(
    definition,
    tokenizer,
    {split: open_split(split) for split in evaluation.splits},
    mesh,
    image_size=config.model.image.size,
    batch_size=evaluation.batch_size,
    classes={field: sorted(set(source.values(field))) for field in evaluation.zero_shot},
    templates=evaluation.templates,
    probes={kind: open_split(evaluation.probe_split) for kind in evaluation.probes},
    captions=evaluation.get('captions', {}),
    candidates=source,
  )


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
    classes: Mapping[str, Sequence[str]],
    templates: Sequence[str],
    probes: Mapping[str, data.Source] | None = None,
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
      classes: names by the field that holds an example's class.
      templates: prompts for a class.
      probes: for each kind of probe, 'linear', the examples that it is fitted to.
      captions: how to caption, see `Captioner`; empty for not at all.
      candidates: examples from whose captions retrieval chooses, to compare with.

    Raises:
      ValueError: if a probe is unknown, or the model cannot caption so.
    """
    probes = probes or {}
    for probe in probes:
      if probe not in _PROBES:
        raise ValueError(
          f'config.evaluation.probes has no {probe!r}; use some of {tuple(_PROBES)}. '
          'experiments/probes has those that train'
        )
    self._tokenizer = tokenizer
    self._batch_size = batch_size
    self._classes, self._templates = classes, templates
    self._mesh = mesh

    def decode(sources):
      return {
        name: {'source': source, 'images': data.evaluation_images(source, image_size)}
        for name, source in sources.items()
      }

    self._splits, self._probes = decode(sources), decode(probes)
    self._encode_image = jit_batched(
      lambda parameters, images: definition.bind(parameters).encode_image(normalize(images)), mesh
    )
    self._encode_text = jit_batched(
      lambda parameters, tokens: definition.bind(parameters).encode_text(tokens), mesh
    )
    self._captioner = (
      Captioner(definition, tokenizer, mesh, image_size, batch_size, captions) if captions else None
    )
    # Only where they are asked for: a large data set's captions would fill the memory.
    self._candidates = list(dict.fromkeys(candidates.values('caption'))) if captions else []

  def __call__(self, parameters) -> dict[str, float]:
    """The figures of every split: recall of both directions, accuracy of every class field."""
    return self.evaluate(parameters)[0]

  def evaluate(self, parameters) -> tuple[dict[str, float], list[Retrieved]]:
    """The figures, and the splits with their embeddings."""
    figures, retrieved = {}, []
    encode_text = partial(self._encode_texts, parameters)
    prototypes = {
      field: class_embeddings(encode_text, names, self._templates)
      for field, names in self._classes.items()
    }
    for name, split in self._splits.items():
      captions = split['source'].values('caption')
      texts = list(dict.fromkeys(captions))
      image = self._batched(self._encode_image, parameters, split['images'])
      text = encode_text(texts)
      tasks: dict[str, Any] = {
        'image_to_text_recall': (image, text, captions, texts, _RECALLS),
        'text_to_image_recall': (text, image, texts, captions, _RECALLS),
      }
      for field, prototype in prototypes.items():
        tasks[f'zero_shot_{field}_accuracy'] = (
          image,
          prototype,
          split['source'].values(field),
          self._classes[field],
          _ACCURACIES,
        )
      for task, arguments in tasks.items():
        for k, value in recall(*arguments).items():
          figures[f'{name}/{task}@{k}'] = value
      rows = {caption: row for row, caption in enumerate(texts)}
      pairs = text[[rows[caption] for caption in captions]]
      retrieved.append(Retrieved(name, split['images'], captions, image, pairs))
    return figures, retrieved

  def finish(self, parameters) -> tuple[dict[str, float], list[Retrieved]]:
    """`evaluate`, with what is too slow to be done while training: the probes and the captions."""
    figures, retrieved = self.evaluate(parameters)
    figures |= self.probe(parameters)
    if self._captioner is None:
      return figures, retrieved
    offered = self._encode_texts(parameters, self._candidates)
    splits = (self._caption(parameters, split, offered) for split in retrieved)
    scores, captioned = zip(*splits, strict=True)
    return figures | {k: v for score in scores for k, v in score.items()}, list(captioned)

  def _caption(self, parameters, split: Retrieved, offered) -> tuple[dict[str, float], Retrieved]:
    """The scores of the captions written for a split's pictures, and the split with them.

    Beside them stand those of the candidates, embedded as `offered`, that are nearest to the
    pictures: what a model that does not write would say.
    """
    written = self._captioner(parameters, split.images)
    nearest = np.argmax(split.image_embeddings @ offered.T, axis=1)
    texts = {'caption': written, 'retrieved_caption': [self._candidates[row] for row in nearest]}
    references = [[caption] for caption in split.captions]
    figures = {
      f'{split.name}/{kind}_{measure}': value
      for kind, captions in texts.items()
      for measure, value in score_captions(captions, references).items()
    }
    return figures, dataclasses.replace(split, generated=written)

  def probe(self, parameters) -> dict[str, float]:
    """The accuracy on every split of probes fitted to each class field, on unit embeddings."""

    def embed(split):
      return self._batched(self._encode_image, parameters, split['images'])

    embedded = {name: embed(split) for name, split in self._splits.items()} if self._probes else {}
    figures = {}
    for kind, examples in self._probes.items():
      features = embed(examples)
      for field in self._classes:
        fitted = _PROBES[kind](features, examples['source'].values(field), mesh=self._mesh)
        for name, image in embedded.items():
          labels = self._splits[name]['source'].values(field)
          figures[f'{name}/{field}_{kind}_probe_accuracy'] = fitted.accuracy(image, labels)
    return figures

  def _encode_texts(self, parameters, texts: Sequence[str]) -> np.ndarray:
    return self._batched(self._encode_text, parameters, self._tokenizer(texts))

  def _batched(self, encode, parameters, inputs) -> np.ndarray:
    return in_batches(partial(encode, parameters), inputs, self._batch_size, self._mesh)
