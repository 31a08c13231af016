"""A trace that began is ended, and one that is cut short is told."""

import jax
import jax.numpy as jnp
import pytest

from contrastive_jax.training.timing import Trace


def traced(folder):
  return list(folder.rglob('*.xplane.pb'))


def test_a_trace_is_ended_where_the_run_stops_within_it(tmp_path):
  with (
    pytest.raises(KeyboardInterrupt),
    Trace(tmp_path, after=0, steps=3, until=9) as trace,
    trace.at(1),
  ):
    jax.block_until_ready(jnp.ones(3) + 1)
    raise KeyboardInterrupt
  assert traced(tmp_path)
  # Another one may begin.
  with Trace(tmp_path / 'next', after=0, steps=1, until=9) as trace:
    with trace.at(1):
      metrics = jnp.ones(3) + 1
    trace.end(1, metrics)
  assert traced(tmp_path / 'next')


@pytest.mark.parametrize(
  ('until', 'steps', 'told'), [(10, 5, None), (5, 2, '2 steps'), (3, 0, '0 steps')]
)
def test_a_trace_beyond_the_last_step_is_told_and_cut(tmp_path, caplog, until, steps, told):
  trace = Trace(tmp_path, after=3, steps=5, until=until)
  assert trace.last - trace.first + 1 == steps
  if told is None:
    assert not caplog.messages
  else:
    assert f'config.profile = 5: {told} are traced' in caplog.text


def test_no_trace_is_told_of_where_none_is_asked_for(tmp_path, caplog):
  Trace(tmp_path, after=3, steps=0, until=2)
  assert not caplog.messages
