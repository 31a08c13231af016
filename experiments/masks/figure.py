"""The figure of the masks that HPM chooses, and of what it reconstructs."""

from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from contrastive_jax import data
from experiments import records

matplotlib.use('Agg')
from matplotlib import pyplot

PLOT = records.ROOT / 'docs' / 'masks.png'
SOURCE = 'heldout_style'
# Names of the emoji that are drawn.
CAPTIONS = ('red apple', 'owl', 'sailboat', 'alarm clock', 'guitar', 'grinning face')
GRAY = 0.8  # of masked patches
COLUMNS = ('image', 'predicted error', 'HPM', 'reconstruction', 'random', 'reconstruction')


def read_images(size: int) -> np.ndarray:
  """The emoji of `CAPTIONS`, [N, S, S, 3] pixels from 0 to 255."""
  source = data.open_source('emoji', SOURCE)
  captions = list(source.values('caption'))
  rows = [captions.index(caption) for caption in CAPTIONS]
  return data.DecodedImages(source, size)[np.array(rows)]


def draw_figure(images: np.ndarray, model: Any, normalize, share: float) -> Any:
  """The figure: a row per image, and `COLUMNS`.

  Args:
    images: [N, S, S, 3] pixels.
    model: a masked autoencoder with a loss predictor.
    normalize: pixels -> what the model takes.
    share: of the masked patches that are the hardest.
  """
  seen, keys = normalize(jnp.asarray(images)), jax.random.split(jax.random.key(0), len(images))
  errors = model.encode({'image': seen}).predicted_errors
  black, white = (normalize(jnp.full((1, 1, 1, 3), level, jnp.uint8)) for level in (0, 255))
  show = lambda found: np.clip((found - black) / (white - black), 0, 1)  # noqa: E731
  patch, side = model.image.patch, model.image.size // model.image.patch
  columns = [show(seen), errors.reshape(-1, side, side)]
  for hard in (share, 0.0):
    kept, masked = model.draw_masks(keys, errors, hard)
    hidden = jnp.zeros(errors.shape, bool).at[jnp.arange(len(images))[:, None], masked].set(True)
    hidden = hidden.reshape(-1, side, side).repeat(patch, 1).repeat(patch, 2)
    columns.append(np.where(hidden[..., None], GRAY, show(seen)))
    columns.append(show(model.reconstruct(seen, kept, masked)))
  size = (len(COLUMNS), len(images))
  figure, axes = pyplot.subplots(*size[::-1], figsize=size, dpi=80, layout='constrained')
  for row in range(len(images)):
    for column, found in enumerate(columns):
      axes[row, column].imshow(found[row], cmap='magma', interpolation='nearest')
      axes[row, column].axis('off')
  for title, axis in zip(COLUMNS, axes[0], strict=True):
    axis.set_title(title, fontsize=7)
  return figure
