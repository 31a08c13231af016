"""Floating point operations of a program, counted in its jaxpr."""

import math
from typing import NamedTuple

import jax
from jax.interpreters import partial_eval


class Flops(NamedTuple):
  """A number of operations, of all devices together.

  Attributes:
    total: all.
    exact: those of them whose operands are float32, multiplied at the highest precision.
  """

  total: float = 0.0
  exact: float = 0.0

  def __add__(self, other):
    return Flops(self.total + other.total, self.exact + other.exact)

  def __mul__(self, times):
    return Flops(self.total * times, self.exact * times)


def traced(function, *arguments) -> Flops:
  """Counts what a function asks for, scanned bodies as often as they run.

  Exact for what JAX hands to the compiler, but for a `while` of unknown length, whose body counts
  once, and for a `cond`, whose dearest branch counts. What no result needs is left out, and what a
  `shard_map` runs counts for every device, copies included.

  Args:
    function: of arrays.
    *arguments: arrays or `ShapeDtypeStruct`s.
  """
  jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
  needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
  return _count(needed)


def _count(jaxpr) -> Flops:
  return sum((_count_equation(equation) for equation in jaxpr.eqns), Flops())


def _count_equation(equation) -> Flops:
  name, fields = equation.primitive.name, equation.params
  if name in ('dot_general', 'conv_general_dilated'):
    left, right = (operand.aval for operand in equation.invars)
    if name == 'dot_general':
      (axes, _), _ = fields['dimension_numbers']
      terms = math.prod(left.shape[axis] for axis in axes)
    else:
      terms = right.size // right.shape[fields['dimension_numbers'].rhs_spec[0]]
      # Zeros between the rows, which the gradient of a stride has, are no work.
      terms /= math.prod(fields['lhs_dilation'])
    flops = 2.0 * terms * equation.outvars[0].aval.size
    highest = 'HIGHEST' in str(fields.get('precision')) and left.dtype == 'float32'
    return Flops(flops, flops if highest else 0.0)
  parts = [_count(inner) for value in fields.values() for inner in _jaxprs(value)]
  if name == 'cond':
    return max(parts)
  times = {'scan': 'length', 'shard_map': 'mesh'}.get(name)
  times = 1 if times is None else getattr(fields[times], 'size', fields[times])
  return sum(parts, Flops()) * times


def _jaxprs(value):
  """The programs in an equation's field."""
  if isinstance(value, (tuple, list)):
    return [inner for part in value for inner in _jaxprs(part)]
  inner = getattr(value, 'jaxpr', value)
  return [inner] if hasattr(inner, 'eqns') else []
