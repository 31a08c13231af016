"""Super-resolution with a discriminator, and the contrastive loss of PCL-SR."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict
from PIL import Image

from contrastive_jax import data, losses
from contrastive_jax.data import images as pixels
from contrastive_jax.data.augmentation.changes import convolve
from contrastive_jax.models.definition import Definition, define_from
from contrastive_jax.models.keys import ParameterKeys
from contrastive_jax.models.super_resolution import Discriminator, Generator, enlarge, reduce
from contrastive_jax.tasks.fields import check_ranges, fit_by
from contrastive_jax.tasks.pictures import grid
from contrastive_jax.training.fit import Fit, Learner, learn
from contrastive_jax.training.rules import COUNT, NOT_NEGATIVE, POSITIVE

Results = dict[str, float]
State = dict[str, Learner]
_RULES = {
  'total_steps': COUNT,
  'batch_size': COUNT._replace(low=2),
  'copies': COUNT,
  'adversarial': NOT_NEGATIVE,
  'contrast': NOT_NEGATIVE,
  'model.upscale': COUNT._replace(low=2),
  'model.width': COUNT,
  'discriminator.layers': COUNT,
  'optimizer.learning_rate': POSITIVE,
  'evaluation.size': COUNT._replace(low=7),  # the window of SSIM
}
PICTURE = 'crops.png'  # in the workdir of a finished run
_ROWS, _SHOWN = 4, 96  # of it, and the side of a crop
_BLUR = (0.6, 2.0)  # range of standard deviations, in pixels
_SHARPENING = 1.0  # of the difference from a blurred copy


def open_super_resolution(config: ConfigDict) -> Callable[[pathlib.Path], Results]:
  """The task 'super_resolution': enlarges photographs with `models.super_resolution`.

      generator       mean |G(x) − y| + adversarial · (softplus(−D(G(x))) + contrast · L)
      discriminator   softplus(−D(y)) + softplus(D(G(x)))

  of crops y and their bicubic reductions x. L is the mean of `losses.restoration` over the
  discriminator's layers; its gradient goes through the generated image. The positives of a crop are
  y and `copies` sharpened versions, of random strength; its negatives x enlarged, `copies` blurred
  versions of y, and the crop of another example. Whole test images are compared by PSNR and SSIM
  over their colors, beside bicubic enlargement. The run draws some of
  them to crops.png: enlarged, restored, and as they are.

  Raises:
    ValueError: if a size does not fit, an image is too small, or scikit-image is not installed.
  """
  metrics = _measures()
  check_ranges(config, _RULES)
  given, U = config.data, config.model.upscale
  if given.crop % U or given.crop % (1 << config.discriminator.layers):
    raise ValueError(
      f'config.data.crop = {given.crop} is no multiple of config.model.upscale = {U}, '
      f'and of 2 to the power of config.discriminator.layers = {config.discriminator.layers}'
    )
  train = read_images(given.name, given.split, given.folder, given.crop)
  test = read_images(given.name, given.test_split, given.folder, U)
  generator = define_from(lambda key: Generator(**config.model, rngs=ParameterKeys(key)))
  discriminator = define_from(
    lambda key: Discriminator(**config.discriminator, rngs=ParameterKeys(key))
  )

  def run(folder: pathlib.Path) -> Results:
    batch = functools.partial(draw, train, config.batch_size, given.crop, config.seed)
    task = Fit(*adversaries(config, generator, discriminator), batch)
    state = fit_by(config, task, folder)
    restore = jax.jit(lambda x: generator.bind(state['generator'].evaluated)(x))
    found = [restore_image(restore, image, U, config.evaluation.size) for image in test]
    draw_crops(found[:_ROWS]).save(folder / PICTURE)
    measured = [measure(each, metrics) for each in found]
    return {name: float(np.mean([each[name] for each in measured])) for name in measured[0]}

  return run


def adversaries(
  config: ConfigDict, generator: Definition, discriminator: Definition
) -> tuple[Callable[[jax.Array], State], Callable[..., Any]]:
  """`Fit.init` and `Fit.step` of a generator and a discriminator, with an optimizer each."""

  def generate(module, batch, key):
    """The generator's loss, given the discriminator."""
    judge, y, x = batch
    made = module(x)
    logits, features = judge(made)
    terms = {'l1': jnp.mean(jnp.abs(made - y)), 'adversarial': jnp.mean(jax.nn.softplus(-logits))}
    loss = terms['l1'] + config.adversarial * terms['adversarial']
    if config.contrast:
      near, far = copies(key, y, config.copies)
      far = jnp.concatenate([enlarge(x, config.model.upscale)[None], far, jnp.roll(y, 1, 0)[None]])
      seen = [_layers(judge, each) for each in (jnp.concatenate([y[None], near]), far)]
      layers = [losses.restoration(*each) for each in zip(features, *seen, strict=True)]
      terms['contrast'] = sum(layers) / len(layers)
      loss += config.adversarial * config.contrast * terms['contrast']
    return loss, terms | {'psnr': -10 * jnp.log10(jnp.mean((made - y) ** 2))}

  def judge(module, batch, key):
    """The discriminator's loss, given restored images."""
    made, y = batch
    real, fake = module(y)[0], module(made)[0]
    return jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(fake)), {}

  schedule = optax.cosine_decay_schedule(config.optimizer.learning_rate, config.total_steps)
  networks = {'generator': (generator, generate), 'discriminator': (discriminator, judge)}
  learners = {
    name: learn(definition, optax.adam(schedule), loss)
    for name, (definition, loss) in networks.items()
  }

  def init(key: jax.Array) -> State:
    keys = jax.random.split(key, len(learners))
    return {
      name: init(own) for own, (name, (init, _)) in zip(keys, sorted(learners.items()), strict=True)
    }

  def step(state: State, batch: Mapping[str, jax.Array], key: jax.Array):
    y = batch['images'].astype(jnp.float32) / 255
    x = reduce(y, config.model.upscale)
    frozen = discriminator.bind(jax.lax.stop_gradient(state['discriminator'].evaluated))
    made = jax.lax.stop_gradient(generator.bind(state['generator'].evaluated)(x))
    own, metrics = learners['generator'][1](state['generator'], (frozen, y, x), key)
    other, judged = learners['discriminator'][1](state['discriminator'], (made, y), key)
    metrics['discriminator'] = judged['loss']
    return {'generator': own, 'discriminator': other}, metrics

  return init, step


