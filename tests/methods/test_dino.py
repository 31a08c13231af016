import jax
import numpy as np
import pytest

from contrastive_jax.methods import METHODS, inputs
from tests.losses import reference
from tests.methods import image_views
from tests.methods.image_views import SIZES, V, W
from tests.methods.test_self_distillation import cross_entropy


def test_the_loss_is_the_dense_one_over_pairs_of_a_global_view_and_another():
  method, given = METHODS['dino'](prototypes=W), image_views.inputs_of()
  heads = image_views.identities(method)
  center = np.random.default_rng(1).normal(size=W).astype(np.float32)
  aims = image_views.views_of(given, 'target.')

  def loss(features):
    return method.loss(given | {'view_features': features}, heads, {'center': center}, None)

  def dense(features):
    pairs = [(g, v) for g in (0, 1) for v in range(V) if v != g]
    return np.mean([cross_entropy(features[:, v], aims[g], center) for g, v in pairs])

  features = given['view_features']
  result = loss(features)
  reference.assert_near(result.loss, dense(np.float64(features)))
  gradient = jax.jit(jax.grad(lambda features: loss(features).loss))(features)
  reference.assert_near(gradient, reference.differences(dense, features)[0])
  np.testing.assert_allclose(result.writes['center'], aims[:2].mean((0, 1)), rtol=1e-4, atol=1e-6)


def test_the_target_sees_the_global_views_alone():
  reads = METHODS['dino']().reads
  assert inputs.views_read(reads, 'target', 8, False) == {0, 1}
  assert inputs.views_read(reads, '', 8, False) == set(range(8))
  assert inputs.count(reads, 'view_features', 'features_of_view') == 2


def test_a_target_of_one_prototype_has_no_entropy():
  method, given = METHODS['dino'](prototypes=W), image_views.inputs_of()
  collapsed = {f'target.features_of_view.{g}': 50 * np.eye(W)[[0] * SIZES.batch] for g in (0, 1)}
  heads = image_views.identities(method)
  result = method.loss(given | collapsed, heads, {'center': np.zeros(W)}, None)
  assert result.metrics['entropy'] == pytest.approx(0, abs=1e-6)
