import jax
import jax.numpy as jnp
import pytest

from contrastive_jax import losses
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.training import objective

OUTPUTS = Outputs(image=jnp.eye(4), text=jnp.eye(4), scale=jnp.float32(2.0))
BATCH = {'image': jnp.zeros((4, 8, 8, 3), jnp.uint8), 'tokens': jnp.ones((4, 3), int)}


def test_one_term_is_the_loss():
  loss, metrics = objective.Objective({'info_nce': 1.0})(OUTPUTS, BATCH)
  assert loss == losses.info_nce(OUTPUTS.image, OUTPUTS.text, scale=2.0)
  assert metrics == {'loss': loss}


def test_terms_are_weighted_and_each_is_a_metric(monkeypatch):
  monkeypatch.setitem(objective.LOSSES, 'tokens_written', lambda tokens: tokens.sum())
  loss, metrics = objective.Objective({'info_nce': 2.0, 'tokens_written': 0.5})(OUTPUTS, BATCH)
  assert metrics['tokens_written'] == 12
  assert loss == pytest.approx(2 * metrics['info_nce'] + 6)


def test_equal_captions_reach_the_loss():
  batch = BATCH | {'same': jnp.zeros(4, int)}
  loss, _ = objective.Objective({'info_nce': 1.0})(OUTPUTS, batch)
  assert loss == pytest.approx(0, abs=1e-6)
  outputs = OUTPUTS.replace(bias=jnp.float32(0))
  loss, _ = objective.Objective({'sigmoid': 1.0})(outputs, batch)
  assert loss == pytest.approx(float(jnp.log1p(jnp.exp(-2.0))))


def test_an_option_of_none_leaves_out_what_the_batch_gives():
  batch, outputs = BATCH | {'same': jnp.zeros(4, int)}, OUTPUTS.replace(bias=jnp.float32(-1))
  loss, _ = objective.Objective({'sigmoid': {'weight': 1.0, 'same': None}})(outputs, batch)
  assert loss == losses.sigmoid(outputs.image, outputs.text, scale=2.0, bias=-1.0)


def test_losses_of_tokens_add_up_over_parts_each_without_its_own_padding():
  tokens = jnp.array([[9, 1, 1, 0], [9, 2, 0, 0], [9, 1, 1, 1], [9, 3, 2, 1]])
  keys = jax.random.split(jax.random.key(0), 3)
  outputs = OUTPUTS.replace(
    caption_logits=jax.random.normal(keys[0], (4, 3, 7)),
    hidden=jax.random.normal(keys[1], (4, 3, 5)),
    vocabulary=jax.random.normal(keys[2], (7, 5)),
  )
  weighted = objective.Objective(
    {
      'captioning': {'weight': 1.0, 'pad_id': 1},
      'captioning_streamed': {'weight': 1.0, 'pad_id': 2},
    }
  )
  whole = weighted.of_tokens(outputs, {'tokens': tokens})
  counts, parts = weighted.count_tokens({'tokens': tokens}), []
  for rows in (slice(0, 2), slice(2, 4)):
    part = outputs.replace(caption_logits=outputs.caption_logits[rows], hidden=outputs.hidden[rows])
    parts.append(weighted.of_tokens(part, {'tokens': tokens[rows]}, counts))
  for name, loss in whole.items():
    assert parts[0][name] + parts[1][name] == pytest.approx(float(loss), rel=1e-6), name


def test_options_reach_the_losses():
  kernel = objective.Objective({'info_nce': 1.0}, kernel='pallas', block_size=128)
  loss, _ = kernel(OUTPUTS, BATCH)
  expected = losses.info_nce(OUTPUTS.image, OUTPUTS.text, scale=2.0)
  assert loss == pytest.approx(float(expected), rel=1e-6)
  with pytest.raises(ValueError, match=r"kernel = 'cuda'; use 'scan' or 'pallas'"):
    objective.Objective({'info_nce': 1.0}, kernel='cuda')(OUTPUTS, BATCH)


def test_a_loss_takes_options_of_its_own():
  own = {'weight': 2.0, 'scale': 5.0}
  loss, metrics = objective.Objective({'info_nce': own, 'alignment': 1.0})(OUTPUTS, BATCH)
  expected = losses.info_nce(OUTPUTS.image, OUTPUTS.text, scale=5.0)
  assert metrics['info_nce'] == expected
  assert loss == pytest.approx(2 * expected + metrics['alignment'])
  assert own == {'weight': 2.0, 'scale': 5.0}


@pytest.mark.parametrize('option', ['image', 'mesh', 'strategies', 'text'])
def test_unknown_options_are_named(option):
  message = rf"config\.objective\.info_nce\.{option} is unknown; use weight and some of .*'scale'"
  with pytest.raises(ValueError, match=message):
    objective.Objective({'info_nce': {'weight': 1.0, option: 1}})
  with pytest.raises(ValueError, match=r"info_nce = \{'scale': 1.0\} has no weight"):
    objective.Objective({'info_nce': {'scale': 1.0}})


def test_the_step_ends_a_burn_in():
  own = {'weight': 1.0, 'burn_in': 5, 'temperature': 0.1}
  outputs = OUTPUTS.replace(image=jnp.eye(4)[jnp.array([1, 0, 2, 3])] / 2)
  reweighted = objective.Objective({'reweighted_info_nce': own})
  plain, _ = objective.Objective({'info_nce': 1.0})(outputs, BATCH)
  early, late = (reweighted(outputs, BATCH | {'step': jnp.int32(n)})[0] for n in (4, 5))
  assert early == pytest.approx(float(plain))
  assert late > 1.1 * plain


def test_unknown_and_unfed_losses_are_named():
  with pytest.raises(ValueError, match=r'config\.objective\.info is unknown.*info_nce'):
    objective.Objective({'info': 1.0})
  with pytest.raises(ValueError, match=r'config\.objective is empty'):
    objective.Objective({})
  with pytest.raises(ValueError, match=r"captioning needs 'logits'"):
    objective.Objective({'captioning': 1.0})(OUTPUTS, BATCH)
  with pytest.raises(ValueError, match=r"captioning_streamed needs 'hidden'"):
    objective.Objective({'captioning_streamed': 1.0})(OUTPUTS, BATCH)
  with pytest.raises(ValueError, match=r"nt_xent needs 'second'"):
    objective.Objective({'nt_xent': 1.0})(OUTPUTS, BATCH)
  with pytest.raises(ValueError, match=r"sigmoid needs 'bias'"):
    objective.Objective({'sigmoid': 1.0})(OUTPUTS, BATCH)


def test_every_loss_of_the_table_is_fed():
  outputs = OUTPUTS.replace(
    bias=jnp.float32(-10.0),
    caption_logits=jnp.zeros((4, 2, 7)),
    hidden=jnp.zeros((4, 2, 5)),
    vocabulary=jnp.zeros((7, 5)),
    second=jnp.eye(4),
  )
  for name in objective.LOSSES:
    loss, _ = objective.Objective({name: 1.0})(outputs, BATCH)
    assert loss.shape == () and jnp.isfinite(loss), name
