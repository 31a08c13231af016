"""Memory of CLIP ViT-B/32's step by the number of micro-batches.

  python -m experiments.gradient_caching.run

Writes results.json and prints its table.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from configs import clip
from contrastive_jax.training import build
from experiments import records
from experiments.gradient_caching import report

BATCH = flags.DEFINE_integer('batch', 4096, 'Pairs of the step whose memory is measured.')
PARTS = (1, 2, 4, 8, 16, 32)
CHECKED_BATCH, CHECKED_PARTS = 32, 8


def build_run(batch: int, parts: int, dtype: str) -> build.Run:
  """The paper's ViT-B/32 with half of the patches dropped, on one device."""
  config = clip.recipe('vit_b32')
  config.batch_size, config.micro_batches = batch, parts
  config.model.dtype = dtype
  config.model.image.patch_dropout = 0.5
  # A large epsilon: otherwise the update of a tiny gradient depends on its rounding.
  config.optimizer.epsilon = 1e-3
  config.optimizer.warmup_fraction = 0.0
  return build.build(config, jax.devices()[:1])


def batch_of(run: build.Run) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of a batch."""
  config = run.config
  B, size = config.batch_size, config.data.size
  return {
    'image': jax.ShapeDtypeStruct((B, size, size, 3), jnp.uint8),
    'tokens': jax.ShapeDtypeStruct((B, config.model.text.length), jnp.int32),
  }


def memory(batch: int, parts: int) -> dict[str, float]:
  """Returns the bytes of the compiled step."""
  run, start = build_run(batch, parts, 'bfloat16'), time.perf_counter()
  stats = run.train_step.lower(run.abstract_state, batch_of(run)).compile().memory_analysis()
  return {
    'arguments': stats.argument_size_in_bytes,
    'temporaries': stats.temp_size_in_bytes,
    'compile_seconds': time.perf_counter() - start,
  }


def differences() -> dict[str, float]:
  """Compares a step with micro-batches to one without, from the same state and batch."""
  random, ends = np.random.default_rng(0), []
  whole = build_run(CHECKED_BATCH, 1, 'float32')
  shapes = batch_of(whole)
  batch = {
    'image': random.integers(0, 256, shapes['image'].shape, np.uint8),
    'tokens': random.integers(1, 49_000, shapes['tokens'].shape, np.int32),
  }
  for run in (whole, build_run(CHECKED_BATCH, CHECKED_PARTS, 'float32')):
    ends.append(jax.device_get(run.train_step(whole.create_state(0), batch)))
  (state, metrics), (state_in_parts, metrics_in_parts) = ends
  moments = [end.optimizer_state[1][0].mu for end in (state, state_in_parts)]
  return {
    name: abs(float(metrics_in_parts[name]) / float(metrics[name]) - 1)
    for name in ('loss', 'gradient_norm')
  } | {
    # Relative differences of gradients, to which Adam's first moment is proportional.
    'gradient': max(
      float(np.linalg.norm(one - other) / max(np.linalg.norm(one), 1e-12))
      for one, other in zip(*map(jax.tree.leaves, moments), strict=True)
    )
  }


def main(_):
  """Measures both, and writes and prints the results."""
  results = {'batch': BATCH.value, 'memory': {}, 'relative_difference': differences()}
  print(results['relative_difference'], flush=True)
  for parts in PARTS:
    results['memory'][parts] = memory(BATCH.value, parts)
    print(parts, results['memory'][parts], flush=True)
  records.write(report.RESULTS, results)
  print(report.memory(report.RESULTS))


if __name__ == '__main__':
  app.run(main)
