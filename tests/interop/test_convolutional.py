"""open_clip's convolutional towers: ModifiedResNet, and timm's ConvNeXts, ViTamins and FastViTs.

`python -m tests.interop.test_convolutional` makes the stored cases anew.
"""

import functools
import json

import jax
import numpy as np
import optax
import pytest
import safetensors.numpy

from contrastive_jax import interop, losses
from contrastive_jax.interop import table
from contrastive_jax.interop.model import shapes_of, with_defaults
from contrastive_jax.interop.open_clip import config as open_clip_config
from contrastive_jax.interop.open_clip import convnext, folder
from contrastive_jax.methods import Objective
from contrastive_jax.models.definition import define, join_statistics
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training.state import plan_state, start_from
from contrastive_jax.training.step import jit_train_step, make_train_step
from tests.doubles import slow_but
from tests.interop import networks
from tests.interop.models import assert_same_parameters
from tests.interop.parity import FOLDER, assert_same_bytes, expected, sampled
from tests.interop.peer.run import run

WEIGHTS = 'open_clip_model.safetensors'
TEXT = {'context_length': 8, 'vocab_size': 64, 'width': 32, 'heads': 2, 'layers': 2}
STORED_TEXT = TEXT | {'width': 16, 'layers': 1}
# Sections of the stored cases, and of larger ones that open_clip builds for the slow tests.
STORED = {
  'resnet': {'layers': [1, 2, 1, 1], 'width': 2, 'head_width': 16, 'image_size': 64},
  'convnext': {'timm_model_name': 'convnext_stored', 'timm_pool': '', 'image_size': 64},
  'vitamin': {'timm_model_name': 'vitamin_stored', 'timm_pool': '', 'image_size': 64},
  'fastvit': {'timm_model_name': 'fastvit_stored', 'timm_proj': None, 'image_size': 64},
}
BUILT = {
  'resnet': {'layers': [2, 1, 3, 2], 'width': 8, 'head_width': 32, 'image_size': 96},
  'convnext': {'timm_model_name': 'convnext_wide', 'timm_pool': '', 'image_size': 96},
  'convnext_mlp': {'timm_model_name': 'convnext_wide', 'timm_proj': 'mlp', 'image_size': 64},
  'vitamin': {'timm_model_name': 'vitamin_wide', 'timm_pool': '', 'image_size': 96},
  'fastvit': {'timm_model_name': 'fastvit_squeezed', 'timm_proj': None, 'image_size': 96},
  'fastvit_large': {'timm_model_name': 'fastvit_large', 'timm_proj': None, 'image_size': 128},
}
RESNETS = ('RN50', 'RN101', 'RN50x4', 'RN50x16', 'RN50x64')
SIZES = ('tiny', 'small', 'base', 'base_w', 'base_w_320', 'large', 'large_d', 'large_d_320')
CONFIGS = (
  *RESNETS,
  *(f'{name}-quickgelu' for name in RESNETS),
  *(f'convnext_{size}' for size in (*SIZES, 'xlarge', 'xxlarge', 'xxlarge_320')),
  *(f'ViTamin-{size}' for size in ('S', 'S-LTT', 'B', 'B-LTT', 'L', 'L2')),
  *(f'ViTamin-{size}-{side}' for size in ('L', 'L2', 'XL') for side in (256, 336, 384)),
  *(f'MobileCLIP-S{size}' for size in (1, 2)),
  *(f'MobileCLIP2-S{size}' for size in (0, 2, 3, 4)),
)


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
  networks.add(monkeypatch)


def write_request(path, vision, text, *, batch, steps):
  """Writes what `make` reads."""
  name = vision.get('timm_model_name')
  # Stochastic depth would make training random.
  vision = {**vision, 'timm_drop_path': None} if name else vision
  request = {
    'model_cfg': {'embed_dim': 24, 'vision_cfg': vision, 'text_cfg': text},
    'networks': {name: networks.NETWORKS[name][1:]} if name else {},
    'size': vision['image_size'],
    'batch': batch,
    'steps': steps,
  }
  (path / 'request.json').write_text(json.dumps(request))


@pytest.fixture(scope='session')
def built(tmp_path_factory):
  """A function from a case to the folder in which open_clip built it."""
  made = {}

  def build(case):
    if case not in made:
      path = tmp_path_factory.mktemp(case)
      # AdamW turns rounding into steps of full size, which a third loss would show.
      write_request(path, BUILT[case], TEXT, batch=8, steps=2)
      run('convolutional.py', 'make', path)
      made[case] = path
    return made[case]

  return build


def theirs(model, tree):
  """Parameters, or their gradients, by open_clip's names; running statistics are no parameters."""
  named = folder.to_tensors(tree, model.fields, model.source['model_cfg'])
  buffers = ('running_mean', 'running_var', 'num_batches_tracked')
  return {name: leaf for name, leaf in named.items() if not name.endswith(buffers)}


