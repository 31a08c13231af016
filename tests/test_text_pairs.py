"""A model of pairs of texts, from training to use, without an image anywhere."""

import json

import chex
import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import contrastive_jax
import launch
from configs import text
from contrastive_jax import data
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.evaluation.open import open_evaluator
from contrastive_jax.evaluation.retrieval import recall
from contrastive_jax.models.definition import define
from contrastive_jax.planning import traced_flops
from contrastive_jax.sharding.mesh import make_mesh
from contrastive_jax.training import build, flops, loop
from contrastive_jax.training.batch import abstract_batch
from tests.models.towers import drawn

SPLIT = 'heldout_style[group=food-drink]'
TEXT = {'vocabulary': 4096, 'length': 8, 'width': 16, 'layers': 1, 'heads': 2}


@pytest.mark.slow
def test_a_run_trains_resumes_evaluates_exports_and_loads(tmp_path, monkeypatch):
  """Through launch.py, in this process; killed after its first checkpoint."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
  config = text.get_config('smoke')
  straight = build.build(config)
  source = data.open_source(config.data.name, config.data.split)
  (tmp_path / 'straight').mkdir()
  expected = loop.train(straight, source, tmp_path / 'straight', lambda parameters: {})

  def killed(state, batch):
    if state.step == 1:
      raise KeyboardInterrupt
    return straight.train_step(state, batch)

  folder = tmp_path / 'run'
  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    interrupted = straight._replace(train_step=killed)
    patched.setattr(launch.build, 'build', lambda config, examples: interrupted)
    launch.run_mode(config, folder)
  assert [path.name for path in (folder / 'checkpoints').iterdir()] == ['1']
  launch.run_mode(config, folder)
  chex.assert_trees_all_equal(loop.restore(straight, folder), expected)

  results = json.loads((folder / 'results.json').read_text())
  for way in ('first_to_second', 'second_to_first'):
    assert 0 <= results[f'{config.evaluation.splits[0]}/{way}_recall@10'] <= 1
  assert '<img' not in (folder / 'report.html').read_text()

  with flagsaver.flagsaver(mode='export'):
    launch.run_mode(config, folder)
  card = (folder / 'export' / 'README.md').read_text()
  assert 'text tower' in card and 'mage' not in card and 'encode_second_text' in card
  model = contrastive_jax.load(folder / 'export')
  tokens = straight.tokenizer(['red heart', 'love, heart'])
  outputs = straight.definition.bind(expected.parameters)(tokens[:1], tokens[1:])
  np.testing.assert_allclose(model.encode_text('red heart'), outputs.text, atol=1e-6)
  second = model.encode_second_text(['love, heart'])
  np.testing.assert_allclose(second, outputs.second_text, atol=1e-6)
  with pytest.raises(ValueError, match=r"a text_pair, which reads \('tokens', 'second_tokens'\)"):
    model.encode_image(np.zeros([8, 8, 3]))


@pytest.mark.parametrize('shared', [True, False])
def test_the_program_asks_for_what_the_sizes_say(shared):
  config = text.get_config('smoke')
  config.model.shared = shared
  run = build.build(config)
  batch = abstract_batch(config, run.definition)
  assert {name: array.shape for name, array in batch.items()} == {
    'tokens': (16, 32),
    'second_tokens': (16, 32),
    'id': (16,),
    'same': (16,),
  }
  traced = traced_flops.traced(run.train_step, run.abstract_state, batch)
  parts = flops.analytic(config, run.abstract_state.parameters, run.objective, run.sizes)
  assert parts['image'] == 0 and traced.total == sum(parts.values())


def evaluator_of(definition, **changes):
  options = {'texts': ('join(tags)',), 'first': 'caption', 'classes': {}, 'templates': ()}
  return Evaluator(
    definition,
    data.open_tokenizer('emoji', TEXT['length']),
    {SPLIT: data.open_source('emoji', SPLIT)},
    make_mesh('data:8'),
    image_size=None,
    batch_size=64,
    **(options | changes),
  )


def test_both_sides_are_retrieved_each_by_its_own_tower():
  definition = define('text_pair', embed=12, text=TEXT, shared=False)
  parameters, tokenizer = drawn(definition), data.open_tokenizer('emoji', TEXT['length'])
  evaluator = evaluator_of(definition)
  metrics, [split] = evaluator.evaluate(parameters)
  assert set(metrics) == set(evaluator.names) and f'{SPLIT}/uniformity_second' in metrics
  source = data.open_source('emoji', SPLIT)
  names, tags = source.values('caption'), [', '.join(own) for own in source.values('tags')]
  assert split.images is None
  assert split.first_texts == names and split.captions == tags
  distinct = list(dict.fromkeys(tags))

  @jax.jit
  def encode(parameters, names, tags):
    model = definition.bind(parameters)
    return model.encode_text(names), model.encode_second_text(tags)

  first, second = map(np.asarray, encode(parameters, tokenizer(names), tokenizer(distinct)))
  rows = [distinct.index(own) for own in tags]
  np.testing.assert_allclose(split.text_embeddings, second[rows], atol=1e-5)
  expected = recall(first, second, tags, distinct, [5])[5]
  assert metrics[f'{SPLIT}/first_to_second_recall@5'] == pytest.approx(expected)
  expected = recall(second, first, distinct, tags, [5])[5]
  assert metrics[f'{SPLIT}/second_to_first_recall@5'] == pytest.approx(expected)
  with pytest.raises(ValueError, match=r"has no 'tags' of one text per example; .*'join\(FIELD\)'"):
    evaluator_of(definition, first='tags')


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('data.second_captions', '', r"second_captions = '', .*'text_pair' reads 'second_tokens'"),
    ('views', 2, r"config\.views = 2, .*'text_pair' reads no 'image'; use 1"),
    ('evaluation.second_texts', (), r'second_texts = \(\); name the fields of both texts'),
    ('evaluation.texts', (), r'evaluation\.texts = \(\) and second_texts'),
    ('evaluation.texts', ('no',), r"has no 'no' of one text per example"),
  ],
)
def test_what_is_missing_is_named(field, value, message):
  config = text.get_config('smoke')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=message):
    run = build.build(config)
    open_evaluator(config, run.definition, run.tokenizer, run.mesh)
