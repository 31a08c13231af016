import jax
import numpy as np

from contrastive_jax.models.definition import define_from
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.models.super_resolution import Discriminator, Generator, enlarge, reduce
from tests.models.towers import drawn, run


def bind(network, *sizes):
  definition = define_from(lambda key: network(*sizes, rngs=ParameterKeys(key)))
  return definition.bind(drawn(definition))


def test_the_generator_adds_to_bicubic_enlargement_at_any_size():
  module = bind(Generator, 4, 1, 2)
  x = np.random.default_rng(0).uniform(size=(2, 6, 8, 3)).astype(np.float32)
  enlarged = np.asarray(jax.jit(enlarge, static_argnums=1)(x, 2))
  assert run(module, x).shape == (2, 12, 16, 3)
  module.last.kernel[...] = np.zeros_like(module.last.kernel[...])
  module.last.bias[...] = np.zeros(12, np.float32)
  np.testing.assert_allclose(run(module, x), enlarged, atol=1e-6)
  # Every pixel of a square has channels of its own
  module.last.bias[...] = np.arange(12, dtype=np.float32)
  detail = run(module, x) - enlarged
  np.testing.assert_allclose(detail[0, :2, :2].reshape(-1), np.arange(12), atol=1e-5)
  np.testing.assert_allclose(detail[1, 4:6, 2:4].reshape(-1), np.arange(12), atol=1e-5)


def test_the_discriminator_halves_the_side_per_layer():
  logits, features = jax.eval_shape(bind(Discriminator, 4, 3), np.zeros((2, 16, 16, 3), np.float32))
  assert [f.shape for f in features] == [(2, 16, 16, 4), (2, 8, 8, 8), (2, 4, 4, 16)]
  assert logits.shape == (2, 4, 4)


def test_a_constant_image_survives_both_ways():
  x = np.full((1, 8, 8, 3), 0.4, np.float32)
  np.testing.assert_allclose(enlarge(reduce(x, 2), 2), x, rtol=1e-5)
