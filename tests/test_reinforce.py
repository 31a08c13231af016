"""Tables of teachers' embeddings: what they hold, how runs read them, and what is refused."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import contrastive_jax
from configs.methods import distill
from contrastive_jax import data, reinforce
from contrastive_jax.data import readers, reinforcement
from contrastive_jax.data.augmentation import augment, augment_on_host
from contrastive_jax.training import build, loop, teacher
from tests.training import test_teacher

folder = test_teacher.folder  # a teacher of another size, width and text length
VIEWS, EXAMPLES = 3, 10
SPLIT = f'heldout_composition[:{EXAMPLES}]'
FIELDS = ['caption', 'tags']
STRENGTHS = {'degrees': 20.0, 'hue': 0.1, 'erase': 0.5}
WIDTHS = {'one': 24, 'another': 16}


def config_of(**fields) -> ConfigDict:
  config = distill.get_config('smoke')
  config.data.split, config.data.captions, config.batch_size = SPLIT, 'caption+tags', 8
  config.augmentation, config.data.crop = ConfigDict(STRENGTHS), (0.5, 1.0)
  config.update_from_flattened_dict(fields)
  return config


@pytest.fixture(scope='module')
def encoded(folder, tmp_path_factory):
  """A table of two teachers: another architecture, and an untrained copy of the student."""
  path = tmp_path_factory.mktemp('encoded')
  teachers = [str(folder), 'untrained']
  reinforce.reinforce(config_of(), path, teachers=teachers, views=VIEWS, chunk=4)
  return path


@pytest.fixture(scope='module')
def table(tmp_path_factory):
  """A table of random embeddings of two teachers, of the same form."""
  path, source = tmp_path_factory.mktemp('table'), data.open_source('emoji', SPLIT)
  texts = [reinforcement.texts_of_example(source[n], FIELDS) for n in range(EXAMPLES)]
  write(path, [len(own) for own in texts])
  return path


def write(path, counts, until=EXAMPLES):
  told = [{'folder': name, 'width': width, 'scale': 9.0} for name, width in WIDTHS.items()]
  index = {'examples': EXAMPLES, 'views': VIEWS, 'teachers': told, 'captions': FIELDS}
  index |= {'drawing': teacher.drawing(config_of()), 'seed': 0}
  writer, random = reinforcement.Writer(path, index, counts), np.random.default_rng(0)
  for row in range(until):
    seeds = reinforcement.seeds_of(0, row, VIEWS)[None]
    images, texts = (random.normal(size=(*n, 40)) for n in ((1, VIEWS), (counts[row],)))
    if row >= writer.done:
      writer.write(seeds, images, texts)


def run_of(table):
  """A run with the table, its data and a batch."""
  config = config_of(teacher=str(table), texts=2)
  source = data.open_source('emoji', SPLIT)
  run = build.build(config, jax.devices()[:1], examples=source.rows)
  batches, bad = loop._training_batches(run, source)
  batch = run.augment(1, next(batches))
  assert not bad.skipped
  return run, source, batch


def test_a_batch_holds_the_embeddings_of_its_own_views_and_texts(table):
  run, source, batch = run_of(table)
  shapes = {name: (leaf.shape, leaf.dtype) for name, leaf in batch.items()}
  assert shapes == {name: (leaf.shape, leaf.dtype) for name, leaf in run.abstract_batch.items()}
  arrays = {path.stem: np.load(path) for path in table.glob('*.npy')}
  _, rows, views = np.nonzero(arrays['seeds'] == batch['seed'][:, None, None])
  np.testing.assert_array_equal(rows, batch['id'])
  np.testing.assert_array_equal(batch['teacher_image'], arrays['images'][rows, views])
  for row, own, tokens in zip(rows, batch['teacher_text'], batch['tokens'], strict=True):
    number = next(n for n in range(EXAMPLES) if source[n]['id'] == row)
    texts = reinforcement.texts_of_example(source[number], FIELDS)
    drawn = [texts.index(run.tokenizer.decode(text)) for text in tokens]
    np.testing.assert_array_equal(own, arrays['texts'][arrays['starts'][row] + drawn])


def test_a_view_is_rebuilt_from_its_seed_bit_by_bit():
  """Whatever else is in the batch, and also its crop."""
  source, seeds = data.open_source('emoji', SPLIT), reinforcement.seeds_of(0, 0, 4)
  reader = readers.Images(20, (0.5, 1.0), in_memory=False)

  def pixels(seed):
    drawn = reader.draw(source[0], reinforcement.crop_rng(int(seed)))
    return reader.pixels(0, drawn, data.BatchShape(1))[0]

  images = np.stack([pixels(seed) for seed in seeds])
  np.testing.assert_array_equal(images[2], pixels(seeds[2]))
  assert len(np.unique(images.reshape(4, -1), axis=0)) == 4
  change = augment_on_host(16, STRENGTHS)
  np.testing.assert_array_equal(change(seeds[::-1], images[::-1])[::-1], change(seeds, images))


@pytest.mark.slow
def test_a_table_is_linear_in_views_and_texts(encoded):
  arrays = {path.stem: np.load(path) for path in encoded.glob('*.npy')}
  assert arrays['seeds'].shape == (EXAMPLES, VIEWS)
  assert arrays['images'].shape == (EXAMPLES, VIEWS, 24 + 16)
  assert arrays['texts'].shape == (arrays['starts'][-1], 24 + 16)
  assert len(np.unique(arrays['seeds'])) == EXAMPLES * VIEWS
  for part in reinforcement.Table(encoded).part(arrays['images']):
    np.testing.assert_allclose(np.linalg.norm(part, axis=-1), 1, atol=2e-3)


@pytest.mark.slow
def test_the_embeddings_are_those_of_the_rebuilt_views(encoded, folder):
  run, _, batch = run_of(encoded)
  model = contrastive_jax.load(folder)
  of_texts = model.encode_text([run.tokenizer.decode(row) for row in batch['tokens'][:, 1]])
  np.testing.assert_allclose(batch['teacher_text'][:, 1, :24], of_texts, atol=2e-3)

  @jax.jit
  def encode(seeds, images):
    keys = jax.vmap(jax.random.key)(seeds)
    images = model.transform.normalize(augment(keys, images, test_teacher.SIZE, STRENGTHS))
    return model.model.definition.bind(model.model.parameters).encode_image(images)

  found = encode(batch['seed'], batch['image'])
  np.testing.assert_allclose(batch['teacher_image'][:, :24], found, atol=2e-3)


@pytest.mark.slow
def test_the_step_takes_the_softmax_of_each_teacher(table):
  run, _, batch = run_of(table)
  keys = jax.random.split(jax.random.key(0), len(batch['id']))
  taught = run.teacher.teach(run.config, run.objective.reads)(None, batch | {'key': keys})
  assert [image.shape for image in taught.image] == [(8, 24), (8, 16)]
  assert [text.shape for text in taught.texts] == [(8, 2, 24), (8, 2, 16)]
  assert len(taught.scale) == 2 and run.abstract_state.teacher is None
  _, metrics = run.train_step(run.create_state(0), batch)
  assert np.isfinite(metrics['loss']) and metrics['distill/divergence'] > 0


def test_an_interrupted_table_is_refused_and_resumed(tmp_path):
  counts = [1 + row % 2 for row in range(EXAMPLES)]
  write(tmp_path / 'through', counts)
  write(tmp_path / 'killed', counts, until=8)
  with pytest.raises(ValueError, match=r'holds 8 of 10 examples; .* which resumes'):
    reinforcement.Table(tmp_path / 'killed')
  write(tmp_path / 'killed', counts)
  for path in (tmp_path / 'through').iterdir():
    assert path.read_bytes() == (tmp_path / 'killed' / path.name).read_bytes()
  index = json.loads((tmp_path / 'killed' / 'table.json').read_text())
  del index['done']
  with pytest.raises(ValueError, match='holds the table of another command'):
    reinforcement.Writer(tmp_path / 'killed', index | {'views': 2}, counts)


def test_an_example_that_was_bad_or_has_changed_is_one_bad_example(table):
  own, example = reinforcement.Table(table), data.open_source('emoji', SPLIT)[0]
  tokens = readers.Texts('tokens', lambda texts: texts, {'name': 1.0})
  given = {'tokens': tokens, 'teacher': own}
  with pytest.raises(ValueError, match=r'has other texts than'):
    own.draw(example | {'name': 'another text'}, np.random.default_rng(0), given)
  own._seeds = np.full((EXAMPLES, VIEWS), -1)
  with pytest.raises(ValueError, match='has no view of it: it was bad'):
    own.draw(example, np.random.default_rng(0), given)


@pytest.mark.parametrize(
  ('fields', 'examples', 'message'),
  [
    ({}, 11, r'is a table of 10 examples, and the data has 11; write one of this data'),
    ({'augmentation.hue': 0.2}, 10, r'config\.augmentation = .* to which its embeddings belong'),
    ({'data.crop': ()}, 10, r'config\.data\.crop = \[\], and the table'),
    ({'data.size': 48}, 10, r'config\.data\.size = 48, and the table'),
    ({'data.captions': 'caption'}, 10, r"config\.data\.captions = 'caption', and the table"),
    ({'objective': {'clip_kd': 1.0}}, 10, r"objective\.clip_kd reads 'teacher\.image' of one"),
  ],
)
def test_a_table_of_other_data_or_views_is_refused(table, fields, examples, message):
  config = config_of(teacher=str(table))
  config.update_from_flattened_dict(fields)
  if 'objective' in fields:
    config.objective = ConfigDict(fields['objective'])
  with pytest.raises(ValueError, match=message):
    build.build(config, jax.devices()[:1], examples=examples)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'data.captions': 'join(tags)'}, r'draws texts that no table can hold'),
    ({'teacher': ''}, r'is no trained model; give --teachers=RUN'),
  ],
)
def test_what_no_table_can_hold_is_refused(fields, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    reinforce.reinforce(config_of(**fields), tmp_path, views=1)
