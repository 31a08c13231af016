"""Finetuning as a probe: the image tower and a linear layer, trained on the examples of probes.

As MAE [1] does, for a short time: AdamW, a cosine schedule, the augmentation of the run, and the
mean of the tokens or whatever the tower pools. All layers have one learning rate.

References:
  [1] He et al., Masked Autoencoders Are Scalable Vision Learners, 2021.
"""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from contrastive_jax.data.augmentation import augment
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation import finetuning
from contrastive_jax.evaluation.splits import Split, labels_of
from contrastive_jax.evaluation.zero_shot import mean_per_class
from contrastive_jax.models.definition import Definition
from contrastive_jax.sharding.mesh import batch_shards

STEPS, BATCH = 200, 128  # of each field of classes; at most the examples
RATE, WEIGHT_DECAY = 1e-3, 0.05
_WARMUP = 0.05  # share of the steps


class Finetuned:
  """Finetunes a model on the examples of the probes, and tests it on splits.

  Args:
    definition: the model, with a tower of square images.
    mesh: over which batches are sharded.
    image_size: S, the side of its images; None for a model without.
    batch_size: images per batch of the test.
    normalize: pixels from 0 to 255 -> what the model takes.
    augmentation: strengths of the augmentation of the training, see `augment`.

  Raises:
    ValueError: if the model takes no square images.
  """

  def __init__(
    self,
    definition: Definition,
    mesh: Mesh,
    image_size: int | None,
    batch_size: int,
    normalize: Callable = normalize,
    augmentation: Mapping[str, float] = MappingProxyType({}),
  ):
    if image_size is None:
      raise ValueError(
        "config.evaluation.probes: 'finetuned' takes a model of square images; leave 'finetuned' "
        'out'
      )
    self._definition, self._mesh, self._normalize = definition, mesh, normalize
    self._batch_size, strengths = batch_size, dict(augmentation)
    self._augment = lambda keys, images: augment(keys, images, image_size, strengths)

  def __call__(
    self,
    parameters,
    probed: Split,
    splits: Mapping[str, Split],
    classes: Mapping[str, Mapping[str, str]],
  ) -> dict[str, float]:
    """Returns the accuracy and the mean per-class recall of every split, by fields of classes.

    Args:
      parameters: the model's, which stay as they are.
      probed: the examples to finetune on.
      splits: those to test on, by name; a label that `probed` lacks counts as wrong.
      classes: names by label, by field.
    """
    metrics = {}
    tests = {name: labels_of(split, classes) for name, split in splits.items()}
    for field, labels in labels_of(probed, classes).items():
      classify, known = self._finetune(parameters, probed.images, labels)
      for name, own in tests.items():
        if field in own:
          predicted = classify(splits[name].images)
          right = np.array([known[k] == v for k, v in zip(predicted, own[field], strict=True)])
          metrics |= {
            f'{name}/{field}_finetuned_accuracy': float(right.mean()),
            f'{name}/{field}_finetuned_mean_per_class_recall': mean_per_class(right, own[field]),
          }
    return metrics

  def _finetune(self, parameters, images, labels: list[str]) -> tuple[Callable, list[str]]:
    """Images -> numbers of classes, and the classes."""
    known, codes = np.unique(labels, return_inverse=True)
    classifier = finetuning.define_classifier(self._definition, len(known), 0)

    def heads(key):  # alone, which compiles faster than with a tower
      return {name: part for name, part in classifier.init(key).items() if name != 'image'}

    start = jax.jit(heads)(jax.random.key(0)) | {'image': parameters['image']}
    schedule = optax.warmup_cosine_decay_schedule(0, RATE, round(_WARMUP * STEPS), STEPS)
    shards = batch_shards(self._mesh)
    shared = {'mesh': self._mesh, 'normalize': self._normalize}
    trained = finetuning.fit(
      classifier,
      start,
      optax.adamw(schedule, weight_decay=WEIGHT_DECAY),
      images,
      codes.astype(np.int32),
      steps=STEPS,
      batch_size=max(min(BATCH, len(labels)) // shards, 1) * shards,
      augment=self._augment,
      **shared,
    )
    options = {'batch_size': self._batch_size, **shared}
    classify = functools.partial(finetuning.classify, classifier, trained, **options)
    return classify, known.tolist()
