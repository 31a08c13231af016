"""The evaluation of a run: embeds its held-out splits and runs the config's protocols."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from jax.sharding import Mesh

from contrastive_jax import data
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation import checks, diagnostics
from contrastive_jax.evaluation.arithmetic import arithmetic_recalls, find_edits
from contrastive_jax.evaluation.batches import own_rows
from contrastive_jax.evaluation.captioner import Captioner
from contrastive_jax.evaluation.captioning import is_right, score_captions
from contrastive_jax.evaluation.embedded import EmbeddedSplit
from contrastive_jax.evaluation.encoder import Encoder
from contrastive_jax.evaluation.finetuned import Finetuned
from contrastive_jax.evaluation.neighbors import nearest
from contrastive_jax.evaluation.outcomes import Outcome, checksums, means
from contrastive_jax.evaluation.pairs import find_pairs, pair_accuracies, same_words
from contrastive_jax.evaluation.probing import DENSE, FINETUNED, FUSED, KINDS, PROBES, Probing
from contrastive_jax.evaluation.retrieval import (
  RECALLS,
  audio_recalls,
  languages,
  retrieve,
  retrieve_by_query,
)
from contrastive_jax.evaluation.segmentation import Segmentation
from contrastive_jax.evaluation.splits import captions_of, first_of, labels_of, read_split
from contrastive_jax.evaluation.zero_shot import (
  ACCURACIES,
  class_embeddings,
  class_hits,
  class_metrics,
)
from contrastive_jax.models.definition import Definition


class Evaluator:
  """Evaluates parameters on the held-out splits.

  Each process decodes its rows of a batch of images while the devices compute the batch before.
  The images of a small split are cached, see `data.DecodedImages`.

  Attributes:
    probing: what is fitted to frozen embeddings.
  """

  def __init__(
    self,
    definition: Definition,
    tokenizer: Callable | None,
    sources: Mapping[str, data.Source],
    mesh: Mesh,
    *,
    image_size: int | None,
    patches: tuple[int, int] | None = None,
    batch_size: int,
    classes: Mapping[str, Mapping[str, str]],
    templates: Sequence[str],
    texts: Sequence[str] = ('caption',),
    first: str = '',
    probes: Sequence[str] = (),
    probe_source: data.Source | None = None,
    numbers: Sequence[str] = (),
    pairs: Sequence[str] = (),
    arithmetic: Sequence[str] = (),
    partners: data.Source | None = None,
    captions: Mapping[str, Any] | None = None,
    candidates: data.Source | None = None,
    audio: Callable[[data.Source], np.ndarray] | None = None,
    normalize: Callable = normalize,
    augmentation: Mapping[str, float] = MappingProxyType({}),
  ):
    """Reads and checks the splits; every image is decoded once, by the process that feeds it.

    Args:
      definition: the model. Without texts it is evaluated by probes, by k-NN alone during training,
        and by `diagnostics.diagnose_views`.
      tokenizer: texts -> integers [., L]; None for a model without texts.
      sources: examples of each split, by its name.
      mesh: mesh over which batches are sharded.
      image_size: side of the images; None for a model of texts.
      patches: (L, p), number and side of the patches in which the model takes images (NaFlex); None
        for square images. Reports show square ones.
      batch_size: images or texts per batch.
      classes: class names by label, by the field that holds the label. Splits without the field are
        not classified by it.
      templates: prompts of a class.
      texts: fields with one text, several texts, or, after the first field, texts by language; or
        one of these, 'names.zh'. Retrieval by the first field runs during training too, by the
        others only at the end. Splits without the first field are not retrieved. See also
        `read_split`.
      first: field of the first text of a pair, which takes the place of the image in a model of
        pairs of texts.
      probes: names in `PROBES`, fitted for each field of `classes`; with the prefix 'fused_' to the
        concatenated embeddings of image and first text; 'segmentation' to tokens; 'finetuned' with
        the image tower.
      probe_source: examples to which the probes are fitted.
      numbers: fields of numbers, to which ridge regressions are fitted at the end, on the images'
        embeddings.
      pairs: fields in which the two examples of a hard pair agree; their texts differ. Empty for no
        pairs.
      arithmetic: fields in which two examples agree whose texts differ in a word. The image of one
        and the words retrieve the other. Empty for none.
      partners: examples from which the second of a pair is taken, and images of the arithmetic;
        default the split itself.
      captions: rules of captioning, see `Captioner`; empty for no captions.
      candidates: examples whose captions are the baseline of captioning, by retrieval.
      audio: examples -> a sound of each, [N, S, S], which retrieves images and texts at the end;
        None for no sounds.
      normalize: pixels from 0 to 255 -> what the model takes; default CLIP's.
      augmentation: strengths of the two views of an image that a model without texts is diagnosed
        by; empty for no diagnostics.

    Raises:
      ValueError: if a probe is unknown, no split has a field, only some examples of a split have
        it, a split has none of the classes, or the model cannot caption by the rules.
    """
    self._has_texts = 'tokens' in definition.inputs
    checks.check_settings(
      texts, probes, (*(KINDS if self._has_texts else PROBES), DENSE, FINETUNED)
    )
    if not self._has_texts:
      texts, pairs, arithmetic, partners, captions = (), (), (), None, None
    self._has_views = bool(augmentation) and not (self._has_texts or patches)
    self._encoder = Encoder(definition, tokenizer, mesh, batch_size, normalize, augmentation)
    self._mesh, self._classes, self._templates = mesh, classes, templates
    self._texts, self._probes, self._pairs, self._arithmetic = texts, probes, pairs, arithmetic
    agreeing = (*pairs, *arithmetic)
    share = partial(own_rows, batch_size=batch_size, mesh=mesh)
    read = partial(read_split, image_size=image_size, patches=patches, first=first, share=share)
    self._splits = {
      name: read(
        source, setting='splits', name=name, texts=texts, labels=(*classes, *agreeing, *numbers)
      )
      for name, source in sources.items()
    }
    self._audio = {name: audio(source) for name, source in sources.items()} if audio else {}
    probed, of_images = None, []
    if probes or numbers:
      fused = texts[:1] if any(kind.startswith(FUSED) for kind in probes) else ()
      probed = read(probe_source, setting='probe_split', texts=fused, labels=(*classes, *numbers))
      checks.check_probed(probed, fused)
    size = None if patches else image_size
    if DENSE in probes:
      of_images.append(Segmentation(definition, mesh, size, batch_size, normalize))
    if FINETUNED in probes:
      of_images.append(Finetuned(definition, mesh, size, batch_size, normalize, augmentation))
    self.probing = Probing(
      *(self._encoder, mesh, self._splits, probed, classes),
      probes=probes,
      numbers=numbers,
      field=texts[0] if texts else '',
      of_images=of_images,
    )
    self._partners = None
    if partners is not None and agreeing:
      self._partners = read(partners, setting='partners', texts=texts[:1], labels=agreeing)
    checks.check_fields(self._splits, self._partners, classes, texts, pairs, arithmetic)
    checks.check_labels(
      {name: labels_of(split, self._classes) for name, split in self._splits.items()},
      labels_of(probed, classes) if probes and probed else {},
      classes,
      probes,
    )
    self._captioner, self._candidates = None, []
    if captions:
      self._captioner = Captioner(
        definition, tokenizer, mesh, image_size, batch_size, captions, normalize
      )
      # Captions of the training data are read only on demand: they may fill the memory.
      self._candidates = captions_of(candidates, texts[0])

  @property
  def names(self) -> list[str]:
    """The names of the metrics that `__call__` returns."""
    if not self._has_texts:
      return [
        f'{name}/{own}'
        for name, split in self._splits.items()
        for own in checks.image_metric_names(
          labels_of(split, self._classes), self._probes, len(split.images) if self._has_views else 0
        )
      ]
    return [
      f'{name}/{own}'
      for name, split in self._splits.items()
      for own in checks.metric_names(
        split.fields.get(self._texts[0]), labels_of(split, self._classes), self._encoder.sides
      )
    ]

  def check_best(self, best: str) -> None:
    """Raises ValueError if `__call__` returns no metric named `best`; '' names none."""
    checks.check_best(best, self.names)

  def __call__(self, parameters) -> dict[str, float]:
    """Returns the metrics of every split: recalls, zero-shot accuracies and diagnostics."""
    return self.evaluate(parameters)[0]

  def evaluate(self, parameters) -> tuple[dict[str, float], list[EmbeddedSplit]]:
    """Returns the metrics, and the splits with texts together with their embeddings."""
    if not self._has_texts:
      return self._evaluate_images(parameters), []
    metrics, embedded, sides = {}, [], self._encoder.sides
    scale = self._encoder.scale(parameters)
    encode_text = partial(self._encoder.texts, parameters)
    class_vectors = {
      field: class_embeddings(encode_text, list(names.values()), self._templates)
      for field, names in self._classes.items()
    }
    for name, split in self._splits.items():
      image = self._encoder.first(parameters, split)
      own, shown = self._classify(image, split, class_vectors)
      if texts := split.fields.get(self._texts[0]):
        captions = list(map(first_of, texts))
        found, text = retrieve_by_query(
          image, texts, encode_text, RECALLS, mesh=self._mesh, sides=sides
        )
        space = diagnostics.diagnose(
          image, text, captions, shown['classes'], scale, self._mesh, sides=sides
        )
        own = means(found) | own | space
        sums = checksums(captions)
        found |= {name: Outcome(hits, sums) for name, hits in shown.pop('hits').items()}
        shown |= {'outcomes': found, 'first_texts': split.first_texts}
        embedded.append(EmbeddedSplit(name, split.images, captions, image, text, **shown))
      metrics |= _named(name, own)
    return metrics, embedded

  def _evaluate_images(self, parameters, final: bool = False) -> dict[str, float]:
    """Returns the metrics of images without texts: those of probes, and of two views.

    Only the final evaluation has probes other than k-NN, and regressions.
    """
    encoder = self._encoder
    embedded = {name: encoder.first(parameters, split) for name, split in self._splits.items()}
    if final:
      metrics = self.probing(parameters, embedded)
    else:
      metrics = self.probing.probe(parameters, embedded, {'neighbours'})
    for name, split in self._splits.items() if self._has_views else ():
      views = (encoder.view(parameters, split, number) for number in range(2))
      space = diagnostics.diagnose_views(
        *views, embedded[name], labels_of(split, self._classes), self._mesh
      )
      metrics |= _named(name, space)
    return metrics

  def _classify(self, image, split, class_vectors) -> tuple[dict[str, float], dict[str, Any]]:
    """Returns the zero-shot metrics of a split, its classes, predictions and outcomes."""
    metrics, labels, predictions, hits = {}, labels_of(split, self._classes), {}, {}
    for field, right in labels.items():
      classes = list(self._classes[field])
      found = class_hits(image, class_vectors[field], right, classes, ACCURACIES, mesh=self._mesh)
      scores = class_metrics(found, right)
      metrics |= {f'zero_shot_{field}_{measure}': value for measure, value in scores.items()}
      hits |= {f'zero_shot_{field}_accuracy@{k}': chances for k, chances in found.items()}
      rows = np.argmax(image @ class_vectors[field].T, axis=1)
      predictions[field] = [classes[row] for row in rows]
    return metrics, {'classes': labels, 'predictions': predictions, 'hits': hits}

  def finish(self, parameters) -> tuple[dict[str, float], list[EmbeddedSplit]]:
    """Runs `evaluate` and the protocols that are too slow during training.

    Those are the probes, retrieval by further texts and by sounds, hard pairs, arithmetic and
    captions.
    """
    if not self._has_texts:
      return self._evaluate_images(parameters, final=True), []
    metrics, embedded = self.evaluate(parameters)
    images = {split.name: split.image_embeddings for split in embedded}
    metrics |= self.probing(parameters, images)
    metrics |= self._retrieve_others(parameters, embedded)
    partners = self._embed_partners(parameters)
    metrics |= self._compare_pairs(embedded, partners)
    metrics |= self._calculate(parameters, embedded, partners)
    for split in embedded if self._audio else ():
      audio = self._encoder.audio(parameters, self._audio[split.name])
      vectors = audio, split.image_embeddings, split.text_embeddings
      recalls = audio_recalls(*vectors, split.captions, RECALLS, mesh=self._mesh)
      metrics |= _named(split.name, recalls)
    captioned, scores = self._caption(parameters, embedded)
    return metrics | scores, captioned

  def _retrieve_others(self, parameters, embedded: Sequence[EmbeddedSplit]) -> dict[str, float]:
    """Returns the recalls by further fields of texts, per language where they have several."""
    metrics, encode = {}, partial(self._encoder.texts, parameters)
    for split in embedded:
      for task, (rows, texts) in self._text_tasks(self._splits[split.name]).items():
        image = split.image_embeddings[np.array(rows)]
        recalls, _ = retrieve(
          image, texts, encode, RECALLS, mesh=self._mesh, sides=self._encoder.sides
        )
        metrics |= _named(split.name, {f'{task}_{name}': value for name, value in recalls.items()})
    return metrics

  def _text_tasks(self, split) -> dict[str, tuple[Sequence[int], Sequence]]:
    """Returns rows and texts by the name of the task, for the split's further fields of texts."""
    tasks = {}
    for field in self._texts[1:]:
      if (values := split.fields.get(field)) is None:
        continue
      if isinstance(values[0], Mapping):
        tasks |= {f'{field}_{language}': task for language, task in languages(values).items()}
      else:
        tasks[field.replace('.', '_')] = range(len(values)), values
    return tasks

  def _embed_partners(self, parameters) -> EmbeddedSplit | None:
    """Returns the partners with their embeddings; None where there are none."""
    if (split := self._partners) is None:
      return None
    captions = list(map(first_of, split.fields[self._texts[0]]))
    vectors = self._encoder.first(parameters, split), self._encoder.texts(parameters, captions)
    return EmbeddedSplit('', split.images, captions, *vectors, first_texts=split.first_texts)

  def _compare_pairs(
    self, embedded: Sequence[EmbeddedSplit], partners: EmbeddedSplit | None
  ) -> dict[str, float]:
    """Returns Winoground's scores of every split with hard pairs, and those of order alone."""
    if not self._pairs:
      return {}
    metrics = {}
    for split in embedded:
      other = partners or split
      keys, other_keys = (self._keys(each, self._pairs) for each in (split, other))
      pairs = find_pairs(keys, split.captions, other_keys, other.captions)
      ordered = pairs[same_words(pairs, split.captions, other.captions)]
      for kind, found in (('', pairs), ('order_', ordered)):
        if len(found):
          vectors = ((each.image_embeddings, each.text_embeddings) for each in (split, other))
          scores = pair_accuracies(*vectors, found, mesh=self._mesh)
          metrics |= {f'{split.name}/{kind}{name}': value for name, value in scores.items()}
    return metrics

  def _calculate(
    self, parameters, embedded: Sequence[EmbeddedSplit], partners: EmbeddedSplit | None
  ) -> dict[str, float]:
    """Returns the recalls of every split by images and words; images may be the partners'."""
    if not self._arithmetic:
      return {}
    metrics, encode = {}, partial(self._encoder.texts, parameters)
    for split in embedded:
      offered = [split] if partners is None else [split, partners]
      keys = [key for each in offered for key in self._keys(each, self._arithmetic)]
      captions = [caption for each in offered for caption in each.captions]
      examples = list(zip(keys, captions, strict=True))
      if edits := find_edits(examples, examples[: len(split.captions)]):
        images = np.concatenate([each.image_embeddings for each in offered])
        found = arithmetic_recalls(images, examples, edits, encode, RECALLS, mesh=self._mesh)
        metrics |= _named(split.name, found)
    return metrics

  def _keys(self, embedded: EmbeddedSplit, agreeing: Sequence[str]) -> list:
    """Returns the values in which two examples agree; unique ones if fields are missing."""
    fields = self._splits[embedded.name].fields if embedded.name else self._partners.fields
    if not all(field in fields for field in agreeing):
      return [object() for _ in embedded.captions]
    return list(zip(*(fields[field] for field in agreeing), strict=True))

  def _caption(self, parameters, embedded: list[EmbeddedSplit]):
    """Returns the splits with their generated captions, and the scores of these."""
    if self._captioner is None or not embedded:
      return embedded, {}
    candidates, captioned, metrics = self._encoder.texts(parameters, self._candidates), [], {}
    for split in embedded:
      split, scores = self._caption_split(parameters, split, candidates)
      captioned.append(split)
      metrics |= scores
    return captioned, metrics

  def _caption_split(self, parameters, split: EmbeddedSplit, candidates):
    """Captions a split; returns it with the captions, and their scores.

    The baseline, `retrieved_caption`, is the candidate nearest to each image.
    """
    written = self._captioner(parameters, split.images)
    _, rows = nearest(split.image_embeddings, candidates, 1, mesh=self._mesh)
    retrieved = [self._candidates[row] for row in rows[:, 0]]
    texts = {'caption': written, 'retrieved_caption': retrieved}
    own = self._splits[split.name].fields[self._texts[0]]
    references = [[right] if isinstance(right, str) else list(right) for right in own]
    metrics = {
      f'{split.name}/{kind}_{measure}': value
      for kind, captions in texts.items()
      for measure, value in score_captions(captions, references).items()
    }
    right = np.array([is_right(*pair) for pair in zip(written, references, strict=True)], float)
    found = {'caption_exact_match': Outcome(right, checksums(split.captions))}
    split = dataclasses.replace(split, generated=written, outcomes={**split.outcomes, **found})
    return split, metrics


def _named(split: str, metrics: Mapping[str, float]) -> dict[str, float]:
  return {f'{split}/{measure}': value for measure, value in metrics.items()}
