"""A split and its embeddings by a model."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from contrastive_jax import data
from contrastive_jax.evaluation.outcomes import Outcome


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddedSplit:
  """N pairs of a split and their embeddings by a model. Row i of each field is pair i.

  In a pair of texts the first text takes the place of the image.

  Attributes:
    name: the split's name, the prefix of its metrics.
    images: [N, S, S, 3] uint8, an array or `data.DecodedImages`; None in pairs of texts.
    captions: N strings, of pairs of texts the second ones. Pairs of equal caption are positives of
      each other.
    image_embeddings: [N, D] float32 unit vectors.
    text_embeddings: [N, D] float32 unit vectors.
    generated: N generated captions; None if the model has no captioner.
    classes: N labels by field.
    predictions: N predicted labels by field.
    outcomes: outcome per query, by the name of the metric that is their mean.
    first_texts: N strings, the first texts of pairs of texts; None beside images.

  Raises:
    ValueError: if a field has another shape or dtype.
  """

  name: str
  images: np.ndarray | data.DecodedImages | None
  captions: Sequence[str]
  image_embeddings: np.ndarray
  text_embeddings: np.ndarray
  generated: Sequence[str] | None = None
  classes: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  predictions: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  outcomes: Mapping[str, Outcome] = dataclasses.field(default_factory=dict)
  first_texts: Sequence[str] | None = None

  def __post_init__(self):
    N = len(self.captions)
    images = self.images
    if images is None:
      if self.first_texts is None or len(self.first_texts) != N:
        raise ValueError(f'split {self.name!r} has no images; give N = {N} first_texts')
    elif images.dtype != np.uint8 or images.ndim != 4 or images.shape[::3] != (N, 3):
      raise ValueError(
        f'images of split {self.name!r} are {images.dtype} {images.shape}; '
        f'give uint8 [N, S, S, 3] with N = {N}, the number of captions'
      )
    for field in ('image_embeddings', 'text_embeddings'):
      shape = getattr(self, field).shape
      if len(shape) != 2 or shape != (N, self.image_embeddings.shape[1]):
        raise ValueError(
          f'{field} of split {self.name!r} have shape {shape}; give [N, D] with N = {N}, '
          'the number of captions, and the same D for images and texts'
        )
    if self.generated is not None and len(self.generated) != N:
      raise ValueError(
        f'generated of split {self.name!r} has {len(self.generated)} captions; give N = {N}'
      )
    for kind in ('classes', 'predictions'):
      for field, labels in getattr(self, kind).items():
        if len(labels) != N or field not in self.classes:
          raise ValueError(
            f'{kind} of split {self.name!r} have {len(labels)} labels of {field!r}; give N = {N}, '
            'and predictions of fields that classes hold'
          )
