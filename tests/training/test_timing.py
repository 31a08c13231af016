"""Profiler traces of a few steps."""

import jax
import jax.numpy as jnp
import pytest

from contrastive_jax.training.timing import Profiler


def traced(folder):
  return list(folder.rglob('*.xplane.pb'))


@pytest.mark.slow
def test_leaving_the_context_stops_the_trace(tmp_path):
  with (
    pytest.raises(KeyboardInterrupt),
    Profiler(tmp_path, after=0, steps=3, until=9) as profiler,
    profiler.annotate(1),
  ):
    jax.block_until_ready(jnp.ones(3) + 1)
    raise KeyboardInterrupt
  assert traced(tmp_path)
  # A second trace can start.
  with Profiler(tmp_path / 'next', after=0, steps=1, until=9) as profiler:
    with profiler.annotate(1):
      metrics = jnp.ones(3) + 1
    profiler.end(1, metrics)
  assert traced(tmp_path / 'next')


@pytest.mark.parametrize(
  ('until', 'steps', 'warning'), [(10, 5, None), (5, 2, '2 steps'), (3, 0, '0 steps')]
)
def test_a_trace_longer_than_the_run_is_shortened(tmp_path, caplog, until, steps, warning):
  profiler = Profiler(tmp_path, after=3, steps=5, until=until)
  assert profiler.last - profiler.first + 1 == steps
  if warning is None:
    assert not caplog.messages
  else:
    assert f'config.profile = 5: {warning} are traced' in caplog.text


def test_zero_steps_give_no_warning(tmp_path, caplog):
  Profiler(tmp_path, after=3, steps=0, until=2)
  assert not caplog.messages
