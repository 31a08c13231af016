"""Tasks on any source: what is evaluated by which fields, and what is an error."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from contrastive_jax import data
from contrastive_jax.data.images import resize
from contrastive_jax.evaluation.benchmark import (
  open_benchmark,
  open_named,
  own_files,
  parse_sources,
)


def write_source(folder, rows, name='rows', size=(40, 30)):
  """A jsonl source of random images with the fields of `rows`."""
  folder.mkdir(exist_ok=True)
  random = np.random.default_rng(0)
  lines = []
  for number, row in enumerate(rows):
    pixels = random.integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(folder / f'{number}.png')
    lines.append(json.dumps({'image': f'{number}.png', **row}))
  (folder / f'{name}.jsonl').write_text('\n'.join(lines) + '\n')
  return f'jsonl:{folder}/{name}.jsonl'


def opened(folder, rows, **options):
  source = data.open_source(write_source(folder, rows), 'train')
  return open_benchmark('rows', source, image_size=32, resize=resize, **options)


@pytest.mark.parametrize(
  ('line', 'named'),
  [
    ('emoji', {'emoji': 'emoji'}),
    (
      'a=jsonl:/x/{0,1}.jsonl, emoji:train[group=a,vendor!=b]',
      {
        'a': 'jsonl:/x/{0,1}.jsonl',
        'emoji:train[group=a,vendor!=b]': 'emoji:train[group=a,vendor!=b]',
      },
    ),
    ('a-b.c=tfds:cifar10:test', {'a-b.c': 'tfds:cifar10:test'}),
    ('jsonl:/x/shape=1/a.jsonl', {'jsonl:/x/shape=1/a.jsonl': 'jsonl:/x/shape=1/a.jsonl'}),
  ],
)
def test_sources_have_names_and_commas_of_their_own(line, named):
  assert parse_sources(line) == named


@pytest.mark.parametrize('line', ['', 'emoji,', 'a=emoji,a=jsonl:/x.jsonl', 'emoji,emoji'])
def test_sources_without_a_name_of_their_own_are_an_error(line):
  with pytest.raises(ValueError, match=re.escape(f'--data={line} has')):
    parse_sources(line)


@pytest.mark.parametrize(
  ('source', 'expected'),
  [
    ('jsonl:/x/a.jsonl', ('jsonl:/x/a.jsonl', 'train')),
    ('karpathy:/x/dataset_coco.json:test', ('karpathy:/x/dataset_coco.json', 'test')),
    ('jsonl:gs://b/{split}.jsonl:val[:5%]', ('jsonl:gs://b/{split}.jsonl', 'val[:5%]')),
    ('emoji:train[a=b]', ('emoji', 'train[a=b]')),
    ('webdataset:gs://bucket/part', ('webdataset:gs://bucket/part', 'train')),
    ('tfds:cifar10', ('tfds:cifar10', 'train')),  # whose own split is after a second colon
    ('tfds:cifar10:test', ('tfds:cifar10', 'test')),
  ],
)
def test_a_source_may_name_its_split(source, expected):
  assert open_named(source, lambda *arguments: arguments) == expected


def test_a_source_that_cannot_be_opened_is_named(tmp_path):
  with pytest.raises(ValueError, match=r"--data names 'jsonl:.*/none\.jsonl', which cannot be"):
    open_named(f'jsonl:{tmp_path}/none.jsonl', data.open_source)


def test_tasks_follow_from_the_fields(tmp_path):
  both = opened(tmp_path, [{'caption': 'a b', 'label': 'b_c'}, {'caption': 'd', 'label': 'e'}])
  assert both.texts == [['a b'], ['d']]
  assert both.labels == {'label': ['b_c', 'e']}
  assert both.classes == {'label': {'b_c': 'b c', 'e': 'e'}}
  assert len(both.templates) == 80

  several = opened(tmp_path, [{'caption': 'no', 'captions': ['a', 'b']}, {'captions': ['c']}])
  assert several.texts == [['a', 'b'], ['c']] and not several.classes and not several.templates

  named = opened(
    tmp_path,
    [{'label': 'x', 'kind': 1, 'tags': ['a', 'b']}, {'label': 'y', 'kind': 0, 'tags': ['c']}],
    tasks=[f'zero_shot:kind={write_names(tmp_path)}', 'zero_shot', 'retrieval:join(tags)'],
    templates=['a {}'],
  )
  assert named.texts == [['a, b'], ['c']] and named.templates == ['a {}']
  assert named.labels == {'kind': ['1', '0'], 'label': ['x', 'y']}
  assert named.classes['kind'] == {'0': 'zero', '1': 'one', '2': 'two'}


def write_names(folder):
  (folder / 'names.txt').write_text('zero\none\ntwo\n')
  return folder / 'names.txt'


def test_a_set_of_clip_benchmark_has_its_own_names_and_prompts(tmp_path):
  assert own_files(f'clip_benchmark:{tmp_path}:test') == ('', [])  # as of a set for retrieval
  (tmp_path / 'classnames.txt').write_text('t-shirt\nbag\nhat\n')
  prompts = tmp_path / 'zeroshot_classification_templates.txt'
  prompts.write_text('a {c}\nthe {c}\n')
  classes, templates = own_files(f'clip_benchmark:{tmp_path}:test[:5%]')
  assert own_files(f'clip_benchmark:{tmp_path}') == (classes, templates)
  assert own_files(f'jsonl:{tmp_path}/a.jsonl:test') == ('', [])
  rows = [{'cls': 1, 'label': 'bag'}, {'cls': 0, 'label': 't-shirt'}]
  found = opened(tmp_path / 'data', rows, classes=classes, templates=templates)
  assert found.classes == {'cls': {'0': 't-shirt', '1': 'bag', '2': 'hat'}}
  assert found.labels == {'cls': ['1', '0']} and found.templates == ['a {}', 'the {}']
  found = opened(tmp_path / 'data', rows, classes=classes, tasks=['zero_shot:label'])
  assert found.classes == {'label': {'bag': 'bag', 't-shirt': 't shirt'}}


def test_ids_of_wordnet_have_the_names_of_imagenet(tmp_path):
  found = opened(tmp_path, [{'label': 'n01440764'}, {'label': 'n01443537'}])
  assert len(found.classes['label']) == 1000 and found.classes['label']['n01440764'] == 'tench'


@pytest.mark.parametrize(
  ('rows', 'options', 'message'),
  [
    ([{'title_': 'a'}], {}, r"'rows' has the fields \['title_'\], without captions, caption or"),
    (
      [{'caption': 'a'}],
      {'tasks': ['zero_shot']},
      r'has no label for --tasks=zero_shot; .*caption',
    ),
    ([{'label': 'a'}], {'tasks': ['retrieval']}, r'has no captions or caption for --tasks=retr'),
    ([{'label': 'a'}], {'tasks': ['retrieval:alt']}, r"no alt for --tasks=retrieval:alt.*'label'"),
    ([{'label': 'a'}], {'tasks': ['linear']}, r"--tasks names 'linear'; use some of"),
    ([{'caption': 'a'}], {'tasks': ['retrieval'] * 2}, 'has two fields of captions'),
    ([{'label': 3}, {'label': 0}], {}, r"'label' holds numbers, such as 3; .*zero_shot:label=FILE"),
    ([{'caption': {'de': 'ein'}}], {}, r"'caption' holds texts by \['de'\]"),
    ([{'caption': ''}, {'caption': None}], {}, r"\['caption'\] are empty in all examples"),
    ([{'caption': 'a'}, {'caption': ''}], {}, r"'rows' cannot be evaluated by 'caption', which 1"),
    ([{'label': 'a'}], {'templates': ['a photo']}, r"--templates names 'a photo', which cannot"),
    (
      [{'label': 'a'}],
      {'tasks': ['zero_shot:label=no.txt']},
      r"--tasks names 'no\.txt', which cannot be read",
    ),
    (
      [{'label': 'n01440764'}, {'label': 'n0'}],
      {'tasks': ['zero_shot:label=imagenet']},
      "1 of 2.*'n0'",
    ),
  ],
)
def test_mistakes_are_named(rows, options, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    opened(tmp_path, rows, **options)


def test_a_source_without_images_lists_its_fields(tmp_path):
  (tmp_path / 'rows.jsonl').write_text('{"caption": "a"}\n')
  source = data.open_source(f'jsonl:{tmp_path}/rows.jsonl', 'train')
  with pytest.raises(ValueError, match=r"'image' is missing.*the fields are \['caption', 'id'\]"):
    open_benchmark('rows', source, image_size=32, resize=resize)
