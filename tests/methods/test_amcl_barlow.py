"""AMCL on Barlow Twins, as its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.losses.views.adaptive import SHARES
from contrastive_jax.methods.amcl_barlow import AmclBarlow
from contrastive_jax.methods.method import Sizes
from tests.losses import dense

B, D, C = 8, 5, 2
SIZES = Sizes(batch=B, embed=D, image_features=512, views=2)


def test_the_loss_is_a_sum_over_projections():
  rng = np.random.default_rng(0)
  views = rng.normal(size=(2, B, D))
  views = ((views - views.mean(1, keepdims=True)) / views.std(1, keepdims=True)).astype('f')
  kernel = rng.normal(size=(B, B)).astype('f')
  heads = {f'projector_{n}': lambda x, n=n: jnp.roll(x, n, 0) for n in range(C)}
  method = AmclBarlow(projectors=C, outputs=D, beta=1e-3, bounds=(0.1, 1.5), off_diagonal=0.1)
  inputs = dict(zip(method.reads, views, strict=True))

  @jax.jit
  def loss(inputs):
    result = method.loss(inputs, heads | {'temperature': phi}, {}, None)
    return result.loss, dict(result.metrics)

  def phi(x):
    return jnp.sin(x @ kernel)

  expected = 0.0
  for n in range(C):
    first, second = np.roll(views, n, 1)
    expected += float(dense.adaptive_barlow_twins(first, second, phi, 0.1, 1e-3, (0.1, 1.5))[0])
  found, metrics = loss(inputs)
  assert found == pytest.approx(expected, rel=1e-4)
  assert metrics.keys() == set(SHARES)


def test_the_sizes_are_the_papers():
  heads = AmclBarlow().heads(SIZES._replace(batch=512))
  sizes = {
    name: sum(leaf.size for leaf in jax.tree.leaves(head.shapes)) for name, head in heads.items()
  }
  projector = 2048 * (512 + 2 * 2048) + 4 * 2048
  phi = 2 * 512 * 128 + 512 + 128
  assert sizes == {f'projector_{n}': projector for n in range(3)} | {'temperature': phi}
