"""FLOPs of a program, counted in its jaxpr."""

import math
from typing import NamedTuple

import jax
from jax.interpreters import partial_eval


class Flops(NamedTuple):
  """A number of operations, over all devices.

  Attributes:
    total: all operations.
    exact: those with float32 operands at a higher precision than the default.
  """

  total: float = 0.0
  exact: float = 0.0

  def __add__(self, other):
    return Flops(self.total + other.total, self.exact + other.exact)

  def __mul__(self, times):
    return Flops(self.total * times, self.exact * times)


def traced(function, *arguments) -> Flops:
  """Counts the operations of a function; the body of a scan counts once per iteration.

  The count is exact for the program that JAX passes to the compiler, except that the body of a
  `while` counts once, and a `cond` as its most expensive branch. Dead code does not count. The body
  of a `shard_map` counts once per device, including replicated work; that of a Pallas kernel counts
  once per step of its grid.

  Args:
    function: a function of arrays.
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
      # Zeros inserted by the gradient of a strided convolution do not count.
      terms /= math.prod(fields['lhs_dilation'])
    flops = 2.0 * terms * equation.outvars[0].aval.size
    exact = 'HIGH' in str(fields.get('precision')) and left.dtype == 'float32'
    return Flops(flops, flops if exact else 0.0)
  if name == 'fft':
    return Flops(_transform_flops(equation))
  parts = [_count(inner) for value in fields.values() for inner in _jaxprs(value)]
  if name == 'cond':
    return max(parts)
  return sum(parts, Flops()) * _times(name, fields)


def _transform_flops(equation) -> float:
  """Operations of Fourier transforms of n numbers, 5 n log2 n each."""
  lengths = equation.params['fft_lengths']
  size = max(operand.aval.size for operand in (*equation.invars, *equation.outvars))
  return 5.0 * size * math.log2(math.prod(lengths))


def _times(name: str, fields) -> int:
  """Returns how often an equation evaluates its jaxprs."""
  if name == 'scan':
    return fields['length']
  if name == 'shard_map':
    return fields['mesh'].size
  return math.prod(fields['grid_mapping'].grid) if name == 'pallas_call' else 1


def _jaxprs(value):
  """Returns the jaxprs in a parameter of an equation."""
  if isinstance(value, (tuple, list)):
    return [inner for part in value for inner in _jaxprs(part)]
  inner = getattr(value, 'jaxpr', value)
  return [inner] if hasattr(inner, 'eqns') else []
