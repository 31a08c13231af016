"""The config of M2-Encoder's groups: on any mesh, in micro-batches, and in two languages."""

import jax
import numpy as np
import pytest

from configs.methods import grouped
from contrastive_jax import data
from contrastive_jax.data.captions import draw_caption, parse_captions
from contrastive_jax.training import build
from tests.methods import laws


@pytest.mark.slow
def test_mesh_and_micro_batches_keep_the_groups():
  """Neither may reorder the batch, whose slices are the groups."""

  def step(mesh, devices, micro_batches):
    config = grouped.get_config('smoke')
    config.mesh, config.micro_batches = mesh, micro_batches
    run = build.build(config, jax.devices()[:devices])
    state, metrics = run.train_step(run.create_state(0), laws.batch_of(run))
    return jax.device_get((metrics['loss'], laws.gradient_of(state)))

  loss, gradient = step('data:1', 1, 1)
  found = step('data:2,fsdp:2,tensor:2', 8, 4)
  assert found[0] == pytest.approx(loss, rel=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found[1], gradient)


def test_captions_are_drawn_in_both_languages():
  config = grouped.get_config('bilingual')
  source, random = data.open_source('emoji', 'heldout_style'), np.random.default_rng(0)
  weights = parse_captions(config.data.captions)
  captions = [draw_caption(source.fields(row), weights, random) for row in range(100)]
  assert 0.3 < np.mean([caption.isascii() for caption in captions]) < 0.7
