"""What the tests of CLIP-rocket and its descendants share: inputs, heads, and dense losses."""

import numpy as np

from contrastive_jax.methods import Sizes
from tests.losses import reference
from tests.models.towers import drawn

B, D = 8, 6
SIZES = Sizes(batch=B, embed=D, image_features=5, text_features=7, views=3, texts=3)
# Features that heads which are the identity may pass on.
ALIKE = SIZES._replace(image_features=D, text_features=D)
# One local pair.
PAIR = SIZES._replace(views=2, texts=1)
SINGLE = SIZES._replace(views=1, texts=1)


def inputs_of(sizes, encoders=('', 'target.'), seed=0):
  """Everything that a method reads of a batch of random features and embeddings."""
  random = np.random.default_rng(seed)
  draw = lambda *shape: random.normal(size=shape).astype(np.float32)  # noqa: E731
  found = {'image': reference.unit(random, B, D), 'text': reference.unit(random, B, D)}
  found |= {'scale': np.float32(5), 'same': np.arange(B)}
  for encoder in encoders:
    views = draw(B, sizes.views, sizes.image_features)
    texts = draw(B, sizes.texts, sizes.text_features)
    found[f'{encoder}image_features'], found[f'{encoder}text_features'] = views[:, 0], texts[:, 0]
    if sizes.views > 1:
      found[f'{encoder}view_features'] = views
    if sizes.texts > 1:
      found[f'{encoder}texts_features'] = texts
  return found


def views_and_texts(inputs, encoder=''):
  """The features of the views, and of the texts, float64 [V, B, W] and [K, B, W]."""
  names = f'{encoder}view_features', f'{encoder}texts_features'
  return [np.moveaxis(np.float64(inputs[name]), 1, 0) for name in names]


def identities(method, sizes, scale=3.0):
  """Heads that return what they are given, those of a target too."""
  heads = {name: lambda x: x for name in method.heads(sizes)}
  heads |= {f'target.{name}': lambda x: x for name in heads}
  return heads | {'scale': lambda: np.float32(scale)}


def heads_of(method, sizes):
  """Definitions and parameters of the heads."""
  definitions = method.heads(sizes)
  return definitions, {
    name: drawn(head, seed=n) for n, (name, head) in enumerate(definitions.items())
  }


def bound(definitions, parameters, targets=None):
  """The heads as modules, with those of the target."""
  modules = {name: definitions[name].bind(own) for name, own in parameters.items()}
  targets = parameters if targets is None else targets
  return modules | {f'target.{name}': definitions[name].bind(own) for name, own in targets.items()}


def normal(vectors):
  return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def cross_entropy(scores, smoothing):
  size = len(scores)
  goals = (1 - smoothing) * np.eye(size) + smoothing / size
  return -np.mean(np.sum(goals * (scores - reference.logsumexp(scores, 1)[:, None]), 1))


def dense_contrast(image, text, scale, smoothing=0.0):
  """InfoNCE with label smoothing, in whole matrices."""
  scores = scale * image @ text.T
  return (cross_entropy(scores, smoothing) + cross_entropy(scores.T, smoothing)) / 2


def dense_rocket(inputs, scale, smoothing):
  """L_CL2L of inputs whose heads are the identity."""
  views, texts = views_and_texts(inputs)
  whole = dense_contrast(np.float64(inputs['image']), inputs['text'], inputs['scale'])
  local = [
    dense_contrast(normal(x), normal(y), scale, smoothing) for x in views[1:] for y in texts[1:]
  ]
  return (whole + 2 * np.mean(local)) / 3
