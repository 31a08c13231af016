"""Tiny models that the tests share."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from contrastive_jax.models.definition import define, join_statistics, updated_statistics

IMAGE = {'size': 8, 'patch': 4, 'width': 16, 'layers': 2, 'heads': 2}
TEXT = {'vocabulary': 32, 'length': 6, 'width': 16, 'layers': 2, 'heads': 2}

# A tiny section per image tower, by its name: `test_the_table_has_every_tower` asks for new ones.
TOWERS = {
  'vit': {'size': 32, 'patch': 16, 'width': 16, 'layers': 2, 'heads': 2},
  'resnet': {'size': 32, 'width': 4, 'layers': (1, 2, 1, 1), 'heads': 4},
  'convnext': {'size': 32, 'width': 4, 'layers': (1, 2, 1, 1)},
  'vitamin': {'size': 32, 'width': 16, 'layers': 2, 'heads': 2, 'stem_widths': (4, 8)},
  'fastvit': {'size': 32, 'width': 8, 'layers': (1, 1, 2, 1)},
}
# Vision transformers with all that timm's have.
TIMM = {
  'siglip': {'pooling': 'attention', 'pre_norm': False, 'stem_bias': True, 'layer_scale': 0.1}
  | {'registers': 3},
  'eva': {'rope': 'yx', 'mlp': 'swiglu', 'qk_norm': True, 'mlp_inner_norm': True}
  | {'attention_bias': 'query_value', 'attention_inner_norm': True, 'post_norm': True},
}
SECTIONS = {name: {'tower': name, **fields} for name, fields in TOWERS.items()}
SECTIONS |= {name: TOWERS['vit'] | fields for name, fields in TIMM.items()}


def tiny(image=(), text=(), **fields):
  """A definition of CLIP, tiny but for what is given."""
  fields = {'embed': 12, **fields}
  return define('clip', image={**IMAGE, **dict(image)}, text={**TEXT, **dict(text)}, **fields)


def drawn(definition, deviation=0.3, seed=0):
  """Parameters that NumPy draws: compiling the draws of `init` takes longer than most tests."""
  random = np.random.default_rng(seed)

  def draw(path, leaf):
    return np.float32(deviation * random.normal(size=leaf.shape) + ('scale' in path[-1].key))

  # Its placing compiles nothing, unlike `jnp.asarray`, which does for every shape.
  return jax.device_put(jax.tree_util.tree_map_with_path(draw, definition.shapes))


def made(build, *sizes, **fields):
  """A module in float32, drawn by NumPy: biases are 0, scales 1 or the `layer_scale`."""
  make = lambda: build(*sizes, dtype=jnp.float32, rngs=nnx.Rngs(params=0), **fields)  # noqa: E731
  graph, state = nnx.split(nnx.eval_shape(make))

  def draw(path, leaf):
    name = '.'.join(str(key.key) for key in path if hasattr(key, 'key'))
    if 'attention_scale' in name or 'mlp_scale' in name:
      return np.full(leaf.shape, fields['layer_scale'], np.float32)
    if name.endswith(('bias', 'scale', 'mean', 'variance')):
      return np.full(leaf.shape, float(name.endswith(('scale', 'variance'))), np.float32)
    # By the name, whatever other parameters there are.
    random = np.random.default_rng(list(name.encode()))
    return random.normal(0, 0.3, leaf.shape).astype(leaf.dtype)

  return nnx.merge(graph, jax.device_put(jax.tree_util.tree_map_with_path(draw, state)))


def started(build, *sizes, **fields):
  """A module in float32 as training starts, compiled as a whole."""
  make = lambda key: build(*sizes, **fields, dtype=jnp.float32, rngs=nnx.Rngs(params=key))  # noqa: E731
  key = jax.random.key(0, impl='unsafe_rbg')
  graph = nnx.split(nnx.eval_shape(lambda: make(key)))[0]
  return nnx.merge(graph, jax.jit(lambda key: nnx.state(make(key)))(key))


def run(module, *operands, **fields):
  """NumPy's arrays of a call of the module, compiled once for modules of one structure."""
  graph, state = nnx.split(module)
  return jax.device_get(_run(graph, state, operands, fields))


@functools.partial(jax.jit, static_argnums=0)
def _run(graph, state, operands, fields):
  return nnx.merge(graph, state)(*operands, **fields)


def batch_of(image=IMAGE, text=TEXT, size=4, seed=0):
  """Images, and tokens whose texts end at different places."""
  random = np.random.default_rng(seed)
  side, length = image['size'], text['length']
  images = random.normal(size=(size, side, side, 3)).astype(np.float32)
  tokens = random.integers(1, text['vocabulary'], (size, length), np.int32)
  ends = random.integers(1, length + 1, size)
  return images, np.where(np.arange(length) < ends[:, None], tokens, 0)


def tiny_coca(image=(), text=(), decoder=(), **fields):
  """A definition of CoCa, tiny but for what is given."""
  fields = {'embed': 12, 'queries': 5, 'pooler_heads': 2, **fields}
  return define(
    'coca',
    image={**IMAGE, 'layers': 1, **dict(image)},
    text={**TEXT, 'layers': 1, **dict(text)},
    decoder={'layers': 2, 'heads': 2, **dict(decoder)},
    **fields,
  )


def assert_remat_changes_no_gradient(plain, rematerialized, parameters, images):
  """Of the image tower, evaluated."""

  def value_and_gradient(model):
    loss = lambda parameters: jnp.sum(model.bind(parameters).image(images)[0] ** 3)  # noqa: E731
    return jax.jit(jax.value_and_grad(loss))(parameters)

  ours, again = map(jax.device_get, map(value_and_gradient, (plain, rematerialized)))
  chex.assert_trees_all_close(ours, again, rtol=1e-4, atol=1e-4)


def assert_remat_changes_neither_gradients_nor_statistics(
  plain, rematerialized, parameters, images
):
  """Of the image tower in training, whose statistics move."""

  def value_and_gradient(definition):
    trained, statistics = definition.part(parameters)

    def loss(trained):
      model = definition.bind(join_statistics(trained, statistics))
      model.set_attributes(use_running_average=False, raise_if_not_found=False)
      return jnp.sum(model.image(images)[0] ** 2), updated_statistics(model)

    return jax.device_get(jax.jit(jax.value_and_grad(loss, has_aux=True))(trained))

  (loss, moved), gradient = value_and_gradient(plain)
  again = value_and_gradient(rematerialized)
  for one, other in zip(
    jax.tree.leaves(((loss, moved), gradient)), jax.tree.leaves(again), strict=True
  ):
    assert np.linalg.norm(one - other) <= 1e-4 * np.linalg.norm(one) + 1e-4
  before = jax.device_get(plain.part(parameters)[1])
  for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(moved), strict=True):
    assert np.abs(old - new).max() > 0
