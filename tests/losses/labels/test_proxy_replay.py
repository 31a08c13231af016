"""PCR is a cross entropy over the classes of a batch; HPCR adds pairs and remembers outputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.labels import proxy_replay
from tests.losses import reference

pcr = jax.jit(losses.pcr)
hpcr = jax.jit(losses.hpcr, static_argnames='min_batch_for_pairs')


@pytest.fixture(scope='module')
def batch():
  """Twelve embeddings of three out of five classes, and the proxies."""
  rng = np.random.default_rng(0)
  embeddings, proxies = reference.unit(rng, 12, 4), reference.unit(rng, 5, 4)
  return {'embeddings': embeddings, 'classes': np.arange(12) % 3, 'proxies': proxies, 'scale': 6.0}


def test_pcr_ignores_classes_that_the_batch_lacks(batch):
  other = batch | {'proxies': np.concatenate([batch['proxies'][:3], -batch['proxies'][3:]])}
  assert pcr(**batch) == pcr(**other)
  gradient = jax.grad(lambda proxies: pcr(**batch | {'proxies': proxies}))(batch['proxies'])
  assert np.all(gradient[3:] == 0) and np.all(np.any(gradient[:3] != 0, 1))


def test_of_a_single_class_nothing_is_left_to_tell_apart(batch):
  alone = batch | {'classes': np.zeros(12, int)}
  np.testing.assert_allclose(pcr(**alone), np.log(12), rtol=1e-5)
  gradient = jax.grad(lambda z: pcr(**alone | {'embeddings': z}))(alone['embeddings'])
  np.testing.assert_allclose(gradient, 0, atol=1e-6)


def test_the_order_of_the_batch_is_irrelevant(batch):
  order = np.random.default_rng(1).permutation(12)
  shuffled = batch | {name: batch[name][order] for name in ('embeddings', 'classes')}
  for loss in (pcr, hpcr):
    np.testing.assert_allclose(loss(**shuffled), loss(**batch), rtol=1e-5)


@pytest.mark.parametrize(('least', 'pairs'), [(0, False), (13, False), (12, True)])
def test_pairs_count_from_a_batch_size_on(batch, least, pairs):
  value = hpcr(**batch, min_batch_for_pairs=least)
  assert value == (hpcr(**batch) if pairs else pcr(**batch))
  assert hpcr(**batch) != pcr(**batch)


def test_the_temperature_rises_and_falls_within_a_period():
  steps = np.array([0, 125, 250, 375, 500])
  factors = proxy_replay.periodic_temperature(steps)
  np.testing.assert_allclose(factors, [0.5625, 1.18125, 1.8, 1.18125, 0.5625], rtol=1e-6)
  np.testing.assert_array_equal(proxy_replay.periodic_temperature(steps, low=1.0, high=1.0), 1)


def test_logits_of_repeated_classes_weigh_more():
  rng = np.random.default_rng(0)
  logits, stored = rng.normal(size=(2, 6, 5)).astype('f')
  classes = np.array([1, 4, 1, 1, 0])
  step = jax.jit(jax.value_and_grad(proxy_replay.logit_distillation, (0, 1)))
  value, gradient = step(logits, stored, classes)
  np.testing.assert_allclose(value, np.mean((logits - stored)[:, classes] ** 2), rtol=1e-5)
  assert step(logits, logits, classes)[0] == 0
  assert np.all(gradient[1] == 0) and np.all(gradient[0][:, [2, 3]] == 0) and np.any(gradient[0])


def test_structure_is_kept_where_the_loss_is_the_entropy():
  """It is the dense cross entropy, and least, with no slope, where nothing has changed."""
  rng = np.random.default_rng(0)
  embeddings, stored = reference.unit(rng, 6, 4), reference.unit(rng, 6, 3)

  def dense(new, old):
    scores = [np.where(np.eye(6), -np.inf, 5.0 * v @ v.T) for v in (new, old)]
    logs = scores[0] - reference.logsumexp(scores[0], 1)[:, None]
    probabilities = reference.softmax(scores[1], 1)
    return -np.mean(
      np.sum(np.where(np.eye(6), 0.0, probabilities * np.where(np.eye(6), 0, logs)), 1)
    )

  loss = jax.jit(
    jax.value_and_grad(
      lambda new, old: proxy_replay.structure_distillation(new, old, scale=5.0, block_size=4),
      (0, 1),
    )
  )
  value, (slope, of_stored) = loss(embeddings, stored)
  reference.assert_near(value, dense(embeddings, stored))
  assert np.any(slope) and not np.any(of_stored)
  value, (slope, _) = loss(stored, stored)
  reference.assert_near(value, dense(stored, stored))
  np.testing.assert_allclose(slope, 0, atol=1e-6)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda z: losses.hpcr(z, jnp.arange(4), z, scale=1.0, min_batch_for_pairs=-1), r'-1; use 0'),
    (lambda z: proxy_replay.periodic_temperature(0, period=0), 'period = 0 steps; use 1'),
    (lambda z: proxy_replay.logit_distillation(z, z[:3], jnp.arange(4)), r'stored \(3, 4\)'),
    (lambda z: proxy_replay.structure_distillation(z[:1], z[:1], scale=1.0), 'M of 2 or more'),
    (lambda z: proxy_replay.structure_distillation(z, z[:3], scale=1.0), r'stored \(3, 4\)'),
  ],
)
def test_what_cannot_work_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.eye(4))
