import itertools

import jax
import numpy as np
import pytest

from contrastive_jax.sharding.mesh import make_mesh
from experiments.loss_scaling import methods
from tests.doubles import slow_but
from tests.losses import reference


@pytest.mark.parametrize(
  ('name', 'devices'),
  slow_but(
    itertools.product(methods.METHODS, (1, 8)),
    *((name, 8) for name in methods.METHODS),
  ),
)
def test_every_method_is_the_same_loss(name, devices):
  rng = np.random.default_rng(0)
  image, text = reference.unit(rng, 2, 256, methods.EMBEDDING)
  scale = np.float32(14.3)
  mesh = make_mesh(devices=jax.devices()[:devices])
  program = methods.compile_gradients(methods.METHODS[name], 256, mesh)
  rows, whole = program.input_shardings[0][0], program.input_shardings[0][2]
  value, gradients = program(*jax.device_put((image, text, scale), (rows, rows, whole)))
  truth, expected = reference.info_nce(image, text, scale)
  reference.assert_near(value, truth)
  for got, gradient, floor in zip(gradients, expected, (scale / 256, scale / 256, 1), strict=True):
    reference.assert_near(got, gradient, floor)
