import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax.methods import METHODS, Objective
from contrastive_jax.methods.interclr import InterClr
from contrastive_jax.methods.moco import MoCo
from contrastive_jax.methods.semi_hard import _drawn, _uniform, shift
from contrastive_jax.sharding.mesh import make_mesh
from tests.losses import reference

B, D, N, K, Q = 8, 6, 64, 8, 16
SMALL = {'length': Q, 'clusters': K, 'negatives': N, 'nearest': 0}
KEY = jax.random.key(0)


def unit(seed, size):
  return jnp.asarray(reference.unit(np.random.default_rng(seed), size, D))


INPUTS = {'first': unit(0, B), 'target.second': unit(1, B), 'id': jnp.arange(B) * 3}


def memory_of(labels=None):
  """A full bank; each example has a label of its own unless labels are given."""
  labels = np.arange(N) if labels is None else labels
  return {
    'second': unit(2, Q).reshape(B, Q // B, D),
    'written': jnp.int32(2),
    'bank': unit(3, N),
    'labels': jnp.asarray(labels, jnp.int32),
    'centroids': unit(4, K),
  }


@functools.partial(jax.jit, static_argnums=0)
def value_and_grad(method, x, memory):
  def loss(x):
    result = method.loss(INPUTS | {'first': x}, {}, memory, KEY)
    return result.loss, dict(result.metrics)

  return jax.value_and_grad(loss, has_aux=True)(x)


def test_of_weight_0_it_is_moco():
  options = {'length': Q, 'scale': 5.0, 'in_batch': False, 'symmetric': False}
  found, expected = (
    value_and_grad(method, INPUTS['first'], memory_of())
    for method in (InterClr(**SMALL, inter=0.0), MoCo(**options))
  )
  jax.tree.map(
    np.testing.assert_array_equal, (found[0][0], found[1]), (expected[0][0], expected[1])
  )


@pytest.mark.parametrize(
  ('nearest', 'margin'), [(4, -0.5), pytest.param(0, 0.0, marks=pytest.mark.slow)]
)
def test_the_terms_are_those_of_whole_matrices(nearest, margin):
  """The positive is the example's own vector, and the hardest or all others are negatives."""
  count = nearest or N
  given = SMALL | {'nearest': nearest, 'negatives': count, 'clusters': N}
  method = InterClr(**given, margin=margin)
  memory = memory_of()

  def dense(x):
    x, scale = np.float64(x), 5.0
    lse = lambda parts: reference.logsumexp(np.concatenate(parts, 1), 1)  # noqa: E731
    positive = scale * np.sum(x * np.float64(INPUTS['target.second']), 1, keepdims=True)
    queue = scale * x @ np.float64(memory['second']).reshape(Q, D).T
    intra = np.mean(lse([positive, queue]) - positive[:, 0])
    scores, ids = scale * x @ np.float64(memory['bank']).T, np.asarray(INPUTS['id'])
    positive = scores[np.arange(B), ids][:, None] - scale * margin
    scores[np.arange(B), ids] = -np.inf
    hardest = -np.sort(-scores, 1)[:, :count]
    return 0.75 * intra + 0.25 * np.mean(lse([positive, hardest]) - positive[:, 0])

  (value, metrics), gradient = value_and_grad(method, INPUTS['first'], memory)
  reference.assert_near(value, dense(INPUTS['first']))
  reference.assert_near(gradient, reference.differences(dense, np.asarray(INPUTS['first']))[0])
  assert metrics['labeled'] == metrics['used'] == 1


def test_no_negative_shares_the_label_and_draws_are_of_the_share():
  labels = jnp.arange(4000) % 5 - 1
  own, floor = jnp.arange(B) % 4, jnp.linspace(-0.5, 0.5, B)
  scores = jax.random.uniform(KEY, (B, 4000), minval=-1.0)
  rows = own, floor, jnp.full(B, 0.3), jax.random.bits(KEY, (B,), jnp.uint32)
  drawn = np.asarray(_drawn(scores, rows, (labels, jnp.arange(4000, dtype=jnp.uint32)))) > -1e8
  allowed = (labels >= 0) & (own[:, None] != labels) & (scores >= floor[:, None])
  assert not np.any(drawn & ~np.asarray(allowed))
  np.testing.assert_allclose(drawn.sum(1) / allowed.sum(1), 0.3, atol=0.06)
  numbers = np.asarray(_uniform(rows[-1], jnp.arange(4000, dtype=jnp.uint32)))
  assert numbers.min() >= 0 and numbers.max() < 1
  np.testing.assert_allclose(numbers.mean(1), 0.5, atol=0.03)
  correlations = np.corrcoef(numbers) - np.eye(B)
  assert np.abs(correlations).max() < 0.08
  assert np.abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.03


def test_the_margin_shifts_the_positive_and_the_arc_widens_its_angle():
  cosine = jnp.linspace(-1, 1, 9)
  np.testing.assert_allclose(shift(cosine, -0.5), cosine + 0.5, rtol=1e-6)
  arc = jax.jit(lambda x, margin: shift(x, margin, 'arc'), static_argnums=1)
  for margin in (-0.5, 0.3):
    angle = np.arccos(np.float64(cosine)) + margin
    inside = (angle >= 0) & (angle <= np.pi)
    found = arc(cosine, margin)
    np.testing.assert_allclose(found[inside], np.cos(angle[inside]), atol=2e-3)
    assert np.all(np.sign(margin) * (cosine - found) > -2e-3)
  assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: arc(x, -0.5).sum()))(cosine)))