def copies(key: jax.Array, images: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
  """Sharpened and blurred copies of images [B, H, W, 3], each [count, B, H, W, 3]."""
  low, high = _BLUR
  radius = round(3 * high)
  place = jnp.arange(-radius, radius + 1)

  def blurred(std):
    kernels = jnp.exp(-((place / std[:, None]) ** 2) / 2)
    return convolve(images, kernels / kernels.sum(1, keepdims=True))

  drawn = jax.random.uniform(key, (2, count, len(images)), minval=low, maxval=high)
  near = jnp.stack([images + _SHARPENING * (images - blurred(std)) for std in drawn[0]])
  return jnp.clip(near, 0, 1), jnp.stack([blurred(std) for std in drawn[1]])


def read_images(name: str, split: str, folder: str, least: int) -> list[np.ndarray]:
  """The images of a split, uint8 [H, W, 3] of their own sizes.

  Raises:
    ValueError: if one has a side under `least`.
  """
  source = data.open_source(name, split, folder or None)
  found = [np.asarray(pixels.decode(source[n]['image'])) for n in range(len(source))]
  for image in found:
    if min(image.shape[:2]) < least:
      raise ValueError(
        f'split {split!r} of {name!r} has an image of {image.shape[:2]} pixels; use a '
        f'config.data.crop of up to {min(image.shape[:2])}'
      )
  return found


def draw(
  found: Sequence[np.ndarray], batch_size: int, size: int, seed: int, step: int
) -> dict[str, np.ndarray]:
  """Random crops [B, S, S, 3], mirrored at random."""
  random = np.random.default_rng((seed, step))
  crops = []
  for number in random.integers(len(found), size=batch_size):
    H, W, _ = found[number].shape
    top, left = random.integers(H - size + 1), random.integers(W - size + 1)
    crop = found[number][top : top + size, left : left + size]
    crops.append(crop[:, ::-1] if random.integers(2) else crop)
  return {'images': np.stack(crops)}


def restore_image(
  restore: Callable[[jax.Array], jax.Array], image: np.ndarray, upscale: int, size: int
) -> dict[str, np.ndarray]:
  """The middle of an image, at most `size` pixels wide, after its reduction.

  Returns:
    Equal shapes [H, W, 3], uint8: the `bicubic` enlargement, the `restored` image, and the `real`
    one.
  """
  H, W = (min(side, size) // upscale * upscale for side in image.shape[:2])
  real = _middle(image, H, W)
  x = reduce(jnp.asarray(real[None], jnp.float32) / 255, upscale)
  # The input has eight bits too.
  x = jnp.round(255 * jnp.clip(x, 0, 1)) / 255
  made = {'bicubic': enlarge(x, upscale), 'restored': restore(x)}
  shown = {name: np.asarray(jnp.round(255 * jnp.clip(y[0], 0, 1))) for name, y in made.items()}
  return {name: y.astype(np.uint8) for name, y in shown.items()} | {'real': real}


def measure(
  found: Mapping[str, np.ndarray], metrics: Mapping[str, Callable[..., float]]
) -> Results:
  """PSNR and SSIM of the restored image, and of the bicubic one; see `restore_image`."""
  made = {'': found['restored'], 'bicubic_': found['bicubic']}
  return {
    f'{prefix}{name}': float(of(found['real'], image))
    for prefix, image in made.items()
    for name, of in metrics.items()
  }


def draw_crops(found: Sequence[Mapping[str, np.ndarray]]) -> Image.Image:
  """A row per image, of the columns of `restore_image`; their middle."""
  side = min(min(image.shape[:2]) for images in found for image in images.values())
  side = min(side, _SHOWN)
  return grid([[_middle(image, side, side) for image in images.values()] for images in found])


def _middle(image: np.ndarray, height: int, width: int) -> np.ndarray:
  top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
  return image[top : top + height, left : left + width]


def _layers(judge, images: jax.Array) -> list[jax.Array]:
  """The discriminator's features of images [N, B, H, W, 3], each [N, B, h, w, C]."""
  N, B = images.shape[:2]
  return [
    layer.reshape(N, B, *layer.shape[1:])
    for layer in judge(images.reshape(-1, *images.shape[2:]))[1]
  ]


def _measures() -> dict[str, Callable[..., float]]:
  try:
    from skimage import metrics
  except ImportError as error:
    raise ValueError(
      f"config.task = 'super_resolution' measures with scikit-image ({error}); install it: pip "
      'install scikit-image'
    ) from error
  return {
    'psnr': functools.partial(metrics.peak_signal_noise_ratio, data_range=255),
    'ssim': functools.partial(metrics.structural_similarity, channel_axis=-1, data_range=255),
  }