def assert_gradients(model, gradient, there, prefix=''):
  mine = theirs(model, gradient)
  samples = there[f'{prefix}gradient_samples']
  worst = 0.0
  for name, norm in zip(sorted(mine), there[f'{prefix}gradient_norms'], strict=True):
    other, samples = np.split(samples, [sampled(mine[name]).size])
    # A gradient that is zero but for rounding has no relative error: that of a key's bias, and in
    # training that of a factor per channel below batch norm.
    share = 1e-4 if prefix else 1e-5 if name.endswith('k_proj.bias') else 1e-6
    floor = share * np.linalg.norm(there[f'{prefix}gradient_norms'])
    difference = np.linalg.norm(sampled(mine[name]) - other) / max(np.linalg.norm(other), floor)
    worst = max(worst, difference, abs(np.linalg.norm(mine[name]) - norm) / max(norm, floor))
    assert worst <= 1e-3, name
  assert samples.size == 0
  return worst


def assert_same(model, there):
  """Features, loss and gradients of the evaluated model."""

  @jax.jit
  def compute(parameters):
    def total(parameters):
      outputs = model.definition.bind(parameters)(there['image'], there['tokens'])
      return losses.info_nce(outputs.image, outputs.text, scale=outputs.scale), outputs

    return jax.value_and_grad(total, has_aux=True)(parameters)

  (loss, outputs), gradient = compute(model.parameters)
  distances = {
    'image_features': np.abs(outputs.image - there['image_features']).max(),
    'text_features': np.abs(outputs.text - there['text_features']).max(),
    'loss_contrastive': abs(loss - there['loss_contrastive']),
  }
  assert all(distance <= 2e-4 for distance in distances.values()), distances
  return {**distances, 'gradients': assert_gradients(model, gradient, there)}


@pytest.mark.parametrize('case', slow_but(STORED, 'resnet', 'convnext'))
def test_features_loss_and_gradients_equal_open_clips(case):
  assert_same(interop.read_open_clip(FOLDER / case), expected(case))


@pytest.mark.parametrize('case', STORED)
def test_what_is_read_and_written_has_the_same_bytes(case, tmp_path):
  model = interop.read_open_clip(FOLDER / case)
  interop.write_open_clip(model, tmp_path)
  assert_same_bytes(FOLDER / case / WEIGHTS, tmp_path / WEIGHTS)
  assert with_defaults(interop.read_open_clip(tmp_path).fields) == with_defaults(model.fields)


def test_counted_steps_of_batch_norm_are_kept():
  model = interop.read_open_clip(FOLDER / 'resnet')
  there = safetensors.numpy.load_file(FOLDER / 'resnet' / WEIGHTS)
  counters = {name: value for name, value in there.items() if name.endswith('num_batches_tracked')}
  assert counters and any(value > 0 for value in counters.values())
  assert model.counters == model.resize(96).counters == counters


def test_a_resnet_takes_other_sizes_with_interpolated_positions():
  model = interop.read_open_clip(FOLDER / 'resnet')
  other = model.resize(96)
  table = np.asarray(model.parameters['image']['pool']['positions'])
  resized = np.asarray(other.parameters['image']['pool']['positions'])
  assert table.shape[0] == 1 + 2 * 2 and resized.shape[0] == 1 + 3 * 3
  np.testing.assert_array_equal(table[0], resized[0])
  np.testing.assert_allclose(resized[5], table[1:].mean(0), atol=1e-6)
  with pytest.raises(ValueError, match='image_size = 80 is not a multiple of 32'):
    model.resize(80)


def test_a_convnext_takes_any_multiple_of_32():
  model = interop.read_open_clip(FOLDER / 'convnext')
  other = model.resize(128)
  assert other.fields['image']['size'] == 128
  assert other.parameters['image'] is model.parameters['image']


RESNET = {'tower': 'resnet', 'size': 32, 'width': 2, 'layers': (1, 2, 1, 1), 'heads': 2}
CONVNEXT = {'tower': 'convnext', 'size': 64, 'width': 4, 'layers': (1, 1, 2, 1)}
VITAMIN = {'tower': 'vitamin', **networks.NETWORKS['vitamin_stored'][0]._asdict()}
FASTVIT = {'tower': 'fastvit', 'size': 64, **networks.NETWORKS['fastvit_stored'][0]._asdict()}
TINY = {'tower': 'convnext', 'size': 32, **convnext.SIZES['convnext_tiny']._asdict()}


