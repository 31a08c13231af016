"""What the compiled programs hold: never S, nor a device's part of it."""

import json
import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from contrastive_jax import losses
from contrastive_jax.losses import pairwise
from tests.doubles import slow_but
from tests.losses import reference

MIB = 2**20


def compiled(loss, batch, width, mesh, **options):
  """The program for the loss and the gradients of image, text and scale."""

  def total(image, text, scale):
    return loss(image, text, scale=scale, mesh=mesh, **options)

  embeddings = jax.ShapeDtypeStruct((batch, width), jnp.float32)
  scale = jax.ShapeDtypeStruct((), jnp.float32)
  shardings = {}
  if mesh is not None:
    over = mesh.mesh if isinstance(mesh, pairwise.Ring) else mesh
    rows, whole = (jax.NamedSharding(over, jax.P(*spec)) for spec in (over.axis_names[:1], ()))
    shardings = {
      'in_shardings': (rows, rows, whole),
      'out_shardings': (whole, (rows, rows, whole)),
    }
  step = jax.jit(jax.value_and_grad(total, (0, 1, 2)), **shardings)
  return step.lower(embeddings, embeddings, scale).compile()


def bias_per_column(scores, rows, columns):
  return scores + columns


def both_products(scores):
  return scores[0] * scores[1]


def with_side_data(image, text, *, scale, **options):
  rows, columns = pairwise.logsumexp(
    image, text, bias_per_column, scale=scale, columns=text[:, 0], **options
  )
  return jnp.sum(rows) + jnp.sum(columns)


def expected(image, text, *, scale, **options):
  rows, columns = pairwise.expectation(image, text, (image, text), scale=scale, **options)
  squares, _ = pairwise.expectation(image, text, jnp.square, scale=scale, **options)
  return jnp.sum(rows[0] ** 2) + jnp.sum(columns[0] ** 2) + jnp.sum(squares[0])


def of_two_products(image, text, *, scale, **options):
  rows, columns = pairwise.sum((image, text), (text, image), both_products, scale=scale, **options)
  return jnp.sum(rows) + jnp.sum(columns)


def over_threshold(image, text, *, scale, **options):
  least, share = pairwise.threshold(image, text, fraction=0.1, scale=scale, **options)
  return scale * jnp.sum(least + share) + jnp.sum(image) + jnp.sum(text)


ENGINE = (with_side_data, expected, of_two_products, over_threshold)


OPTIONS = [
  (losses.info_nce, {}),
  (losses.info_nce, {'label_smoothing': 0.1}),
  (losses.info_nce, {'groups': 32}),
  (losses.sigmoid, {'bias': -10.0}),
  (losses.nt_xent, {}),
  (losses.hard_negative, {'k': 4}),
  (losses.reweighted_info_nce, {}),
  *((loss, {}) for loss in ENGINE),
]
# The ring and a single device; the others sum over pairs as these do.
FAST = [
  (losses.info_nce, {'label_smoothing': 0.1}, '8'),
  (losses.sigmoid, {'bias': -10.0}, 'none'),
  (losses.nt_xent, {}, '8'),
  (losses.hard_negative, {'k': 4}, '8'),
  (losses.hard_negative, {'k': 4}, 'none'),
  *((loss, {}, '8') for loss in ENGINE),
  (over_threshold, {}, 'none'),
]


@pytest.mark.parametrize(
  ('loss', 'options', 'mesh'),
  slow_but([(*case, mesh) for case in OPTIONS for mesh in ('none', '8')], *FAST),
)
def test_no_buffer_holds_scores(loss, options, mesh):
  batch, width, block_size = 2048, 8, 64
  program = compiled(
    loss, batch, width, reference.make_mesh(mesh), block_size=block_size, **options
  ).as_text()
  largest = max(
    math.prod(map(int, shape.split(',')))
    for shape in re.findall(r'\b[a-z]+\d+\[([\d,]+)\]', program)
  )
  # The embeddings, a block of scores, or a row's 256 counters: well under the 256 rows of scores
  # of a device, except for the counters of a single device, which are 2048 by 256.
  counters = 256 * batch // (1 if mesh == 'none' else 8) if loss is over_threshold else 0
  assert largest <= max(batch * width, block_size**2, counters)


@pytest.mark.parametrize('loss', ENGINE)
def test_temporaries_are_linear_in_the_batch(loss):
  small, large = (
    compiled(loss, batch, 64, reference.make_mesh('8'), block_size=64)
    .memory_analysis()
    .temp_size_in_bytes
    for batch in (16_384, 32_768)
  )
  assert large <= 2.2 * small


def temporaries(batch, mesh):
  return compiled(losses.info_nce, batch, 512, mesh).memory_analysis().temp_size_in_bytes


def test_one_device():
  small, large = (temporaries(batch, None) for batch in (32_768, 65_536))
  assert small <= 192 * MIB
  assert large <= 2.2 * small


def test_eight_devices():
  ring = reference.make_mesh('8/0')
  small, large = (temporaries(batch, ring) for batch in (65_536, 131_072))
  assert small <= 128 * MIB
  assert large <= 2.2 * small
  # A batch twice as large on twice the devices costs each the same.
  assert temporaries(32_768, reference.make_mesh('4/0')) == pytest.approx(small, rel=0.01)


@pytest.mark.parametrize(
  ('batch', 'limit'),
  slow_but(
    [(32_768, 48 * MIB), (32_768, 128 * MIB), (4_096, 64 * MIB)],
    *[(32_768, 48 * MIB), (4_096, 64 * MIB)],
  ),
)
def test_groups_take_the_memory_they_may(batch, limit):
  plain, gathered = (
    compiled(losses.info_nce, batch, 512, reference.make_mesh(f'8/{gather_bytes}'))
    for gather_bytes in (0, limit)
  )
  more = gathered.memory_analysis().temp_size_in_bytes - plain.memory_analysis().temp_size_in_bytes
  assert 0 < more <= 1.05 * limit


def test_a_million_pairs_on_64_devices():
  script = f"""
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 64)
from tests.losses.pairwise import test_memory
mesh = jax.make_mesh((64,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
print(test_memory.temporaries({2**20}, mesh))
"""
  result = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, check=True, timeout=300
  )
  assert json.loads(result.stdout) <= 256 * MIB
