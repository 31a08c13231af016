"""What the laws over the registry share: one tiny run that has all methods as terms."""

import functools
import importlib
import pathlib
from operator import le

import jax
import numpy as np
from ml_collections import ConfigDict

from configs import coca
from configs.methods import hpm
from contrastive_jax import methods
from contrastive_jax.methods import inputs
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.training import build

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs' / 'methods'
# Configs of other names that hold the options of a method.
OWNERS = {'masked_prediction': 'siglip2', 'self_distillation': 'siglip2', 'pretext': 'scatsimclr'}
B, EXAMPLES, VIEWS = 16, 64, 2
SIZES = methods.Sizes(
  *(B, 16, 16, 16, 4, 32),
  tokens=15,
  hidden=16,
  vocabulary=64,
  examples=1024,
  views=VIEWS,
  teacher=16,
  classes=4,
  side=16,
)


def options_of(name: str):
  """A method's entry in the objective: its smoke config's, where it has one."""
  owner = OWNERS.get(name, name)
  if not (CONFIGS / f'{owner}.py').exists():
    return 1.0
  config = importlib.import_module(f'configs.methods.{owner}').get_config('smoke')
  return 1.0 if 'task' in config else config.objective.to_dict()[name]


def method_of(name: str) -> methods.Method:
  """A method with the options of the laws."""
  given = options_of(name)
  own = dict(given) if isinstance(given, dict) else {}
  own.pop('weight', None)
  return methods.METHODS[name](**own)


# Methods of a masked autoencoder, which have a run of their own.
MASKED = tuple(name for name in methods.names() if 'patch_errors' in method_of(name).reads)
# The model gives whatever another method may read: several views, caption logits, a bias.
NAMES = tuple(name for name in methods.names() if name not in MASKED)


def kind(name: str) -> tuple[bool, ...]:
  """What a method keeps and reads."""
  method = method_of(name)
  memory = str(method.memory(SIZES))
  return (
    bool(method.heads(SIZES)),
    'examples' in memory,
    'queue' in memory,
    method.target is not None,
    bool(inputs.fields(method.reads) & {*Outputs.TOKENS}),
  )


def one_per_kind() -> tuple[str, ...]:
  """The first method of each kind, but for kinds that keep and read less than another."""
  first: dict[tuple[bool, ...], str] = {}
  for name in NAMES:
    first.setdefault(kind(name), name)
  less = {own for own in first for other in first if own != other and all(map(le, own, other))}
  return tuple(name for own, name in first.items() if own not in less)


def is_masked(names) -> bool:
  """Whether methods are of `MASKED`."""
  return set(names) <= set(MASKED)


@functools.cache
def config_of(names, mesh='data:1', micro_batches=1) -> ConfigDict:
  """A tiny CoCa with a bias and several views, and the texts that the given methods read.

  For methods of `MASKED` a tiny masked autoencoder.
  """
  config = hpm.get_config('smoke') if is_masked(names) else coca.get_config('smoke')
  config.objective = ConfigDict({name: options_of(name) for name in names})
  if any(read.startswith('teacher.') for name in names for read in method_of(name).reads):
    config.teacher = 'untrained'
  config.mesh, config.micro_batches = mesh, micro_batches
  config.batch_size, config.total_steps = B, 8
  reads = [read for name in names for read in method_of(name).reads]
  asked = methods.inputs.count(reads, 'views', 'view_features', *methods.inputs.ONE_VIEW)
  config.views = max(VIEWS, asked)
  config.texts = max(1, methods.inputs.count(reads, 'text', 'texts', 'texts_features'))
  config.data.negatives = 2 * methods.inputs.count(reads, 'negatives')
  config.data.labels, config.data.classes, config.data.examples = 'group', SIZES.classes, EXAMPLES
  config.data.number = 'number'
  config.augmentation = ConfigDict()
  config.data.size = config.model.image.size = 16
  config.model.image.patch = 8
  if not is_masked(names):
    config.model.bias = -1.0
  config.bad_steps.action = 'skip'
  config.optimizer.clip_norm = None
  config.optimizer.warmup_fraction = 0.0
  return config


@functools.cache
def run_of(names, mesh='data:1', devices=1, micro_batches=1) -> build.Run:
  """A run on the first devices."""
  return build.build(config_of(names, mesh, micro_batches), jax.devices()[:devices])


def batch_of(run: build.Run, step: int = 0) -> dict[str, np.ndarray]:
  """A batch whose ids repeat, and whose captions and labels agree in places."""
  random = np.random.default_rng(step)
  batch = {}
  for name, leaf in run.abstract_batch.items():
    if name == 'image':
      batch[name] = random.integers(0, 256, leaf.shape, np.uint8)
    elif name.endswith('tokens'):
      ends = random.integers(3, leaf.shape[-1] + 1, (*leaf.shape[:-1], 1))
      tokens = random.integers(1, 200, leaf.shape)
      batch[name] = np.where(np.arange(leaf.shape[-1]) < ends, tokens, 0).astype(np.int32)
    else:
      top = {'id': EXAMPLES, 'same': 10 * B, 'labels': SIZES.classes}.get(name, 8)
      batch[name] = random.integers(0, top, leaf.shape).astype(leaf.dtype)
  if 'id' in batch:
    batch['id'][:2] = batch['id'][2]
  return batch


@functools.cache
def initial(names):
  """The state that a run of some methods starts with, on the host."""
  return jax.device_get(run_of(names).create_state(0))


def place(state, run: build.Run):
  """A state on the devices of a run."""
  return jax.tree.map(lambda leaf, to: jax.device_put(leaf, to.sharding), state, run.abstract_state)


@functools.cache
def stepped(names, steps=1, **options):
  """The state and the metrics after some steps, on the host."""
  run = run_of(names, **options)
  state = place(initial(names), run)
  for step in range(steps):
    state, metrics = run.train_step(state, batch_of(run, step))
  return jax.device_get((state, metrics))


def gradient_of(state):
  """The gradient of a first step, from Adam's first moment."""
  nodes = jax.tree.leaves(state.optimizer_state, is_leaf=_has_mu)
  return next(node.mu for node in nodes if _has_mu(node))


def _has_mu(node) -> bool:
  return hasattr(node, 'mu')
