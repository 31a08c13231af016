"""AMCL on SimCLR and on MoCo, as their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.losses.views.adaptive import SHARES
from contrastive_jax.methods.amcl import Amcl, AmclMoCo
from contrastive_jax.methods.method import Result, Sizes
from tests.losses import dense, reference

B, D, C, Q = 4, 6, 2, 8
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(2, B, D)).astype('f')
KERNEL = RNG.normal(size=(D, D)).astype('f')
OPTIONS = {'projectors': C, 'outputs': D, 'beta': 0.01, 'bounds': (0.1, 1.5)}
SIZES = Sizes(batch=B, embed=D, image_features=D, views=2)


def phi(z):
  return 3 * jnp.sin(z @ KERNEL)


def project(n, features, encoder=''):
  """By feature number of a projector, and by encoder."""
  return jnp.roll(features, n, -1) + n * (1 + bool(encoder))


HEADS = {'temperature': phi} | {
  f'{encoder}projector_{n}': lambda x, n=n, encoder=encoder: project(n, x, encoder)
  for encoder in ('', 'target.')
  for n in range(C)
}


def step(method, inputs, memory=()):
  """The compiled loss, with its writes and metrics."""

  @jax.jit
  def loss(inputs):
    value, *others = method.loss(inputs, HEADS, memory, None)
    return value, *map(dict, others)

  return Result(*loss(inputs))


def embed(*rows):
  """Unit vectors and their φ, in float64."""
  rows = np.float64(np.concatenate(rows))
  z = rows / np.linalg.norm(rows, axis=1, keepdims=True)
  return z, 3 * np.sin(z @ np.float64(KERNEL))


@pytest.mark.parametrize('k', [3, 100])
def test_on_simclr_the_negatives_are_the_views_of_other_examples(k):
  method = Amcl(k=k, **OPTIONS)
  inputs = dict(zip(method.reads, FEATURES, strict=True))
  result = step(method, inputs)
  others = ~np.tile(np.eye(B, dtype=bool), (2, 2))
  expected, near = 0.0, []
  with jax.enable_x64(True):
    for n in range(C):
      anchors, positives = (embed(*(project(n, x) for x in FEATURES[::way])) for way in (1, -1))
      options = min(k, 2 * B - 2), 0.01, (0.1, 1.5)
      loss, *tau = dense.adaptive_contrast(anchors, positives, anchors, others, *options)
      expected += np.mean(loss)
      near.append([[np.mean(a < 0.114), np.mean(a > 1.486)] for a in tau])
  assert result.loss == pytest.approx(float(expected), rel=1e-4)
  shares = [result.metrics[name] for name in SHARES]
  np.testing.assert_allclose(shares, np.mean(near, 0).ravel(), atol=1e-6)


def test_on_moco_they_are_the_keys_of_earlier_batches():
  method = AmclMoCo(k=3, length=Q, **OPTIONS)
  inputs = dict(zip(method.reads, FEATURES, strict=True))
  queues = [jnp.asarray(reference.unit(RNG, B, Q // B, D)) for _ in range(C)]
  memory = {'written': np.int32(1)} | {f'keys_{n}': queue for n, queue in enumerate(queues)}
  result = step(method, inputs, memory)
  expected = 0.0
  with jax.enable_x64(True):
    for n, queue in enumerate(queues):
      vectors = embed(project(n, FEATURES[0])), embed(project(n, FEATURES[1], 'target.'))
      vectors = *vectors, embed(queue.reshape(Q, D))
      loss, *_ = dense.adaptive_contrast(*vectors, True, 3, 0.01, (0.1, 1.5))
      expected += np.mean(loss)
      np.testing.assert_allclose(result.writes[f'keys_{n}'], vectors[1][0], rtol=1e-4, atol=1e-6)
  assert result.loss == pytest.approx(float(expected), rel=1e-4)
  after = method.update(memory, result.writes, {}, None)
  np.testing.assert_array_equal(after['keys_1'][:, 1], result.writes['keys_1'])
  np.testing.assert_array_equal(after['keys_1'][:, 0], queues[1][:, 0])
  assert after['written'] == 2


def test_the_sizes_are_the_papers():
  heads = AmclMoCo().heads(SIZES._replace(image_features=512))
  sizes = {
    name: sum(leaf.size for leaf in jax.tree.leaves(head.shapes)) for name, head in heads.items()
  }
  projector = 512 * 512 + 512 + 512 * 128 + 128
  assert sizes == {f'projector_{n}': projector for n in range(3)} | {'temperature': 2 * 128 * 129}
  memory = AmclMoCo().memory(SIZES)
  assert {name for name in memory if 'keys' in name} == {f'keys_{n}' for n in range(3)}
  assert memory['keys_0'].shape == (B, 4096 // B, 128)


def test_what_has_no_loss_is_refused():
  with pytest.raises(ValueError, match=r'bounds = \(2.0, 1.0\); use 0 < low < high'):
    Amcl(bounds=(2.0, 1.0))
  with pytest.raises(ValueError, match='projectors = 0'):
    Amcl(projectors=0)
  with pytest.raises(ValueError, match=r'config\.batch_size = 1 has no negatives'):
    Amcl().heads(SIZES._replace(batch=1))
  with pytest.raises(ValueError, match=r'config\.objective\.amcl_moco\.length = 6 is not'):
    AmclMoCo(length=6).memory(SIZES)
