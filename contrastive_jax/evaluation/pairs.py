"""Winoground-style pairs: two images and two captions that differ in a detail.

Source: Thrush et al., Winoground: Probing Vision and Language Models for Visio-Linguistic
Compositionality, 2022.
"""

import collections
import functools
import re
from collections.abc import Callable, Hashable, Sequence

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from contrastive_jax.evaluation.batches import in_batches, jit_batched, one_device, place_copies

_PAIRS_PER_BATCH = 4096
_WORD = re.compile(r'\w[\w’\'-]*')


def find_pairs(
  keys: Sequence[Hashable],
  captions: Sequence[str],
  partner_keys: Sequence[Hashable],
  partner_captions: Sequence[str],
) -> np.ndarray:
  """Finds the pairs of an example and a partner with equal keys and different captions.

  Args:
    keys: keys of N examples.
    captions: captions of the examples.
    partner_keys: keys of N' partners.
    partner_captions: captions of the partners.

  Returns:
    [P, 2] rows of the example and of the partner, in order.
  """
  groups = collections.defaultdict(list)
  for row, key in enumerate(partner_keys):
    groups[key].append(row)
  pairs = [
    (row, other)
    for row, key in enumerate(keys)
    for other in groups[key]
    if captions[row] != partner_captions[other]
  ]
  return np.array(pairs, np.int32).reshape(-1, 2)


def same_words(
  pairs: np.ndarray, captions: Sequence[str], partner_captions: Sequence[str]
) -> np.ndarray:
  """Finds the pairs whose captions hold the same words in another order, as all of Winoground's.

  Args:
    pairs: [P, 2] rows of an example and of a partner, of different captions.
    captions: captions of the examples.
    partner_captions: captions of the partners.

  Returns:
    [P] booleans.
  """
  words, others = (
    [sorted(_WORD.findall(caption.lower())) for caption in own]
    for own in (captions, partner_captions)
  )
  return np.array([words[row] == others[other] for row, other in pairs], bool)


def pair_accuracies(
  examples: tuple[np.ndarray, np.ndarray],
  partners: tuple[np.ndarray, np.ndarray],
  pairs: np.ndarray,
  *,
  mesh: Mesh | None = None,
) -> dict[str, float]:
  """Winoground's three scores; ties count as wrong. Chance is 1/4, 1/4 and 1/6.

  Args:
    examples: unit vectors of images and of texts, [N, D] each.
    partners: unit vectors of images and of texts, [N', D] each.
    pairs: [P, 2] rows of an example and of a partner.
    mesh: mesh over which pairs are sharded; None for one device.

  Returns:
    pairs_text_accuracy: share of pairs in which each image is nearer to its own text than to the
      other's.
    pairs_image_accuracy: share of pairs in which each text is nearer to its own image.
    pairs_group_accuracy: share of pairs in which both hold.

  Raises:
    ValueError: if there are no pairs.
  """
  if not len(pairs):
    raise ValueError('there are no pairs to compare')
  mesh = mesh or one_device()
  vectors = place_copies((*examples, *partners), mesh)
  judge = functools.partial(_judge_on(mesh), vectors)
  text, image = in_batches(judge, pairs, min(_PAIRS_PER_BATCH, len(pairs)), mesh)
  return {
    'pairs_text_accuracy': float(text.mean()),
    'pairs_image_accuracy': float(image.mean()),
    'pairs_group_accuracy': float((text & image).mean()),
  }


@functools.cache
def _judge_on(mesh: Mesh) -> Callable:
  return jit_batched(_judge, mesh)


def _judge(vectors, pairs):
  image, text, other_image, other_text = vectors
  row, other = pairs.T
  images = jnp.stack([image[row], other_image[other]], axis=1)
  texts = jnp.stack([text[row], other_text[other]], axis=1)
  scores = jnp.einsum('pid,ptd->pit', images, texts, precision='highest')
  own = jnp.diagonal(scores, axis1=1, axis2=2)
  swapped = jnp.diagonal(scores[:, ::-1], axis1=1, axis2=2)  # other image with own text
  return jnp.all(own > swapped[:, ::-1], axis=1), jnp.all(own > swapped, axis=1)
