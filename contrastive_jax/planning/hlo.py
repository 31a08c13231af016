"""Collectives and memory traffic of a compiled program, from its HLO text.

The body of a loop counts once per iteration. Sizes are those of the elements, without padding.
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'collective-permute', 'all-to-all')

# Operations without memory traffic of their own. An asynchronous operation counts at its '-start'.
_MOVES_NOTHING = (
  *('parameter', 'constant', 'iota', 'tuple', 'get-tuple-element', 'bitcast', 'while', 'call'),
  *('conditional', 'after-all', 'partition-id', 'replica-id', 'optimization-barrier'),
)
_COMPUTATION = re.compile(r'^(?:ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$')
_INSTRUCTION = re.compile(r'^\s+(ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([a-z][\w-]*)\((.*)$')
_SHAPE = re.compile(r'(pred|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([^}]*)\})?')
# Attributes that name called computations; the `to_apply` of a reduction is not one.
_CALLED = r'(?:calls|body|called_computations)=\{?%?([\w.-]+)'


class Instruction(NamedTuple):
  """A line of HLO: `name = type operation(rest`."""

  name: str
  type: str
  operation: str
  rest: str
  root: bool

  @property
  def operands(self) -> list[str]:
    """Names of the operands."""
    return re.findall(r'%([\w.-]+)', self.rest.partition(')')[0])

  @property
  def called(self) -> list[str]:
    """Names of the called computations."""
    branches = re.search(r'branch_computations=\{([^}]*)\}', self.rest)
    if branches:
      return re.findall(r'%([\w.-]+)', branches[1])
    pattern = r'to_apply=%?([\w.-]+)' if self.operation == 'call' else _CALLED
    return re.findall(pattern, self.rest)


class Collective(NamedTuple):
  """All collectives of one kind in a step.

  Attributes:
    count: number of executions.
    bytes: bytes sent by one device, with ring algorithms.
    groups: executions, and bytes sent by one device, by the number of devices that take part.
  """

  count: int  # type: ignore[assignment]  # hides tuple.count
  bytes: float
  groups: dict[int, tuple[int, float]]


class Program:
  """A compiled program, from `compiled.as_text()`."""

  def __init__(self, text: str):
    self._partitions = int((re.search(r'num_partitions=(\d+)', text) or [0, 1])[1])
    self._computations: dict[str, list[Instruction]] = {}
    self._entry, current = '', []
    for line in text.splitlines():
      if found := _COMPUTATION.match(line):
        current = self._computations.setdefault(found[1], [])
        self._entry = found[1] if line.startswith('ENTRY') else self._entry
      # Comments, which number the elements of long tuples, are removed.
      elif found := _INSTRUCTION.match(re.sub(r'/\*.*?\*/', '', line)):
        root, name, kind, operation, rest = found.groups()
        current.append(Instruction(name, kind, operation, rest, root is not None))

  def collectives(self) -> dict[str, Collective]:
    """Returns the collectives of a step by kind."""
    found, chains = {kind: Collective(0, 0.0, {}) for kind in COLLECTIVES}, set()
    for instruction, times, inside in self._run(self._entry, fused=True):
      kind = instruction.operation.removesuffix('-start')
      # On a TPU a collective is split over the fusions that hide it; a chain is one collective.
      chain = re.search(r'chain_id="\d+"', instruction.rest)
      if kind in COLLECTIVES and (chain is None or chain[0] not in chains):
        chains |= {chain[0]} if chain else set()
        group = self._group_size(instruction)
        sent = _sent(instruction, kind, group)
        if kind == 'all-reduce' and 'all-reduce-scatter' in inside:
          # A TPU's reduce-scatter is this fusion, and sends half as much as an all-reduce.
          kind, sent = 'reduce-scatter', sent / 2
        count, total, groups = found[kind]
        before = groups.get(group, (0, 0.0))
        groups[group] = before[0] + times, before[1] + times * sent
        found[kind] = Collective(count + times, total + times * sent, groups)
    return {kind: total for kind, total in found.items() if total.count}

  def moved_bytes(self) -> float:
    """Estimates the bytes that a step reads from and writes to one device's memory.

    Every operation or fusion reads its operands and writes its results; slices and in-place updates
    count only the slice. Buffers in on-chip memory, according to a TPU's layouts, do not count.
    """
    return sum(times * self._moved(one) for one, times, _ in self._run(self._entry, fused=False))

  def _run(
    self, computation: str, *, fused: bool, times: int = 1
  ) -> Iterator[tuple[Instruction, int, str]]:
    """Yields each instruction, its number of executions, and its computation."""
    for instruction in self._computations[computation]:
      yield instruction, times, computation
      if instruction.operation == 'fusion' and not fused:
        continue
      inner = times * self._trips(instruction)
      for name in instruction.called:
        yield from self._run(name, fused=fused, times=inner)

  def _trips(self, instruction: Instruction) -> int:
    """Returns the trip count of a loop: annotated, or the bound of its counter, or else 1."""
    if instruction.operation != 'while':
      return 1
    if known := re.search(r'known_trip_count\D*(\d+)', instruction.rest):
      return int(known[1])
    condition = re.findall(r'condition=%?([\w.-]+)', instruction.rest)[0]
    constants = [
      re.match(r'(\d+)\)', one.rest)
      for one in self._computations[condition]
      if one.operation == 'constant'
    ]
    bounds = [int(found[1]) for found in constants if found]
    return bounds[0] if len(bounds) == 1 else 1

  def _group_size(self, instruction: Instruction) -> int:
    """Returns the number of devices in a group of a collective."""
    groups = instruction.rest.partition('replica_groups=')[2]
    if found := re.match(r'\{\{([\d,]+)\}', groups):
      return found[1].count(',') + 1
    if found := re.match(r'\[\d+,(\d+)\]', groups):
      return int(found[1])
    if found := re.match(r'mesh\[(.*?)\].*? \{(.*?)\}', groups):
      sizes = dict(re.findall(r"('\w+')=(\d+)", found[1]))
      return math.prod(int(sizes[axis]) for axis in found[2].split(',') if axis)
    return self._partitions

  @functools.cached_property
  def _types(self) -> dict[str, str]:
    return {one.name: one.type for part in self._computations.values() for one in part}

  def _moved(self, instruction: Instruction) -> float:
    operation = instruction.operation
    allocates = 'custom_call_target="AllocateBuffer"' in instruction.rest
    if operation in _MOVES_NOTHING or operation.endswith('-done') or allocates:
      return 0
    written = _size(instruction.type)
    if operation == 'slice-start':
      slices = re.sub(r'^\(\(.*?\}\), ', '', instruction.type)  # without the operands
      return _size(slices) + _size(slices, everywhere=True)
    if operation.endswith('-start'):
      return written  # the type includes source and destination
    if operation in ('dynamic-slice', 'slice', 'gather'):
      return 2 * written
    types = [self._types.get(name, '') for name in instruction.operands]
    if operation == 'dynamic-update-slice':
      return 2 * _size(types[1])
    if operation != 'fusion':
      return written + sum(map(_size, types))
    inside = instruction.called[0]
    read = sum(self._read(inside, i, _size(kind)) for i, kind in enumerate(types))
    return read + max(written - self._unchanged(inside), 0)

  def _read(self, computation: str, index: int, size: float) -> float:
    """Returns the bytes that a fused computation reads of a parameter of `size` bytes."""
    instructions = self._computations[computation]
    start = f'{index})'
    names = [
      one.name
      for one in instructions
      if one.operation == 'parameter' and one.rest.startswith(start)
    ]
    read = 0.0
    for name in names:  # bitcasts are appended in the loop
      for user in instructions:
        if name not in user.operands:
          continue
        position = user.operands.index(name)
        if user.operation == 'bitcast':
          names.append(user.name)
        elif user.operation == 'dynamic-slice':
          read += _size(user.type)
        elif user.operation == 'fusion':
          read += self._read(user.called[0], position, size)
        elif user.operation != 'dynamic-update-slice' or position != 0:
          read += size
    return min(read, size)

  def _unchanged(self, computation: str) -> float:
    """Returns the bytes of a fused computation's result that it leaves unchanged."""
    unchanged = 0.0
    for one in self._computations[computation]:
      if one.operation == 'dynamic-update-slice':
        unchanged += _size(one.type) - _size(self._types.get(one.operands[1], ''))
      elif one.operation == 'fusion':
        unchanged += self._unchanged(one.called[0])
    return unchanged


def _sent(instruction: Instruction, kind: str, group: int) -> float:
  """Returns the bytes that a device sends in a collective, on a ring of `group` devices."""
  size = _size(instruction.type, everywhere=True)
  if instruction.operation.endswith('-start'):
    # The type has source and destination, of equal size or with a `group` times larger destination.
    share = {'collective-permute': 1 / 2, 'all-gather': group / (group + 1)}
    size *= share.get(kind, 1)
  others = group - 1
  return {
    'all-reduce': 2 * size * others / group,
    'all-gather': size * others / group,
    'reduce-scatter': size * others,
    'collective-permute': size,
    'all-to-all': size * others / group,
  }[kind]


@functools.cache
def _size(kind: str, everywhere: bool = False) -> float:
  """Returns the bytes of a type or tuple, by default only of those in the device's main memory."""
  total = 0.0
  for dtype, shape, layout in _SHAPE.findall(kind):
    # S(n) is a memory space other than the main memory.
    if everywhere or not re.search(r'S\([1-9]', layout):
      bits = 8 if dtype == 'pred' else int(re.findall(r'\d+', dtype)[0])
      total += bits / 8 * math.prod(int(n) for n in shape.split(',') if n)
  return total
