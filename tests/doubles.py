"""Marks cases as slow that double others."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(cases: Iterable[Any], *fast: Any) -> list:
  """Cases for `pytest.mark.parametrize`, of which the default suite runs the given ones alone.

  Args:
    cases: all cases; a tuple has a value per argument.
    *fast: those of the default suite.
  """
  return [case if case in fast else _slow(case) for case in cases]


def _slow(case: Any):
  values = case if isinstance(case, tuple) else (case,)
  return pytest.param(*values, marks=pytest.mark.slow)