def test_what_the_bank_has_not_seen_has_no_second_term():
  method = InterClr(**SMALL, inter=1.0)
  (value, metrics), gradient = value_and_grad(method, INPUTS['first'], memory_of(np.full(N, -1)))
  assert value == 0 and not gradient.any() and metrics['labeled'] == metrics['used'] == 0


def test_an_update_labels_the_keys_and_moves_the_centroids():
  method = InterClr(**SMALL)
  memory = memory_of(np.where(np.arange(N) < 40, np.arange(N) % 3, -1))
  keys, ids = unit(5, B), np.array([1, 1, 9, 20, 41, 42, 43, 44])
  update = jax.jit(lambda *given: method.update(*given, {}, 0))
  after = jax.device_get(update(memory, {'second': keys, 'id': ids}))
  bank, labels = np.float64(memory['bank']), np.array(memory['labels'])
  keys, centroids = np.float64(keys), np.float64(memory['centroids'])
  for example in set(ids.tolist()):
    mean = keys[ids == example].mean(0)
    bank[example] = mean / np.linalg.norm(mean)
  fits = bank[ids] @ centroids.T
  labels[ids] = fits.argmax(1)
  np.testing.assert_allclose(after['bank'], bank, atol=1e-6)
  np.testing.assert_array_equal(after['labels'], labels)
  worst = iter(bank[ids][np.argsort(fits.max(1), kind='stable')])
  for number in range(K):
    mean = bank[labels == number].sum(0)
    expected = mean / np.linalg.norm(mean) if mean.any() else next(worst)
    np.testing.assert_allclose(after['centroids'][number], expected, atol=1e-5)
  assert after['written'] == 3


@pytest.mark.slow
def test_k_means_labels_the_whole_bank_every_so_many_steps():
  method = InterClr(**SMALL | {'clusters': 2}, cluster_every=2)
  means = np.eye(D)[np.arange(N) % 2]
  near = lambda seed, x: x + 0.1 * np.asarray(unit(seed, len(x)))  # noqa: E731
  memory = memory_of(np.where(np.arange(N) < 60, 0, -1)) | {'centroids': unit(4, 2)}
  memory['bank'] = jnp.asarray(near(3, means), jnp.float32)
  memory['bank'] /= jnp.linalg.norm(memory['bank'], axis=1, keepdims=True)
  ids = np.array([0, 1, 2, 3, 60, 61, 62, 63])
  keys = near(5, means[ids])
  writes = {'second': keys / np.linalg.norm(keys, axis=1, keepdims=True), 'id': ids}
  update = jax.jit(lambda *given: method.update(*given, {}, 0))
  found = np.asarray(update(memory, writes)['labels'])
  assert found[0] != found[1]
  np.testing.assert_array_equal(found, found[np.arange(N) % 2])
  kept = update(memory | {'written': jnp.int32(3)}, writes)['labels']
  np.testing.assert_array_equal(kept, memory['labels'])


@pytest.mark.slow
@pytest.mark.parametrize('cluster_every', [0, 2])
def test_eight_devices_are_one(cluster_every):
  options = SMALL | {'nearest': 24, 'negatives': 10, 'cluster_every': cluster_every}
  mesh = make_mesh('data:8')
  place = functools.partial(jax.NamedSharding, mesh)
  sharded, copied = place(jax.P(('data', 'fsdp'))), place(jax.P())

  def step(method, inputs, memory):
    def loss(x):
      result = method.loss(inputs | {'first': x}, {}, memory, KEY)
      return result.loss, dict(result.writes)

    (value, writes), gradient = jax.value_and_grad(loss, has_aux=True)(inputs['first'])
    return value, gradient, method.update(memory, writes, {}, 0)

  memory = memory_of(np.arange(N) % 5)
  where = dict.fromkeys(memory, sharded) | {'written': copied, 'centroids': copied}
  expected = jax.jit(functools.partial(step, InterClr(**options)))(INPUTS, memory)
  with jax.set_mesh(mesh):
    given = jax.device_put((INPUTS, memory), (sharded, where))
    found = jax.jit(functools.partial(step, InterClr(**options, mesh=mesh)))(*given)
  for a, b in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'inter': 1.5}, r'inter = 1\.5; use a share from 0 to 1'),
    ({'clusters': 1}, 'clusters = 1; use 2 or more'),
    ({'negatives': 5, 'nearest': 4}, 'negatives = 5 of nearest = 4'),
    ({'cluster_every': -1}, 'cluster_every = -1'),
    ({'margin_kind': 'angle'}, "margin_kind = 'angle' is unknown"),
  ],
)
def test_what_cannot_work_is_told_by_its_field(options, message):
  assert 'interclr' in METHODS
  with pytest.raises(ValueError, match=f'objective.interclr: .*{message}'):
    Objective({'interclr': {'weight': 1.0, **options}})
