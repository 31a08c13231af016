"""Captioning with and without a key-value cache, for the same model, search and tokens.

  python -m experiments.generation.run

Writes results.json and prints its table.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from contrastive_jax.models.definition import define
from contrastive_jax.models.generation import Rules, search
from experiments import records
from experiments.generation import report

ROUNDS = flags.DEFINE_integer('rounds', 5, 'Turns of each; the best counts.', lower_bound=1)
IMAGES = flags.DEFINE_integer('images', 64, 'Captioned at a time.', lower_bound=1)
TOKENS = flags.DEFINE_integer('tokens', 32, 'Generated for each image.', lower_bound=1)


def define_model(length, scan):
  """CoCa of width 256: 6 image layers, 3 of the text tower, 3 of the decoder."""
  shared = {'width': 256, 'heads': 4, 'scan': scan}
  return define(
    'coca',
    embed=256,
    image={'size': 64, 'patch': 8, 'layers': 6, **shared},
    text={'vocabulary': 4096, 'length': length, 'layers': 3, **shared},
    decoder={'layers': 3, 'heads': 4, 'scan': scan},
    queries=64,
    pooler_heads=4,
  )


def cached(model, images, rules):
  """Captions with the cache."""
  step, cache = model.captioner(images, beams=rules.beams, length=rules.max_length)
  return search(step, cache, len(images), rules)


def uncached(model, images, rules):
  """Captions without a cache: recomputes all tokens at each step, but the image only once."""
  memory = model.pool_image(images)[1]

  def step(tokens, texts, parents, position):
    texts = texts.at[:, :, position].set(tokens)
    hidden = model.decoder(model.text(texts[:, 0])[1], memory)
    return model.decoder.output(hidden[:, position])[:, None], texts

  texts = jnp.zeros((len(images), 1, rules.max_length), jnp.int32)
  return search(step, texts, len(images), rules)


def main(_):
  """Alternates turns, and keeps the best of each."""
  length = TOKENS.value + 1
  # The end token comes last, so that every caption takes every step.
  rules = Rules(start_id=1, end_id=2, max_length=length, min_length=length)
  images = jax.random.normal(jax.random.key(1), (IMAGES.value, 64, 64, 3))
  results = {}
  for layers, scan in (('unrolled', False), ('scanned', True)):
    definition = define_model(length, scan)
    parameters = jax.jit(definition.init)(jax.random.key(0))
    ways = {
      way.__name__: jax.jit(lambda p, i, way=way, bind=definition.bind: way(bind(p), i, rules))
      for way in (cached, uncached)
    }
    tokens = {name: np.asarray(way(parameters, images).tokens) for name, way in ways.items()}
    assert (tokens['cached'] > 0).all()
    seconds = dict.fromkeys(ways, np.inf)
    for _ in range(ROUNDS.value):
      for name, way in ways.items():
        start = time.perf_counter()
        jax.block_until_ready(way(parameters, images))
        seconds[name] = min(seconds[name], time.perf_counter() - start)
    equal = float((tokens['cached'] == tokens['uncached']).all(axis=1).mean())
    results[layers] = seconds | {'equal_captions': equal}
  records.write(report.RESULTS, results)
  print(report.seconds(report.RESULTS))


if __name__ == '__main__':
  app.run(main)