def model_of(image, projection, embed=12, text=()):
  """A CLIP of ours with random parameters, and variances above 0."""
  text = {'vocabulary': 64, 'length': 8, 'width': 16, 'layers': 1, 'heads': 2, **dict(text)}
  fields = {'name': 'clip', 'embed': embed, 'image': image, 'text': text}
  fields |= {'image_projection': projection}
  random = np.random.default_rng(0)

  def draw(path, leaf):
    drawn = random.normal(0, 0.3, leaf.shape).astype(np.float32)
    return np.abs(drawn) + 0.5 if path[-1].key in ('scale', 'variance') else drawn

  shapes = define(**fields).shapes
  return interop.Model(fields, jax.tree_util.tree_map_with_path(draw, shapes))


def test_openais_resnet_needs_no_config(tmp_path):
  # Heads are 64 wide in all of OpenAI's models.
  text = {'width': 64, 'heads': 1, 'activation': 'quick_gelu'}
  model = model_of(RESNET | {'heads': 1}, 'affine', text=text)
  interop.write_open_clip(model, tmp_path)
  weights = safetensors.numpy.load_file(tmp_path / WEIGHTS)
  sizes = {'input_resolution': 32, 'context_length': 8, 'vocab_size': 64}
  path = tmp_path / 'model.safetensors'
  safetensors.numpy.save_file(weights | {name: np.array(n) for name, n in sizes.items()}, path)
  again = interop.read_openai(path)
  assert_same_parameters(model, again)
  read, ours = with_defaults(again.fields), with_defaults(model.fields)
  assert {**read, 'scale': 0} == {**ours, 'scale': 0}


@pytest.mark.parametrize(
  ('image', 'projection'),
  [
    (RESNET, 'affine'),
    (CONVNEXT, 'linear'),
    (CONVNEXT, 'affine'),
    (CONVNEXT | {'drop_path': 0.1}, 'mlp'),
    (VITAMIN, 'linear'),
    (FASTVIT, 'affine'),
  ],
)
def test_our_models_come_back_the_same(image, projection, tmp_path):
  model = model_of(image, projection)
  interop.write_open_clip(model, tmp_path)
  again = interop.read_open_clip(tmp_path)
  assert_same_parameters(model, again)
  read, ours = with_defaults(again.fields), with_defaults(model.fields)
  assert {**read, 'scale': 0} == {**ours, 'scale': 0}
  assert bool(again.counters) == (image in (RESNET, FASTVIT))
  assert not any(again.counters.values())


def test_a_convnext_without_projection_comes_back_the_same(tmp_path):
  model = model_of(CONVNEXT, 'none', embed=32)
  interop.write_open_clip(model, tmp_path)
  assert_same_parameters(model, interop.read_open_clip(tmp_path))


@pytest.mark.parametrize(
  ('image', 'projection', 'message'),
  [
    (RESNET, 'linear', "model.image_projection = 'linear' is not supported"),
    ({**CONVNEXT, 'width': 8}, 'linear', r'image\.width = 8 with image\.layers = \(1, 1, 2, 1\)'),
    ({**CONVNEXT, 'mlp_ratio': 2}, 'linear', r'image\.mlp_ratio = 2'),
  ],
)
def test_a_part_without_a_form_is_named(image, projection, message, tmp_path):
  with pytest.raises(interop.UnsupportedError, match=message):
    interop.write_open_clip(model_of(image, projection), tmp_path)


@pytest.mark.parametrize(
  ('vision', 'message'),
  [
    ({'layers': [3, 4, 6], 'width': 64}, r'vision_cfg\.layers = \[3, 4, 6\]'),
    ({'layers': [3, 4, 6, 3], 'ls_init_value': 0.1}, r'vision_cfg\.ls_init_value = 0\.1'),
    ({'timm_model_name': 'convnext_base', 'timm_pool': 'max'}, r"vision_cfg\.timm_pool = 'max'"),
    (
      {'timm_model_name': 'convnext_base', 'timm_proj': 'mlp', 'timm_proj_bias': True},
      r"vision_cfg\.timm_proj = 'mlp' with timm_proj_bias = True",
    ),
    (
      {'timm_model_name': 'vitamin_large_256'},
      r'image_size = 224 is not .*vitamin_large_256.*; 256',
    ),
    ({'timm_model_name': 'convnextv2_base'}, r"vision_cfg\.timm_model_name = 'convnextv2_base'"),
    ({'timm_model_name': 'convnext_base', 'image_size': 100}, r'image\.size = 100'),
  ],
)
def test_an_entry_without_a_form_here_is_named(vision, message):
  with pytest.raises(ValueError, match=message):
    interop.check_open_clip({'embed_dim': 24, 'vision_cfg': vision, 'text_cfg': TEXT})


def test_a_tag_of_timm_names_only_weights():
  vision = {'timm_model_name': 'convnext_base.fb_in22k'}
  interop.check_open_clip({'embed_dim': 24, 'vision_cfg': vision, 'text_cfg': TEXT})


