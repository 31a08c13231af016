import jax
import numpy as np
import pytest

from configs.methods import gram
from contrastive_jax.methods import inputs
from contrastive_jax.models.definition import define
from contrastive_jax.training import build, flops
from tests.models.towers import drawn

IMAGE = {'size': 16, 'patch': 8, 'width': 16, 'layers': 0, 'heads': 2, 'pooling': 'mean'}
TEXT = {'vocabulary': 32, 'length': 8, 'width': 16, 'layers': 0, 'heads': 2}


SIZES = {'embed': 8, 'image': IMAGE, 'text': TEXT}


def test_each_sound_has_a_vector_of_its_own():
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.normal(size=(3, 16, 16, 3)).astype(np.float32),
    'tokens': rng.integers(1, 32, (3, 8)),
    'audio': rng.integers(0, 256, (3, 2, 16, 16), np.uint8),
  }
  definition = define('audio_clip', **SIZES, audio=IMAGE)
  parameters = drawn(definition)
  # Example 2 has the sounds of example 0, swapped.
  batch['audio'][2] = batch['audio'][0, ::-1]
  encode = jax.jit(lambda parameters, batch: definition.bind(parameters).encode(batch))
  outputs = jax.device_get(encode(parameters, batch))
  np.testing.assert_allclose(np.linalg.norm(outputs.audio, axis=-1), 1, rtol=1e-5)
  np.testing.assert_allclose(outputs.audio[2], outputs.audio[0, ::-1], atol=1e-6)
  assert np.abs(outputs.audio[0, 0] - outputs.audio[0, 1]).max() > 1e-3
  found = inputs.gather(('audio', 'audio.1'), outputs, {})
  np.testing.assert_array_equal(found['audio'], outputs.audio[:, 0])
  np.testing.assert_array_equal(found['audio.1'], outputs.audio[:, 1])
  # All other parameters are those of CLIP.
  clip = define('clip', **SIZES)
  own = {name: part for name, part in parameters.items() if name in clip.shapes}
  assert parameters.keys() - own.keys() == {'audio', 'audio_projection'}


def test_the_config_of_stamps_reads_as_many_sounds_as_there_are():
  config = gram.get_config('tuxpaint')
  config.batch_size = 16
  run = build.build(config)
  assert run.abstract_batch['audio'].shape == (16, 1, 64, 64)
  given = config, run.abstract_state.parameters, run.objective, run.sizes
  parts = flops.analytic(*given)
  # The tower of the image, on twice the side, less the pixels of both.
  assert 3.9 < parts['audio'] / parts['image'] < 4.1
  config.data.voices = 2
  assert flops.analytic(*given)['audio'] == 2 * parts['audio']
  config.data.voices = 1
  config.objective.gram.modalities = ('text', 'image', 'audio.1')
  with pytest.raises(
    ValueError, match=r'reads 2 sounds of an example, and config\.data\.voices = 1'
  ):
    build.build(config)
  config.objective.gram.modalities = ('text', 'image', 'audio')
  config.data.audio = ()
  with pytest.raises(ValueError, match=r"config\.data\.audio = \(\), and .* reads 'audio'"):
    build.build(config)
