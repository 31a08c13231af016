"""What the tests of methods for views of images share: features of views, and heads."""

import numpy as np

from contrastive_jax.methods import Sizes

B, V, W = 8, 3, 6
SIZES = Sizes(batch=B, embed=W, image_features=W, views=V)


def inputs_of(views=V, encoders=('', 'target.'), seed=0):
  """Random features of views, by name."""
  random = np.random.default_rng(seed)
  found = {}
  for encoder in encoders:
    features = random.normal(size=(B, views, W)).astype(np.float32)
    found[f'{encoder}view_features'] = features
    found |= {f'{encoder}features_of_view.{n}': features[:, n] for n in range(views)}
  return found


def views_of(inputs, encoder=''):
  """The features of the views, float64 [V, B, W]."""
  return np.moveaxis(np.float64(inputs[f'{encoder}view_features']), 1, 0)


def identities(method):
  """Heads that return what they are given, those of a target too."""
  heads = {name: lambda x: x for name in method.heads(SIZES)}
  return heads | {f'target.{name}': lambda x: x for name in heads}
