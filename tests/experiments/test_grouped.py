"""The methods of experiments/grouped are one loss."""

import jax
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.sharding.mesh import make_mesh
from experiments.grouped import methods
from tests.losses import reference


@pytest.mark.slow
@pytest.mark.parametrize('groups', [1, 4, 8])
@pytest.mark.parametrize('name', methods.METHODS)
def test_every_method_is_the_same_loss(name, groups):
  image, text = reference.unit(np.random.default_rng(0), 2, 64, 8)
  scale, mesh = np.float32(14.3), make_mesh(devices=jax.devices()[:8])

  def measured(image, text, scale):
    return methods.METHODS[name](image, text, scale, mesh, groups)

  def alone(image, text, scale):
    return losses.info_nce(image, text, scale=scale, groups=groups)

  found, expected = (
    jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(image, text, scale) for loss in (measured, alone)
  )
  jax.tree.map(reference.assert_near, found, expected)
