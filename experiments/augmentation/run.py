"""Where to augment: on the host, by PIL in the pipeline's threads, or on the device, in the step?

python -m experiments.augmentation.run
"""

import time

import jax
import numpy as np
from absl import app
from PIL import Image

from configs import clip
from contrastive_jax import data
from contrastive_jax.data import images
from contrastive_jax.data.augmentation import augment, augment_on_host
from experiments import records
from experiments.augmentation import report

BATCH, REPEATS = 256, 7
# Strengths measured one by one; the default's are measured together.
OTHERS = {'crop': 0.9, 'blur': 0.5, 'rand_augment': 0.3, 'aug_mix': 0.3}


def augment_by_pil(picture: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
  """Applies one affine and one color map of default strengths, by one call of PIL each."""
  turn = np.deg2rad(rng.uniform(-10, 10))
  zoom = picture.width / size * rng.uniform(0.85, 1.15)
  matrix = zoom * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
  offset = picture.width / 2 - matrix @ [size / 2, size / 2] + rng.uniform(-2, 2, 2)
  picture = picture.transform(
    (size, size),
    Image.Transform.AFFINE,
    np.column_stack([matrix, offset]).ravel().tolist(),
    resample=Image.Resampling.BILINEAR,
    fillcolor=(255, 255, 255),
  )
  color = np.column_stack([np.eye(3) + rng.uniform(-0.1, 0.1, (3, 3)), np.zeros(3)])
  return np.asarray(picture.convert('RGB', color.ravel().tolist()))


def best(function) -> float:
  """Returns the milliseconds of the fastest of several calls."""
  times = []
  for _ in range(REPEATS):
    start = time.perf_counter()
    function()
    times.append(time.perf_counter() - start)
  return 1000 * min(times)


def main(_):
  """Writes and prints milliseconds per batch."""
  config = clip.recipe()
  size, strengths = config.model.image.size, config.augmentation.to_dict()
  source = data.open_source('emoji', 'train')
  encoded = [source[i]['image'] for i in range(BATCH)]
  decoded = [Image.fromarray(images.resize(images.decode(e), config.data.size)) for e in encoded]
  pixels = np.stack([np.asarray(picture) for picture in decoded])
  rng, seeds = np.random.default_rng(0), np.arange(BATCH)
  keys = jax.vmap(jax.random.key)(seeds)

  def on_device(strengths):
    change = jax.jit(lambda keys, pixels: augment(keys, pixels, size, strengths))
    jax.block_until_ready(change(keys, pixels))
    return best(lambda: jax.block_until_ready(change(keys, pixels)))

  on_host = augment_on_host(size, strengths)
  on_host(seeds, pixels)
  milliseconds = {
    'host, decode and resize': best(
      lambda: [images.resize(images.decode(e), config.data.size) for e in encoded]
    ),
    'host, augment by PIL': best(
      lambda: [augment_by_pil(picture, size, rng) for picture in decoded]
    ),
    'host, augment': best(lambda: on_host(seeds, pixels)),
    'device, augment': on_device(strengths),
  }
  for name, strength in OTHERS.items():
    milliseconds[f'device, {name}'] = on_device({name: strength})
  records.write(report.RESULTS, milliseconds)
  print(report.milliseconds(report.RESULTS))


if __name__ == '__main__':
  app.run(main)
