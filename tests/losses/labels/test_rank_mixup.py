import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from contrastive_jax.losses.labels.rank_mixup import largest_shares
from tests.losses import reference

M_NDCG = jax.jit(losses.m_ndcg)
SHARES = np.array([[0.9, 0.6, 1.0, 0.75], [0.55, 0.8, 0.7, 1.0], [0.6, 0.7, 0.8, 0.95]])


def drawn():
  rng = np.random.default_rng(0)
  return tuple(rng.normal(scale=2, size=s).astype(np.float32) for s in ((4, 5), (3, 4, 5)))


def of_confidence(confidence):
  """Logits of two classes with a given largest probability."""
  confidence = np.asarray(confidence)
  return np.stack([np.log(confidence), np.log1p(-confidence)], -1)


def mrl(logits, mixed):
  excess = mixed.max(-1) - logits.max(-1) + 2
  return np.mean((SHARES < 1) * np.maximum(excess, 0))


def m_ndcg(logits, mixed):
  found = []
  for i, own in enumerate(logits):
    order = sorted(range(len(mixed)), key=lambda k: -SHARES[k, i])
    ranked = [own, *(mixed[k, i] for k in order)]
    discounts = [np.log2(rank + 1) for rank in range(1, len(ranked) + 1)]
    confidences = [reference.softmax(each, 0).max() for each in ranked]
    gain = np.sum(np.divide(confidences, discounts))
    ideal = np.sum(np.divide([1, *(SHARES[k, i] for k in order)], discounts))
    found.append(1 - min(gain / ideal, ideal / gain))
  return np.mean(found)


@pytest.mark.parametrize('name, truth', [('mrl', mrl), ('m_ndcg', m_ndcg)])
def test_value_and_gradients_are_the_dense_ones(name, truth):
  loss = functools.partial(getattr(losses, name), shares=SHARES.astype(np.float32))
  logits, mixed = drawn()
  value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(logits, mixed)
  reference.assert_near(value, truth(logits.astype(np.float64), mixed.astype(np.float64)))
  jax.tree.map(reference.assert_near, gradients, reference.differences(truth, logits, mixed))


def test_confidences_equal_to_the_shares_cost_nothing():
  shares = SHARES - 0.02  # the confidence 1 has no finite logits
  certain = np.tile([200.0, 0.0], (4, 1))
  np.testing.assert_allclose(M_NDCG(certain, of_confidence(shares), shares), 0, atol=1e-6)


def test_m_ndcg_counts_too_much_and_too_little_confidence_alike():
  shares = np.full((1, 1), 0.7)
  # Discounts of 1 and log₂ 3 make the gain `factor` times the ideal one, and its inverse.
  ideal = 1 + 0.7 / np.log2(3)

  def loss(factor):
    own = factor * ideal - 0.7 / np.log2(3)
    return M_NDCG(of_confidence([own]), of_confidence(shares), shares)

  lower = loss(0.9)
  np.testing.assert_allclose(lower, 1 - 0.9, rtol=1e-5)
  # With mixtures above their share it is the gain that exceeds.
  own, mixture = 0.999999, (ideal / 0.9 - 0.999999) * np.log2(3)
  upper = M_NDCG(of_confidence([own]), of_confidence([[mixture]]), shares)
  np.testing.assert_allclose(upper, lower, rtol=1e-4)


def test_mrl_is_zero_beyond_the_margin_and_within_a_class():
  logits, mixed = drawn()
  low = mixed - mixed.max(-1, keepdims=True) + logits.max(-1)[None, :, None] - 2.001
  assert losses.mrl(logits, low, SHARES) == 0
  assert losses.mrl(logits, low + 0.1, SHARES) > 0
  assert losses.mrl(logits, low + 0.1, SHARES, margin=1.5) == 0
  assert losses.mrl(logits, mixed, np.ones_like(SHARES)) == 0


def test_the_largest_share_is_that_of_the_mixed_target():
  labels, partners = jnp.array([0, 1, 2, 2]), jnp.array([1, 1, 0, 1])
  shares = jnp.array([[0.2], [0.7]])
  one_hot = functools.partial(jax.nn.one_hot, num_classes=3)
  targets = shares[..., None] * one_hot(labels) + (1 - shares[..., None]) * one_hot(partners)
  found = largest_shares(labels, partners, shares)
  np.testing.assert_allclose(found, targets.max(-1), rtol=1e-6)


def test_mismatches_are_refused():
  logits, mixed = drawn()
  with pytest.raises(ValueError, match=r'shares \(2, 4\) do not match; give \[B, C\], \[K, B, C\]'):
    losses.m_ndcg(logits, mixed, SHARES[:2])
  with pytest.raises(ValueError, match=r'mixed \(4, 5\)'):
    losses.mrl(logits, mixed[0], SHARES[0])
