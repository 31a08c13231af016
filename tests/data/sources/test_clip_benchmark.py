"""WebDatasets of CLIP_benchmark have labels, captions by line, classes and templates."""

import fsspec
import pytest

from contrastive_jax import data
from contrastive_jax.data.convert import convert
from contrastive_jax.evaluation.zero_shot import read_classes, read_templates
from tests.data.sources.writers import write_benchmark

CLASSES = ['tabby_cat', 'dog', 'crane', 'crane']  # ImageNet has two cranes


def everything(name, split='train'):
  source = data.open_source(name, split)
  return [source[i] for i in range(len(source))]


@pytest.fixture
def classified(examples, tmp_path):
  samples = [{'webp': e['image'], 'cls': f'{i % 4}'.encode()} for i, e in enumerate(examples)]
  write_benchmark(tmp_path, 'test', samples)
  (tmp_path / 'classnames.txt').write_text('\n'.join(CLASSES) + '\n')
  templates = 'a photo of a {c}.\na drawing of {c}.\n'
  (tmp_path / 'zeroshot_classification_templates.txt').write_text(templates)
  return f'clip_benchmark:{tmp_path}'


def test_labels_are_numbers_and_names(classified, examples):
  expected = [
    {'id': i, 'image': e['image'], 'cls': i % 4, 'label': CLASSES[i % 4]}
    for i, e in enumerate(examples)
  ]
  assert everything(classified, 'test') == expected
  assert everything(f'{classified}:test') == expected
  assert data.open_source(f'{classified}:test', 'train[cls>=2]').values('label') == ['crane'] * 12
  assert data.open_source(classified, 'test').fields(5) == {'id': 5, 'cls': 1, 'label': 'dog'}


def test_the_files_of_classes_and_templates_are_those_of_the_evaluation(classified, tmp_path):
  source = data.open_source(classified, 'test')
  field, names = read_classes(f'cls={tmp_path}/classnames.txt', source.values)
  assert (field, names) == ('cls', dict(zip('0123', CLASSES, strict=True)))
  assert {str(value) for value in source.values('cls')} == {*names}
  found = read_templates([f'{tmp_path}/zeroshot_classification_templates.txt'])
  assert found == ['a photo of a {}.', 'a drawing of {}.']


def test_each_line_is_a_caption(examples, tmp_path):
  texts = [f'{e["caption"]}\n\n a second, {i} \n' for i, e in enumerate(examples)]
  samples = [
    {'png': e['image'], 'txt': text.encode()} for e, text in zip(examples, texts, strict=True)
  ]
  write_benchmark(tmp_path, 'test', samples)
  (tmp_path / 'dataset_type.txt').write_text('retrieval\n')
  assert everything(f'clip_benchmark:{tmp_path}:test') == [
    {'id': i, 'image': e['image'], 'caption': [e['caption'], f'a second, {i}']}
    for i, e in enumerate(examples)
  ]


@pytest.mark.parametrize(
  ('sample', 'message'),
  [
    ({'cls': b'cat'}, 'txt or cls cannot be read: invalid literal'),
    ({'cls': b'4'}, r'its cls is 4, and classnames\.txt has 4 names'),
    ({'cls': b'-1'}, 'its cls is -1'),
    ({}, r"has only \['image'\]; an example is an image .* and a cls, or a txt"),
    ({'cls': b'0', 'txt': b'caf\xe9'}, 'txt or cls cannot be read'),
  ],
)
def test_a_wrong_label_is_one_bad_example(sample, message, examples, tmp_path):
  samples = [{'webp': e['image'], 'cls': b'1'} for e in examples[:4]]
  samples[2] = {'webp': examples[2]['image'], **sample}
  write_benchmark(tmp_path, 'test', samples)
  (tmp_path / 'classnames.txt').write_text('\n'.join(CLASSES))
  found = everything(f'clip_benchmark:{tmp_path}', 'test')
  assert ['error' in example for example in found] == [False, False, True, False]
  with pytest.raises(AssertionError, match=message):
    raise AssertionError(found[2]['error'])


def test_what_cannot_be_opened_is_named(classified, tmp_path):
  with pytest.raises(ValueError, match=r"no train/nshards\.txt.* use a split of \['test'\]"):
    data.open_source(classified, 'train')
  (tmp_path / 'test/1.tar').unlink()
  with pytest.raises(ValueError, match=r'1 of 3 files are missing.*test/1\.tar'):
    data.open_source(classified, 'test')
  (tmp_path / 'dataset_type.txt').write_text('multilabel')
  with pytest.raises(ValueError, match="says 'multilabel'"):
    data.open_source(classified, 'test')
  (tmp_path / 'dataset_type.txt').unlink()
  for content in ('many', '0', '-1'):
    (tmp_path / 'test/nshards.txt').write_text(content)
    with pytest.raises(ValueError, match=f"holds '{content}', no number of shards"):
      data.open_source(classified, 'test')


def test_webdataset_reads_the_same_shards_as_before(classified, examples, tmp_path):
  """Its index and that of the labels take turns at one path."""
  everything(classified, 'test')
  plain = everything(f'webdataset:{tmp_path}/test/*.tar')
  assert plain == [{'id': i, 'image': e['image']} for i, e in enumerate(examples)]
  assert everything(classified, 'test')[3]['cls'] == 3


def test_a_bucket_is_read_as_a_disk_is(classified, tmp_path):
  fsspec.filesystem('memory').put(f'{tmp_path}/', '/benchmark', recursive=True)
  assert everything('clip_benchmark:memory://benchmark', 'test') == everything(classified, 'test')


def test_it_converts(classified, tmp_path):
  report = convert(classified, f'jsonl:{tmp_path}/converted', split='test', shard_size=9)
  assert everything(report['name'], 'test') == everything(classified, 'test')
