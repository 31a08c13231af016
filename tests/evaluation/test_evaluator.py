"""Laws of the evaluation: its captions, its splits, and what it refuses."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import clip
from contrastive_jax import data
from contrastive_jax.data.images import normalize
from contrastive_jax.evaluation.captioning import score_captions
from contrastive_jax.evaluation.evaluator import Evaluator
from contrastive_jax.evaluation.open import _open_split, open_evaluator
from contrastive_jax.evaluation.zero_shot import read_classes
from contrastive_jax.models.generation import generate
from contrastive_jax.sharding.mesh import make_mesh
from tests.models.towers import drawn, tiny, tiny_coca

SPLIT = 'heldout_composition[vendor=twemoji,skin_tone=dark]'
WAYS = 'image_to_text', 'text_to_image'
IMAGE = {'size': 32, 'patch': 16, 'layers': 1}
TEXT = {'vocabulary': 4096, 'length': 8, 'layers': 1}


def make_evaluator(definition, **captions):
  return Evaluator(
    definition,
    data.open_tokenizer('emoji', TEXT['length']),
    {SPLIT: data.open_source('emoji', SPLIT)},
    make_mesh('data:8'),
    image_size=IMAGE['size'],
    batch_size=64,
    classes={},
    templates=(),
    captions=captions,
    candidates=data.open_source('emoji', SPLIT.replace('twemoji', 'noto')),
  )


def test_captions_are_generated_scored_and_compared_with_retrieved_ones():
  definition = tiny_coca(image=IMAGE, text=TEXT, decoder={'layers': 1})
  parameters = drawn(definition, deviation=0.6)
  evaluator = make_evaluator(definition, beams=2, max_length=6)
  metrics, [split] = evaluator.finish(parameters)

  tokenizer = data.open_tokenizer('emoji', TEXT['length'])
  rules = {'beams': 2, 'max_length': 6, 'start_id': tokenizer.start_id, 'end_id': tokenizer.end_id}
  model = definition.bind(parameters)
  tokens = generate(model, normalize(jnp.array(split.images)), **rules).tokens
  assert split.generated == [tokenizer.decode(row) for row in np.asarray(tokens)]
  assert len(set(split.generated)) > 1
  # Of its own split every caption is offered, by another vendor's pictures.
  candidates = sorted(set(split.captions))
  rows = [split.captions.index(caption) for caption in candidates]
  nearest = np.argmax(split.image_embeddings @ split.text_embeddings[rows].T, axis=1)
  expected = {
    'caption': split.generated,
    'retrieved_caption': [candidates[row] for row in nearest],
  }
  references = [[caption] for caption in split.captions]
  for kind, captions in expected.items():
    for measure, value in score_captions(captions, references).items():
      assert metrics[f'{SPLIT}/{kind}_{measure}'] == pytest.approx(value), (kind, measure)
  assert metrics[f'{SPLIT}/retrieved_caption_bleu_4'] > 0
  assert not any('caption' in name for name in evaluator(parameters))


def test_eight_devices_evaluate_as_one_another_data_set_and_several_captions_included(tmp_path):
  lines = []
  for row, color in enumerate(('red', 'green', 'blue')):
    Image.new('RGB', (32, 32), color).save(tmp_path / f'{row}.png')
    lines.append({'image': f'{row}.png', 'caption': [f'a {color} square', color]})
  (tmp_path / 'squares.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  partners = data.open_source('emoji', 'train[vendor=twemoji,skin_tone=light]')
  labeled = [{'image': f'{i}.png', 'subgroup': partners[i]['subgroup']} for i in range(3)]
  (tmp_path / 'labeled.jsonl').write_text('\n'.join(map(json.dumps, labeled)))
  splits = SPLIT, *(f'{name}=jsonl:{tmp_path}/{name}.jsonl' for name in ('squares', 'labeled'))
  definition = tiny(image=IMAGE, text=TEXT)
  parameters = drawn(definition, deviation=0.6)

  def finish(mesh):
    evaluator = Evaluator(
      definition,
      data.open_tokenizer('emoji', TEXT['length']),
      dict(_open_split(data.open_source, 'emoji', None, split) for split in splits),
      mesh,
      image_size=IMAGE['size'],
      batch_size=64,
      classes=dict([read_classes('subgroup', partners.values)]),
      templates=['{}', 'an emoji of {}'],
      texts=('caption', 'names'),
      probes=('neighbours', 'prototypes'),
      probe_source=partners,
      pairs=('vendor', 'concept'),
      arithmetic=('vendor',),
      partners=partners,
    )
    training = evaluator(parameters)
    assert sorted(evaluator.names) == sorted(training)
    return training, *evaluator.finish(parameters)

  training, metrics, retrieved = finish(make_mesh('data:4,fsdp:2'))
  alone = finish(make_mesh('data:1', jax.devices()[:1]))
  assert metrics == pytest.approx(alone[1], rel=1e-5, abs=1e-6)
  assert training.items() <= metrics.items()
  measures = (
    'image_to_text_recall@1',
    'zero_shot_subgroup_accuracy@5',
    'zero_shot_subgroup_mean_per_class_recall',
    'subgroup_neighbours_accuracy',
    'subgroup_16_shot_accuracy',
    'names_ja_text_to_image_recall@10',
    'pairs_group_accuracy',
    'arithmetic_swap_recall@1',
  )
  assert {f'{SPLIT}/{measure}' for measure in measures} <= metrics.keys()
  # The other data set has texts, and no classes, languages or partners.
  squares = {name.split('/')[-1] for name in metrics if name.startswith('squares/')}
  assert {f'{way}_recall@{k}' for way in WAYS for k in (1, 5, 10)} <= squares
  assert not [
    name
    for name in squares
    if 'subgroup' in name or '_ja_' in name or 'pairs' in name or 'arith' in name
  ]
  # Every result that is a mean over queries has the queries, of several captions too.
  means = {
    f'{split.name}/{name}': outcome.hits.mean()
    for split in retrieved
    for name, outcome in split.outcomes.items()
  }
  assert means.items() <= metrics.items()
  assert {f'{split.name}/{way}_recall@5' for split in retrieved for way in WAYS} <= means.keys()
  assert f'{SPLIT}/zero_shot_subgroup_accuracy@5' in means
  assert len(retrieved[1].outcomes['text_to_image_recall@1'].hits) == 6
  # And what has no texts is classified.
  classified = {name.split('/')[-1] for name in metrics if name.startswith('labeled/')}
  assert {'zero_shot_subgroup_accuracy@1', 'subgroup_neighbours_accuracy'} <= classified
  assert not [name for name in classified if '_to_' in name]
  assert retrieved[1].captions == ['a red square', 'a green square', 'a blue square']


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'classes': {'label': {'0': 'tench'}}}, "zero_shot names 'label', which no split has"),
    ({'texts': ('caption', 'name')}, "texts names 'name', which no split has"),
    ({'arithmetic': ('style',)}, "arithmetic names 'style', which no split has"),
    (
      {'classes': {'subgroup': {'n01440764': 'tench'}}},
      r"zero_shot: split '.*' has 'subgroup' of 'person-.*' and so on, none of the known 1, 'n0144",
    ),
    (
      {
        'classes': {'subgroup': {'person-role': 'role'}},
        'probes': ('neighbours',),
        'probe_source': data.open_source('emoji', 'train[group=flags,vendor=noto]'),
      },
      'probe_split: split .* none of the known',
    ),
  ],
  ids=['class', 'text', 'arithmetic', 'labels', 'probe'],
)
def test_what_no_split_has_is_refused_before_the_training(fields, message):
  with pytest.raises(ValueError, match=rf'config\.evaluation\.{message}'):
    Evaluator(
      tiny(image=IMAGE, text=TEXT),
      None,
      {SPLIT: data.open_source('emoji', SPLIT)},
      make_mesh('data:8'),
      image_size=IMAGE['size'],
      batch_size=64,
      **{'classes': {}, 'templates': ['{}']} | fields,
    )


def open_with(**fields):
  config = clip.get_config('smoke')
  config.evaluation.update({'splits': (SPLIT,)} | fields)
  tokenizer, source = (
    data.open_tokenizer('emoji', 16),
    data.open_source('emoji', 'train[group=flags]'),
  )
  return open_evaluator(
    config, tiny(image=IMAGE, text=TEXT), tokenizer, make_mesh('data:8'), source
  )


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'splits': ('heldout',)}, r"splits names 'heldout': .*splits = \(\) does without"),
    ({'splits': ('other=jsonl:/no.jsonl',)}, "splits names 'other=jsonl:/no.jsonl': "),
    ({'splits': ('other=jsonl:/{split}.jsonl',)}, r'splits .*\{split\} stands for train'),
    ({'probes': ('linear',), 'probe_split': 'no'}, r"probe_split names 'no': .*probes = \(\) does"),
    ({'pairs': ('concept',), 'partners': 'no'}, r"partners names 'no': .*pairs = \(\) does"),
    ({'zero_shot': ('kind',)}, "zero_shot names 'kind', .* has no field 'kind'"),
    ({'splits': (SPLIT, SPLIT)}, r'splits = .* has two of one name'),
    ({'texts': ()}, r'texts = \(\) names no field'),
    ({'texts': ('names',)}, "texts: 'names' of split .* holds texts by language"),
    ({'templates': ()}, r'templates = \(\) has no prompt'),
  ],
  ids=[
    *(
      'split',
      'source',
      'pattern',
      'probe_split',
      'partners',
      'classes',
      'twice',
      'texts',
      'languages',
    ),
    'templates',
  ],
)
def test_what_cannot_be_opened_is_named_by_its_field(fields, message):
  with pytest.raises(ValueError, match=rf'config\.evaluation\.{message}'):
    open_with(**{'zero_shot': ('skin_tone',)} | fields)


def open_without_training_data(**fields):
  config = clip.get_config('smoke')
  config.data.split = 'gone'
  config.evaluation.update({'splits': (SPLIT,), 'zero_shot': ()} | fields)
  tokenizer = data.open_tokenizer('emoji', TEXT['length'])
  definition = tiny_coca(image=IMAGE, text=TEXT)
  return open_evaluator(config, definition, tokenizer, make_mesh('data:8'))


def test_training_data_are_opened_where_an_evaluation_reads_them():
  assert f'{SPLIT}/alignment' in open_without_training_data().names
  with pytest.raises(ValueError, match=r"evaluation\.zero_shot names 'group'.*'FIELD=NAMES', or"):
    open_without_training_data(zero_shot=('group',))
  with pytest.raises(ValueError, match=r'evaluation\.captions = \{\} evaluates without'):
    open_without_training_data(captions=ConfigDict({'beams': 1}))


def test_the_best_metric_is_named_before_the_training():
  evaluator = open_without_training_data()
  for name in ('', f'{SPLIT}/image_to_text_recall@1'):
    evaluator.check_best(name)
  with pytest.raises(
    ValueError, match=r"config\.keep_best = '.*recal@1' is no.*use one of .*_recall@1'"
  ):
    evaluator.check_best(f'{SPLIT}/image_to_text_recal@1')
  # What is measured at the end alone ranks no checkpoint.
  with pytest.raises(ValueError, match='during training'):
    evaluator.check_best(f'{SPLIT}/caption_cider')
  with pytest.raises(ValueError, match=r"gives no metric during training; use ''"):
    open_without_training_data(splits=()).check_best('f/image_to_text_recall@1')


def test_without_splits_nothing_else_is_needed():
  open_with(splits=(), zero_shot=('kind',), probes=('linear',), probe_split='no', partners='no')


@pytest.mark.parametrize(
  ('definition', 'captions', 'message'),
  [
    (tiny(image=IMAGE, text=TEXT), {'beams': 1}, 'Clip, which has no captioner'),
    (tiny_coca(image=IMAGE, text=TEXT), {'beam': 4}, "unexpected keyword argument 'beam'"),
    (tiny_coca(image=IMAGE, text=TEXT), {'max_length': 9}, 'max_length = 9'),
  ],
  ids=['clip', 'unknown', 'long'],
)
def test_captions_that_cannot_be_are_refused_before_the_training(definition, captions, message):
  with pytest.raises(ValueError, match=rf'config\.evaluation\.captions = .*{message}'):
    make_evaluator(definition, **captions)
