"""Learning rate schedules: peak, end, continuity, and the law of each name."""

import jax
import numpy as np
import pytest

from contrastive_jax.training.optimizer import DECAYS, make_schedule

STEPS, PEAK = 200, 2.0
ENDS = {'constant': PEAK, 'cosine': 0, 'linear': 0, 'rsqrt': PEAK / np.sqrt(1 + 180 / 50), 'wsd': 0}


def rates(decay, total_steps=STEPS, **fields):
  """The learning rates of steps 0 to total_steps; 'wsd' has a cooldown of a quarter."""
  cooldown = 0.25 if decay == 'wsd' else 0.0
  given = {'warmup_fraction': 0.1, 'cooldown_fraction': cooldown, 'timescale': 50} | fields
  schedule = make_schedule(learning_rate=PEAK, total_steps=total_steps, decay=decay, **given)
  return np.array([schedule(step) for step in range(total_steps + 1)])


@pytest.mark.parametrize('decay', DECAYS)
def test_a_schedule_starts_at_0_peaks_after_the_warmup_and_never_jumps(decay):
  found = rates(decay)
  assert found[0] == 0 and found[20] == found.max() == PEAK
  assert found[-1] == pytest.approx(ENDS[decay], abs=1e-6)
  np.testing.assert_allclose(found[:21], np.linspace(0, PEAK, 21), rtol=1e-6)
  assert (np.diff(found[20:]) <= 1e-6).all()
  assert np.abs(np.diff(found)).max() <= PEAK / 20 + 1e-6  # the slope of the warmup


@pytest.mark.parametrize('decay', DECAYS)
def test_a_cooldown_multiplies_any_schedule(decay):
  factor = np.minimum(1, (STEPS - np.arange(STEPS + 1)) / 50)
  plain = rates('constant' if decay == 'wsd' else decay)
  cooled = rates(decay, cooldown_fraction=0.25)
  np.testing.assert_allclose(cooled, plain * factor, rtol=1e-6, atol=1e-7)


def test_wsd_is_constant_and_then_falls_on_a_line():
  found = rates('wsd')
  assert (found[20:151] == PEAK).all()
  np.testing.assert_allclose(found[150:], np.linspace(PEAK, 0, 51), atol=1e-6)


def test_rsqrt_is_the_reciprocal_square_root_after_the_warmup():
  found = rates('rsqrt')
  steps = np.arange(STEPS + 1)
  law = PEAK / np.sqrt(1 + np.maximum(steps - 20, 0) / 50) * np.minimum(1, steps / 20)
  np.testing.assert_allclose(found, law, rtol=1e-6)


@pytest.mark.parametrize('decay', DECAYS)
@pytest.mark.parametrize('total_steps', [1, 2, 3, 40])
@pytest.mark.parametrize('warmup', [0.0, 0.5, 0.75])
def test_the_peak_is_reached_in_any_number_of_steps(decay, total_steps, warmup):
  found = rates(decay, total_steps, warmup_fraction=warmup)
  assert np.isfinite(found).all() and found[:-1].max() == PEAK


@pytest.mark.parametrize('decay', DECAYS)
def test_a_schedule_is_a_function_of_a_traced_step(decay):
  schedule = make_schedule(
    learning_rate=PEAK, warmup_fraction=0.1, total_steps=20, decay=decay, cooldown_fraction=0.2
  )
  steps = np.arange(21)
  expected = [schedule(step) for step in range(21)]
  np.testing.assert_allclose(jax.jit(jax.vmap(schedule))(steps), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'decay': 'step'}, r"decay = 'step' is unknown; .*'constant', 'cosine', .*'rsqrt', 'wsd'"),
    ({'decay': 'wsd'}, r"cooldown_fraction = 0 and .*'wsd'.* such as 0\.2, or decay = 'constant'"),
    ({'cooldown_fraction': 1.0}, r'cooldown_fraction = 1\.0 is not in \[0, 1\)'),
    ({'cooldown_fraction': 0.6, 'warmup_fraction': 0.5}, r'cooldown_fraction = 0\.6 begins'),
  ],
)
def test_what_does_not_fit_is_an_error(fields, message):
  given = {'learning_rate': 1.0, 'warmup_fraction': 0.1, 'total_steps': 9} | fields
  with pytest.raises(ValueError, match=rf'config\.optimizer\.{message}'):
    make_schedule(**given)
