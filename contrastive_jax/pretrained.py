"""Trained models as a library: images and texts in, NumPy arrays and captions out."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from contrastive_jax import data, interop
from contrastive_jax.evaluation.batches import in_batches, jit_batched
from contrastive_jax.evaluation.neighbors import nearest
from contrastive_jax.evaluation.open import evaluation_length
from contrastive_jax.evaluation.zero_shot import class_embeddings
from contrastive_jax.interop.tokenizers import ModelTokens, Tokenize, unknown_tokenizer
from contrastive_jax.interop.transforms import ImageLike, Transform
from contrastive_jax.models.generation import generate
from contrastive_jax.models.towers import check_patches
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.trained import read_trained

Images = ImageLike | Sequence[ImageLike]


class SearchResult(NamedTuple):
  """The images nearest to Q queries, best first.

  Attributes:
    indices: [Q, k] integers, indices of the images.
    scores: [Q, k] cosines.
  """

  indices: np.ndarray
  scores: np.ndarray


def load(
  folder: str | pathlib.Path,
  *,
  tokenizer: str | pathlib.Path | Tokenize | None = None,
  batch_size: int = 64,
  sequence_length: int | None = None,
) -> 'Pretrained':
  """Opens a trained model of any supported format.

      model = contrastive_jax.load('runs/coca-default')
      model.search(images, 'a red fish', k=3).indices

  Args:
    folder: one of
      a run's workdir, also in a bucket, whose newest checkpoint is read;
      an export by `launch.py --mode=export`;
      an open_clip folder, with open_clip_config.json and its .safetensors;
      a Hugging Face CLIPModel or SiglipModel, with config.json and model.safetensors, possibly in
      shards, and the transform in preprocessor_config.json or processor_config.json;
      a .safetensors file of OpenAI's CLIP.
    tokenizer: 'clip', 'emoji', the path of a file, see `data.open_tokenizer`, or a function from N
      strings to integers [N, L], padded with 0, the end token or, for SigLIP, RoBERTa and NLLB,
      their own padding.
      Default: the run's tokenizer, also for exports; of open_clip's and SigLIP's folders, the
      Hugging Face tokenizer beside the weights, with its own padding; or CLIP's, if the vocabulary
      has its size and the files name no other. Without a tokenizer only images can be encoded.
    batch_size: images or texts per batch, on all devices of this process.
    sequence_length: maximum number of patches per image, each image at its own aspect (NaFlex); 0
      for square images. Default: that of the model's evaluation, and 0 for models of others.

  Raises:
    ValueError: if the folder holds no supported model, the tokenizer does not fit it, or it takes
      no images as patches.
  """
  for name, value, low in (('batch_size', batch_size, 1), ('sequence_length', sequence_length, 0)):
    if value is not None and value < low:
      raise ValueError(f'{name} = {value}; use {low} or more')
  model, found, transform, config = read_trained(folder, tokenizer)
  if sequence_length is None and config is not None:
    sequence_length = evaluation_length(config)
  if sequence_length is not None:
    model = dataclasses.replace(model, sequence_length=sequence_length)
  if model.sequence_length:
    check_patches(model.fields)
  return Pretrained(model, found, transform, batch_size)


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
  """A model with its tokenizer and image transform, opened by `load`.

  Images are PIL images, paths of files, or arrays [H, W, 3] of uint8 or of floats from 0 to 1;
  texts are strings. Each method takes one or several and returns a row for each. Several are split
  into batches of one shape, which is compiled once.

  Attributes:
    model: fields and parameters.
    tokenizer: N strings -> integers [N, L]; None if unknown.
    transform: the image transform.
    batch_size: images or texts per batch.
  """

  model: interop.Model
  tokenizer: Tokenize | None
  transform: Transform
  batch_size: int = 64

  def encode_image(self, images: Images) -> np.ndarray:
    """Encodes images to unit vectors [N, D], float32.

    Raises:
      ValueError: if there are none, one cannot be used, or the model reads no images.
    """
    self._check_reads('image')
    return self._in_batches(self._encode_image, _listed('images', images), self._pixels)

  def encode_text(self, texts: str | Sequence[str]) -> np.ndarray:
    """Encodes texts to unit vectors [N, D], float32.

    Raises:
      ValueError: if there are none, the tokenizer is unknown, or its tokens do not fit the model.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    return self._in_batches(self._encode_text, _listed('texts', texts), self.tokenize)

  def encode_second_text(self, texts: str | Sequence[str]) -> np.ndarray:
    """Unit vectors [N, D], float32, of texts as the second of a pair; see `encode_text`.

    Raises:
      ValueError: as `encode_text`, or if the model compares no pairs of texts.
    """
    self._check_reads('second_tokens')
    texts = [texts] if isinstance(texts, str) else list(texts)
    return self._in_batches(self._encode_second_text, _listed('texts', texts), self.tokenize)

  def caption(self, images: Images, *, key: jax.Array | None = None, **rules) -> list[str]:
    """Generates a caption for each image.

        model.caption(images)                                     # greedy
        model.caption(images, beams=4, rerank=True)
        model.caption(images, temperature=0.7, top_p=0.9, key=jax.random.key(0))

    Args:
      images: N images.
      key: random key of sampling; required with a temperature.
      **rules: fields of `models.generation.Rules`, except the tokenizer's ids.

    Raises:
      ValueError: if the model has no captioner, or a rule is out of range.
    """
    if 'decoder' not in self.model.fields:
      raise ValueError(f'the model is a {self.model.fields["name"]}, which has no captioner')
    if not isinstance(self.tokenizer, data.Tokenizer):
      raise ValueError(
        f'captions need a data.Tokenizer, which decodes, and not {self.tokenizer!r}; load with '
        "tokenizer='clip', or the path of its file"
      )
    rules |= {'start_id': self.tokenizer.start_id, 'end_id': self.tokenizer.end_id}
    batches = itertools.count()

    def write(parameters, pixels):
      model, number = self.model.definition.bind(parameters), next(batches)
      batch_key = None if key is None else jax.random.fold_in(key, number)
      return generate(model, self.transform.normalize(pixels), key=batch_key, **rules).tokens

    tokens = self._in_batches(write, _listed('images', images), self._pixels)
    return [self.tokenizer.decode(row) for row in tokens]

  def classify(
    self, images: Images, labels: Sequence[str], *, templates: Sequence[str] = ('{}',)
  ) -> np.ndarray:
    """Returns probabilities [N, K] of labels: the softmax of scale · cosine.

    A model with a bias, such as SigLIP, was trained on independent pairs: its probabilities are the
    sigmoid of scale · cosine + bias, and rows need not sum to 1.

    Args:
      images: N images, or embeddings [N, D].
      labels: K names, as they appear in the prompts.
      templates: prompts with `{}` for the name, whose embeddings are averaged.

    Raises:
      ValueError: see `encode_image` and `encode_text`; or if a template has no `{}`.
    """
    class_vectors = class_embeddings(self.encode_text, _listed('labels', labels), templates)
    cosines = self._embeddings_of('images', images, self.encode_image) @ class_vectors.T
    bound = self.model.definition.bind(self._parameters)
    logits = np.exp(bound.log_scale[...]) * cosines
    if bound.bias is None:
      return np.asarray(jax.nn.softmax(logits, axis=1))
    return np.asarray(jax.nn.sigmoid(logits + bound.bias[...]))

  def search(
    self, images: Images, queries: str | Sequence[str] | Images, k: int = 5
  ) -> SearchResult:
    """Returns the k images nearest to each query.

    Args:
      images: N images, or embeddings [N, D], which can be reused between searches.
      queries: Q texts, Q images, or Q embeddings [Q, D]; or a single one. Strings are texts, never
        paths.
      k: number of images per query, at most N.

    Returns:
      Indices and cosines; −1 and −inf where fewer than k cosines are numbers.

    Raises:
      ValueError: see `encode_image` and `encode_text`; or if there are fewer than k images.
    """
    are_texts = isinstance(queries, str) or (
      not isinstance(queries, np.ndarray | jax.Array | pathlib.Path)
      and all(isinstance(query, str) for query in _listed('queries', queries))
    )
    encode = self.encode_text if are_texts else self.encode_image
    candidates = self._embeddings_of('images', images, self.encode_image)
    if not 1 <= k <= len(candidates):
      raise ValueError(f'k = {k} of {len(candidates)} images; use 1 to {len(candidates)}')
    embedded = self._embeddings_of('queries', queries, encode)
    scores, indices = nearest(embedded, candidates, k, mesh=self._mesh)
    return SearchResult(indices, scores)

  def _check_reads(self, name: str) -> None:
    if name not in (reads := self.model.definition.inputs):
      raise ValueError(f'the model is a {self.model.fields["name"]}, which reads {reads}')

  def _embeddings_of(self, name: str, given, encode: Callable) -> np.ndarray:
    """Returns embeddings as they are, and encodes anything else."""
    if not isinstance(given, np.ndarray | jax.Array) or given.ndim > 2:
      return encode(given)
    rows = np.atleast_2d(np.asarray(given, np.float32))
    if rows.shape[1] != (D := self.model.fields['embed']) or not len(rows):
      raise ValueError(f'{name} are {given.shape}; give embeddings [N, {D}], or images')
    return rows

  @property
  def patches(self) -> tuple[int, int] | None:
    """Number and side of the patches that the model takes of an image; None for square images."""
    length = self.model.sequence_length
    return (length, self.model.fields['image']['patch']) if length else None

  def _pixels(self, images: Sequence[ImageLike]) -> Any:
    if self.patches:
      cut = [self.transform.patches(image, *self.patches) for image in images]
      return data.Patches(*map(np.stack, zip(*cut, strict=True)))
    size = self.model.fields['image']['size']
    return np.stack([self.transform.pixels(image, size) for image in images])

  def tokenize(self, texts: Sequence[str]) -> np.ndarray:
    """Tokenizes N texts to integers [N, L], padded with 0 as the model takes them.

    Raises:
      ValueError: if the tokenizer is unknown, or its tokens do not fit the model.
    """
    if self.tokenizer is None:
      raise ValueError(unknown_tokenizer(self.model))
    return ModelTokens(self.tokenizer, self.model)(texts)

  def _in_batches(self, function: Callable, inputs: Sequence, prepare: Callable) -> np.ndarray:
    """Applies a function of (parameters, batch) to inputs, which `prepare` turns into batches."""
    # Sizes are powers of two: few shapes are compiled, and a single image is a small batch.
    size = min(self.batch_size, 1 << (len(inputs) - 1).bit_length())
    apply = functools.partial(function, self._parameters)
    batches = (prepare(inputs[start : start + size]) for start in range(0, len(inputs), size))
    return np.concatenate([in_batches(apply, batch, size, self._mesh) for batch in batches])

  @functools.cached_property
  def _mesh(self):
    return make_mesh(devices=jax.local_devices())

  @functools.cached_property
  def _parameters(self) -> Any:
    return jax.device_put(self.model.parameters, NamedSharding(self._mesh, PartitionSpec()))

  @functools.cached_property
  def _encode_image(self) -> Callable:
    bind, normalize = self.model.definition.bind, self.transform.normalize

    def encode(parameters, pixels):
      return bind(parameters).encode_image(normalize(pixels)).astype('float32')

    return jit_batched(encode, self._mesh)

  @functools.cached_property
  def _encode_text(self) -> Callable:
    return self._encoder_of('encode_text')

  @functools.cached_property
  def _encode_second_text(self) -> Callable:
    return self._encoder_of('encode_second_text')

  def _encoder_of(self, method: str) -> Callable:
    """The jitted function of parameters and tokens that calls a method of the model."""

    def encode(parameters, tokens):
      return getattr(self.model.definition.bind(parameters), method)(tokens).astype('float32')

    return jit_batched(encode, self._mesh)


def _listed(name: str, given) -> Sequence:
  """Returns one or several inputs as a sequence."""
  is_array = isinstance(given, np.ndarray | jax.Array)
  one = np.ndim(given) == 3 if is_array else isinstance(given, ImageLike)
  listed = [given] if one else given if is_array else list(given)
  if not len(listed):
    raise ValueError(f'{name} is empty; give one or more')
  return listed