@functools.cache
def all_shapes():
  return json.loads(run('convolutional.py', 'shapes', *CONFIGS))


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_tensors_have_open_clips_names_and_shapes(name):
  config, shapes = all_shapes()[name]
  fields, *_ = open_clip_config.read_config(config)
  ours = shapes_of(fields)
  named = table.their_shapes(open_clip_config.rows(with_defaults(fields), config), ours)
  there = {key: tuple(shape) for key, shape in shapes.items()}
  counters = {key for key in there if key.endswith('num_batches_tracked')}
  assert counters == {
    key.replace('running_mean', 'num_batches_tracked') for key in named if 'running_mean' in key
  }
  assert named == {key: shape for key, shape in there.items() if key not in counters}


@pytest.mark.slow
@pytest.mark.parametrize('case', BUILT)
def test_a_larger_model_equals_open_clips(case, built):
  print(case, assert_same(interop.read_open_clip(built(case)), expected(built(case))))


@pytest.mark.slow
@pytest.mark.parametrize('case', BUILT)
def test_a_larger_model_is_written_with_the_same_bytes(case, built, tmp_path):
  interop.write_open_clip(interop.read_open_clip(built(case)), tmp_path)
  assert_same_bytes(built(case) / WEIGHTS, tmp_path / WEIGHTS)


def trained(model, there, optimizer, steps):
  """Losses of train steps, and the state after them."""
  mesh = make_mesh('data:1', jax.devices()[:1])
  create, abstract = plan_state(model.definition, optimizer, mesh, {})
  objective = Objective({'info_nce': 1.0}, None)
  step = jit_train_step(
    make_train_step(model.definition, objective, optimizer, mesh), abstract, mesh
  )
  state, found = start_from(create(0), model.parameters), []
  for _ in range(steps):
    batch = {'image': there['image'], 'tokens': there['tokens'].astype(np.int32)}
    state, metrics = step(state, batch)
    found.append(float(metrics['loss']))
  return found, jax.device_get(state)


@pytest.mark.slow
@pytest.mark.parametrize('case', BUILT)
def test_gradients_in_training_equal_open_clips(case, built):
  model, there = interop.read_open_clip(built(case)), expected(built(case))
  _, state = trained(model, there, optax.sgd(1.0), 1)
  before, statistics = model.definition.part(model.parameters)
  gradient = jax.tree.map(lambda a, b: np.float64(a) - np.float64(b), before, state.parameters)
  gradient = join_statistics(gradient, statistics)
  print(case, assert_gradients(model, gradient, there, 'train_'))


@pytest.mark.slow
@pytest.mark.parametrize('case', BUILT)
def test_train_steps_have_open_clips_losses_and_statistics(case, built):
  model, there = interop.read_open_clip(built(case)), expected(built(case))
  optimizer = optax.adamw(1e-3, 0.9, 0.98, 1e-6, weight_decay=0.2)
  found, state = trained(model, there, optimizer, len(there['train_losses']))
  print(case, np.abs(found - there['train_losses']).max())
  np.testing.assert_allclose(found, there['train_losses'], atol=2e-4)
  named = folder.to_tensors(state.evaluated, model.fields, model.source['model_cfg'])
  statistics = [name for name in there if name.startswith('trained_')]
  assert bool(statistics) == case.startswith(('resnet', 'fastvit'))
  for name in statistics:
    np.testing.assert_allclose(
      named[name.removeprefix('trained_')], there[name], rtol=1e-3, atol=1e-4, err_msg=name
    )


@pytest.mark.slow
@pytest.mark.parametrize(('image', 'projection'), [(RESNET, 'affine'), (TINY, 'mlp')])
def test_open_clip_loads_our_models(image, projection, tmp_path):
  model = model_of(image, projection)
  interop.write_open_clip(model, tmp_path)
  random = np.random.default_rng(0)
  images = random.normal(size=(3, 3, image['size'], image['size'])).astype(np.float32)
  tokens = np.array([[5, 9, 63, 0, 0, 0, 0, 0], [4, 63, *[0] * 6], [7, 8, 9, 3, 11, 2, 1, 63]])
  np.savez(tmp_path / 'expected.npz', image=images, tokens=tokens)
  run('convolutional.py', 'encode', tmp_path)
  outputs = model(images.transpose(0, 2, 3, 1), tokens.astype(np.int32))
  with np.load(tmp_path / 'encoded.npz') as there:
    np.testing.assert_allclose(outputs.image, there['image_features'], atol=2e-5)
    np.testing.assert_allclose(outputs.text, there['text_features'], atol=2e-5)


if __name__ == '__main__':
  for case, vision in STORED.items():
    (FOLDER / case).mkdir(exist_ok=True)
    write_request(FOLDER / case, vision, STORED_TEXT, batch=4, steps=2)
    run('convolutional.py', 'make', FOLDER / case)
    (FOLDER / case / 'request.json').unlink()
