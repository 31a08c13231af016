"""The figure of experiments/masks, of a tiny model."""

import numpy as np
import pytest

from contrastive_jax.data.images import normalize
from experiments.masks import figure as drawing
from tests.models import test_masked


@pytest.mark.slow
def test_the_figure_shows_masks_of_three_quarters():
  images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
  figure = drawing.draw_figure(images, test_masked.model(), normalize, 0.5)
  shown = np.array([axis.images[0].get_array() for axis in figure.axes[2::6]])
  assert len(figure.axes) == 2 * len(drawing.COLUMNS)
  assert np.mean(np.all(shown == drawing.GRAY, -1)) == pytest.approx(0.75, abs=0.01)
  np.testing.assert_allclose(figure.axes[0].images[0].get_array(), images[0] / 255, atol=1e-5)
