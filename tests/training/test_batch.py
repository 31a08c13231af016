"""The batch that a step compiles for matches the batches of the pipeline."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import clip
from configs.methods import gram
from contrastive_jax import data
from contrastive_jax.methods import inputs
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.training import build, loop, workdir
from contrastive_jax.training.batch import abstract_batch
from contrastive_jax.training.forward import _encode_texts


@pytest.mark.parametrize(
  'changes',
  [
    {},
    {'augment_on': 'host'},
    {'texts': 3, 'data.captions': 'tags'},
    {'data.labels': 'group', 'objective': {'supervised': 1.0}},
    {'texts': 2, 'data.captions': 'caption+head(caption)', 'data.negatives': 3},
  ],
)
def test_abstract_batches_match_real_ones(changes):
  config = clip.get_config('smoke')
  config.data.split = 'heldout_composition'
  for field, value in changes.items():
    config.update_from_flattened_dict({field: value})
  run = build.build(config)
  source = data.open_source(config.data.name, config.data.split)
  batches, _ = loop._training_batches(run, source)
  batch = run.augment(1, next(batches))
  expected = abstract_batch(config, run.definition)
  assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {
    k: (v.shape, v.dtype) for k, v in expected.items()
  }


def test_labels_and_several_texts_train():
  config = clip.get_config('smoke')
  config.objective = {'info_nce': 1.0, 'supervised': 1.0}
  config.texts, config.data.captions, config.data.labels = 2, 'tags', 'group'
  run = build.build(config)
  batches, _ = loop._training_batches(run, data.open_source('emoji', 'heldout_composition'))
  batch = run.augment(1, next(batches))
  assert batch['tokens'].shape == (16, 2, 16) and batch['labels'].shape == (16,)
  _, metrics = jax.eval_shape(run.train_step, run.abstract_state, batch)
  assert {'loss', 'info_nce', 'supervised'} <= metrics.keys()


def test_texts_of_fields_of_their_own_outlive_a_restart():
  """In a saved config their tuple is a list."""
  config = ConfigDict(json.loads(json.dumps(gram.get_config('smoke').to_dict())))
  run = build.build(workdir.upgrade(config))
  source = data.open_source('emoji', 'heldout_composition')
  batch = next(loop._training_batches(run, source)[0])
  for position, tokens in zip(batch['position'], batch['tokens'], strict=True):
    name, chinese, tags = map(run.tokenizer.decode, tokens)
    example = source[position]
    assert [name, chinese] == [example['caption'].lower(), example['names']['zh'].lower()]
    assert {*tags.split(', ')} <= {tag.lower() for tag in example['tags']}


class Repeating:
  """A text tower whose embedding is the tokens, and whose features are twice these."""

  def text_embedding(self, tokens, *, keys):
    assert keys is None or len({*map(tuple, jax.random.key_data(keys).tolist())}) == len(tokens)
    return jnp.asarray(tokens), 2 * tokens


@pytest.mark.parametrize('keys', [None, jax.random.split(jax.random.key(0), 2)])
def test_negatives_are_encoded_beside_several_texts(keys):
  tokens, wrong = np.arange(12.0).reshape(2, 2, 3), -np.arange(18.0).reshape(2, 3, 3)
  outputs = Outputs(text=tokens[:, 0], text_features=2 * tokens[:, 0])
  part = {'texts': tokens, 'negative_tokens': wrong}
  found = _encode_texts(Repeating(), outputs, part, keys)
  np.testing.assert_array_equal(found.texts, tokens)
  np.testing.assert_array_equal(found.texts_features, 2 * tokens)
  np.testing.assert_array_equal(found.negatives, wrong)
  alone = _encode_texts(Repeating(), outputs, {'negative_tokens': wrong}, keys)
  np.testing.assert_array_equal(alone.negatives, wrong)
  assert alone.texts is None and _encode_texts(Repeating(), outputs, {}, keys) is outputs


def test_a_negative_that_is_the_caption_is_not_valid():
  batch = {'tokens': np.array([[1, 2], [3, 4]]), 'negative_tokens': np.array([[[1, 3]], [[3, 4]]])}
  valid = inputs.gather(['negative_valid'], Outputs(), batch)['negative_valid']
  assert valid.tolist() == [[True], [False]]


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('data.captions', '', r"config\.data\.captions = '', .*'clip' reads 'tokens'"),
    ('data.labels', '', r'objective\.supervised needs .* set config\.data\.labels'),
    ('objective', {'absolute_error': 1.0}, r'absolute_error needs .* set config\.data\.number'),
  ],
)
def test_missing_fields_of_the_data_are_errors(field, value, message):
  config = clip.get_config('smoke')
  config.objective = {'supervised': 1.0}
  config.data.labels = 'group'
  if field == 'objective':
    config.objective = value
  else:
    config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    build.build(config)


def test_labels_are_those_of_the_field():
  config = clip.get_config('smoke')
  config.data.labels, config.objective = 'group', {'supervised': 1.0}
  source = data.open_source('emoji', 'heldout_composition')
  batch = next(loop._training_batches(build.build(config), source)[0])
  groups = np.array([source[position]['group'] for position in batch['position']])
  np.testing.assert_array_equal(
    batch['labels'][:, None] == batch['labels'], groups[:, None] == groups
  )


def test_the_number_is_that_of_the_field():
  config = clip.get_config('smoke')
  config.data.name, config.data.number = 'measured:emoji', 'ink'
  run, source = build.build(config), data.open_source('measured:emoji', 'heldout_composition[:32]')
  batch = next(loop._training_batches(run, source)[0])
  ink = [source[position]['ink'] for position in batch['position']]
  np.testing.assert_allclose(batch['number'], ink, rtol=1e-6)
  assert batch['number'].dtype == run.abstract_batch['number'].dtype == np.float32
