"""The claim of experiments/gradient_caching, at its size."""

import pytest

from experiments.gradient_caching import run


@pytest.mark.slow
def test_eight_parts_take_a_quarter_of_the_memory_at_most():
  whole, parts = (run.memory(4096, number) for number in (1, 8))
  total = lambda row: row['arguments'] + row['temporaries']  # noqa: E731
  assert total(parts) < total(whole) / 4
