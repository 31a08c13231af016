"""AMCL on MoCo, as its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods.amcl_moco import AmclMoCo
from tests.losses import dense, reference
from tests.methods.adaptive import FEATURES, OPTIONS, RNG, SIZES, B, C, D, embed, project, step

Q = 8


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


def test_a_queue_holds_whole_batches():
  with pytest.raises(ValueError, match=r'config\.objective\.amcl_moco\.length = 6 is not'):
    AmclMoCo(length=6).memory(SIZES)
