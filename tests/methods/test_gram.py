"""GRAM as a method: its modalities, and the matching loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import clip
from contrastive_jax.losses.pairs.gram import gram_negatives
from contrastive_jax.methods import gram, inputs
from contrastive_jax.methods.gram import Gram
from contrastive_jax.methods.method import Sizes
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.training import build
from tests.losses import reference

B, D = 8, 4
NAMES = ('text', 'image', 'text.1')


def test_matching_is_the_cross_entropy_of_three_pairs():
  """Examples without a negative do not count."""
  anchor, others = jnp.arange(3.0)[:, None], 10 * jnp.arange(3.0)[:, None]
  negatives = jnp.array([1, 0, -1]), jnp.array([1, 0, -1])
  head = lambda rows: (rows @ jnp.array([0.1, 0.02]))[:, None]  # noqa: E731
  logits = {(i, j): 0.1 * i + 0.2 * j for i in range(2) for j in range(2)}
  expected = [np.log1p(np.exp(h if i != j else -h)) for (i, j), h in logits.items()]
  expected = (sum(expected) + expected[1] + expected[2]) / 6
  match = jax.jit(lambda *negatives: gram._match(head, anchor, others, *negatives))
  assert match(*negatives) == pytest.approx(expected, rel=1e-5)
  assert match(*[jnp.full(3, -1)] * 2) == 0


@pytest.mark.slow
def test_the_loss_is_that_of_volumes_and_matching():
  method = Gram(modalities=NAMES, matching=0.5, label_smoothing=0.0, hidden=3)
  vectors = jnp.array([reference.unit(np.random.default_rng(m), B, D) for m in range(3)])
  ((name, head),) = method.heads(Sizes(batch=B, embed=D)).items()
  parameters, key = head.init(jax.random.key(1)), jax.random.key(2)

  @jax.jit
  def step(same):
    given = dict(zip(NAMES, vectors, strict=True)) | {'scale': 3.0, 'same': same}
    result = method.loss(given, {name: head.bind(parameters)}, {}, key)
    return result.loss, result.metrics, gram_negatives(key, *vectors, scale=3.0, same=same)

  def entropy(anchors, others, sign):
    rows = np.concatenate([vectors[0][anchors], *(x[others] for x in vectors[1:])], 1)
    return np.mean(np.logaddexp(0, -sign * np.asarray(head.bind(parameters)(rows))))

  every = np.arange(B)
  loss, metrics, (of_anchors, of_others) = step(every)
  assert not np.any((of_anchors == every) | (of_others == every))
  unmatched = entropy(every, of_anchors, -1) + entropy(of_others, every, -1)
  assert metrics['matching'] == pytest.approx((entropy(every, every, 1) + unmatched) / 3, rel=1e-5)
  assert loss == pytest.approx(float(metrics['contrast'] + 0.5 * metrics['matching']))
  # Of one caption alone there are no negatives: neither term has a gradient.
  loss, metrics, _ = step(np.zeros_like(every))
  assert metrics['matching'] == 0 and loss == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
  ('modalities', 'message'),
  [
    (('text',), 'two to four that differ'),
    (('image', 'text', 'text.0'), 'two to four that differ'),
    (('image', 'text', 'text.1', 'text.2', 'text.3'), 'two to four that differ'),
    (['text', 'tokens'], r"use some of \['audio', 'first', 'image'"),
    (('text', 'target.image'), r"use some of \['audio', 'first', 'image'"),
    (('text', 'sound'), "'sound' is unknown"),
  ],
)
def test_wrong_modalities_are_refused(modalities, message):
  with pytest.raises(ValueError, match=message):
    Gram(modalities=modalities)


def test_a_text_is_read_by_its_number():
  texts = np.arange(6.0).reshape(1, 3, 2)
  outputs = Outputs(text=texts[:, 0], texts=texts)
  found = inputs.gather(('text', 'text.0', 'text.2'), outputs, {})
  assert [found[name].tolist() for name in found] == [[[0, 1]], [[0, 1]], [[4, 5]]]
  assert inputs.fields(('text.2',)) == {'texts'} and inputs.fields(('text.0',)) == {'text'}
  config = clip.get_config('smoke')
  config.objective = {'gram': {'weight': 1.0, 'modalities': ['text', 'image', 'text.1']}}
  with pytest.raises(ValueError, match=r'gram reads 2 texts .*config\.texts = 1; use 2'):
    build.build(config)
