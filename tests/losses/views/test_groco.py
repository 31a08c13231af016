"""GroCo: its dependence on the gap between positives and negatives, and on the number of either."""

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.methods import METHODS
from tests.losses import dense
from tests.methods import image_views

B, V, K = 6, 3, 4


def views_at(cosine):
  """Orthogonal examples, whose views have one cosine with each other."""
  eye = np.eye(B * (V + 1)).reshape(V + 1, B, -1)
  return np.stack([cosine**0.5 * eye[0] + (1 - cosine) ** 0.5 * own for own in eye[1:]], 1)


def test_the_loss_falls_as_positives_exceed_negatives_by_more():
  with jax.enable_x64(True):
    loss = jax.jit(lambda views: losses.groco(views, k=K))
    found = [float(loss(views_at(cosine))) for cosine in (0.0, 0.2, 0.5, 1.0)]
  assert found == sorted(found, reverse=True) and len(set(found)) == 4


def test_a_steep_network_has_no_loss_above_the_negatives():
  steep = jax.jit(lambda views: losses.groco_per_example(views, k=K, steepness=1e6))
  np.testing.assert_allclose(steep(np.float32(views_at(0.5))), 0, atol=1e-4)


@pytest.mark.parametrize('k', [0, B])
def test_as_many_negatives_as_there_are(k):
  with pytest.raises(ValueError, match=rf'k = {k} for views \(6, 3, 24\); use 1 to 5'):
    losses.groco(np.float32(views_at(0.5)), k=k)


def test_the_method_sorts_projections():
  """With a projector that is the identity."""
  method, inputs = METHODS['groco'](k=2, steepness=3.0), image_views.inputs_of()
  heads = image_views.identities(method)
  found = jax.jit(lambda inputs: method.loss(inputs, heads, {}, None).loss)(inputs)
  views = np.stack(
    [z / np.linalg.norm(z, axis=1)[:, None] for z in image_views.views_of(inputs)], 1
  )
  assert found == pytest.approx(float(np.mean(dense.groco(views, k=2, steepness=3.0))), rel=1e-5)
