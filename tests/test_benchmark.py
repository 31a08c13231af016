"""A model of any format, evaluated on any source, against dense references in NumPy."""

import csv
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import balanced_accuracy_score

import contrastive_jax
from contrastive_jax import benchmark, data, interop
from contrastive_jax.models.definition import define
from contrastive_jax.runtime import waiting
from tests import two_processes
from tests.evaluation.test_benchmark import write_source
from tests.interop.models import model_of
from tests.interop.parity import FOLDER
from tests.models.towers import IMAGE
from tests.test_pretrained import make_run, spell

WORDS = ('cat', 'dog', 'ship', 'tree', 'lamp', 'road')
TEMPLATES = ['a {}', 'the {}!']


def rows(count=30):
  """Two or three captions per image, and a label."""
  return [
    {
      'captions': [f'{i} {WORDS[(i + n) % 6]} {n}' for n in range(2 + i % 2)],
      'label': WORDS[i * 5 % 7 % 6],
    }
    for i in range(count)
  ]


def images_of(source):
  """The images of a jsonl source, as PIL opens them."""
  path = pathlib.Path(source.removeprefix('jsonl:'))
  return [Image.open(path.parent / json.loads(line)['image']) for line in path.open()]


def recalls(image, text, owner, k):
  """CLIP_benchmark's: a hit is one of the right candidates among the k of highest score."""
  scores = text @ image.T
  right = owner[:, None] == np.arange(len(image))

  def recall(scores, right):
    first = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(right, first, axis=1).any(axis=1).mean()

  return {
    f'text_to_image_recall@{k}': recall(scores, right),
    f'image_to_text_recall@{k}': recall(scores.T, right.T),
  }


def run(model, sources, folder, **options):
  """Evaluates, and returns the records by file name and the rows of the CSV."""
  benchmark.run(str(model), sources, workdir=str(folder), **options)
  records = {path.name: json.loads(path.read_text()) for path in folder.glob('*.json')}
  return records, [*csv.DictReader((folder / 'benchmark.csv').open())]


def test_results_are_those_of_dense_references_and_of_clip_benchmarks_columns(
  tmp_path, monkeypatch, caplog
):
  monkeypatch.setattr(waiting, 'SECONDS', 0.05)
  examples = rows()
  source = write_source(tmp_path / 'data', examples)
  records, table = run(
    FOLDER / 'clip',
    f'small={source}',
    tmp_path / 'out',
    tokenizer=spell,
    templates=TEMPLATES,
    batch_size=16,
  )
  record = records['benchmark_small.json']
  assert 'still evaluating small: 30 images' in caplog.text
  model = contrastive_jax.load(FOLDER / 'clip', tokenizer=spell)
  image = model.encode_image(images_of(source))
  captions = [text for example in examples for text in example['captions']]
  owner = np.repeat(np.arange(len(examples)), [len(e['captions']) for e in examples])
  text = model.encode_text(captions)
  expected = {}
  for k in (1, 5, 10):
    expected |= recalls(image, text, owner, k)
  classes = sorted(WORDS)
  prompts = [[template.format(name) for template in TEMPLATES] for name in classes]
  vectors = np.stack([model.encode_text(own).mean(axis=0) for own in prompts])
  vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
  labels = np.array([classes.index(example['label']) for example in examples])
  order = np.argsort(-image @ vectors.T, axis=1)
  expected |= {
    'zero_shot_label_accuracy@1': np.mean(order[:, 0] == labels),
    'zero_shot_label_accuracy@5': np.mean((order[:, :5] == labels[:, None]).any(axis=1)),
    'zero_shot_label_mean_per_class_recall': balanced_accuracy_score(labels, order[:, 0]),
  }
  assert record['metrics'] == pytest.approx(expected)
  assert record['images'] == 30 and record['texts'] == len(captions)
  assert record['classes'] == {'label': 6} and record['templates'] == TEMPLATES

  theirs = {row['task']: row for row in table}
  assert table[0].keys() == {
    *('acc1', 'acc5', 'mean_per_class_recall', 'dataset', 'model', 'pretrained', 'task'),
    *(f'{side}_retrieval_recall@{k}' for side in ('image', 'text') for k in (1, 5, 10)),
    *('language', 'model_fullname'),
  }
  row = theirs['zeroshot_classification']
  assert float(row['acc1']) == record['metrics']['zero_shot_label_accuracy@1']
  assert float(row['acc5']) == record['metrics']['zero_shot_label_accuracy@5']
  assert row['dataset'] == 'small' and row['model_fullname'] == f'clip {FOLDER / "clip"}'
  assert row['image_retrieval_recall@5'] == ''
  row = theirs['zeroshot_retrieval']
  assert float(row['image_retrieval_recall@5']) == record['metrics']['text_to_image_recall@5']
  assert float(row['text_retrieval_recall@1']) == record['metrics']['image_to_text_recall@1']


@pytest.mark.slow
def test_images_are_encoded_at_their_own_aspect_where_asked(tmp_path):
  examples = rows()
  source = write_source(tmp_path / 'data', examples)
  options = {'tokenizer': spell, 'templates': TEMPLATES, 'tasks': ['retrieval']}
  found = {}
  for length in (0, 11):
    records, _ = run(
      FOLDER / 'clip', source, tmp_path / f'{length}', sequence_length=length, **options
    )
    (record,) = records.values()
    model = contrastive_jax.load(FOLDER / 'clip', tokenizer=spell, sequence_length=length)
    found[length] = model.encode_image(images_of(source))
    owner = np.repeat(np.arange(len(examples)), [len(e['captions']) for e in examples])
    text = model.encode_text([text for example in examples for text in example['captions']])
    expected = recalls(found[length], text, owner, 5)
    assert {name: record['metrics'][name] for name in expected} == pytest.approx(expected)
  assert np.abs(found[0] - found[11]).max() > 1e-3
  with pytest.raises(ValueError, match='sequence_length = -1; use 0 or more'):
    contrastive_jax.load(FOLDER / 'clip', sequence_length=-1)
  with pytest.raises(ValueError, match=r"config\.model\.image\.tower = 'resnet' takes no images"):
    contrastive_jax.load(FOLDER / 'resnet', sequence_length=4)


def test_equal_captions_are_candidates_of_their_own(tmp_path):
  source = write_source(tmp_path / 'data', [{'caption': 'cat'} for _ in range(10)])
  records, _ = run(FOLDER / 'clip', source, tmp_path / 'out', tokenizer=spell)
  ((_, record),) = records.items()
  # All candidates tie, so a hit is as likely as chance.
  assert record['metrics'] == pytest.approx(
    {f'{way}_recall@{k}': k / 10 for way in ('image_to_text', 'text_to_image') for k in (1, 5, 10)}
  )


def test_the_transform_is_the_models_own(tmp_path):
  shutil.copytree(FOLDER / 'siglip', tmp_path / 'model')
  path = tmp_path / 'model' / 'open_clip_config.json'
  own = {'mean': [0.5] * 3, 'std': [0.5] * 3, 'resize_mode': 'squash'}
  path.write_text(json.dumps(json.loads(path.read_text()) | {'preprocess_cfg': own}))
  examples = [{'caption': f'{WORDS[i % 6]} {i}'} for i in range(40)]
  source = write_source(tmp_path / 'data', examples, size=(64, 32))
  records, _ = run(tmp_path / 'model', source, tmp_path / 'out', tokenizer=spell)
  ((_, record),) = records.items()

  model = interop.read(FOLDER / 'siglip')
  tokens = spell([example['caption'] for example in examples])

  def expected(pixels, mean, std):
    outputs = model((np.stack(pixels) / 255 - mean) / std, tokens)
    image, text = np.asarray(outputs.image), np.asarray(outputs.text)
    found = [recalls(image, text, np.arange(40), k) for k in (1, 5, 10)]
    return {name: value for own in found for name, value in own.items()}

  squashed = [np.array(i.resize((32, 32), Image.Resampling.BICUBIC)) for i in images_of(source)]
  assert record['metrics'] == pytest.approx(expected(squashed, 0.5, 0.5))
  cropped = [data.preprocess(image, 32) * 0.27 + 0.45 for image in images_of(source)]
  assert record['metrics'] != pytest.approx(expected(np.array(cropped) * 255, 0.45, 0.27))


TWO = """
import sys
from contrastive_jax import benchmark
from contrastive_jax.runtime import processes
coordinator, number, model, out = sys.argv[1:]
with processes.distributed(coordinator, 2, int(number)):
  benchmark.run(
    model, 'noto=emoji:heldout_composition[vendor=noto]', tasks=['retrieval', 'zero_shot:group'],
    templates=['{}'], batch_size=64, workdir=out,
  )
"""


@pytest.mark.slow
def test_two_processes_evaluate_a_run_as_one(tmp_path):
  make_run(tmp_path / 'run')
  codes, printed = two_processes.run(TWO, str(tmp_path / 'run'), str(tmp_path / 'two'), devices=2)
  assert codes == [0, 0], printed
  assert [text.count('holds these results') for text in printed] == [1, 0]
  source = 'noto=emoji:heldout_composition[vendor=noto]'
  records, _ = run(
    tmp_path / 'run',
    source,
    tmp_path / 'one',
    tasks=['retrieval', 'zero_shot:group'],
    templates=['{}'],
  )
  found = json.loads((tmp_path / 'two' / 'benchmark_noto.json').read_text())
  assert found['metrics'] == pytest.approx(records['benchmark_noto.json']['metrics'])


def test_openais_file_is_evaluated_without_a_config(tmp_path):
  shape = {'width': 64, 'heads': 1, 'activation': 'quick_gelu'}  # as in all of OpenAI's models
  text = {'vocabulary': 256, 'length': 16}
  model = model_of({'image': shape, 'text': shape | text}, end_id=255)
  interop.write_open_clip(model, tmp_path)
  path = tmp_path / 'open_clip_model.safetensors'
  with pytest.raises(ValueError, match=r'lies beside its config; give the folder'):
    contrastive_jax.load(path)
  folder = tmp_path / 'openai'
  folder.mkdir()
  path = path.rename(folder / 'ViT-B-32.safetensors')
  source = write_source(tmp_path / 'data', rows(9))
  benchmark.run(str(path), f'nine={source}', tokenizer=spell, tasks=['retrieval'])
  record = json.loads((folder / 'ViT-B-32' / 'evaluation' / 'benchmark_nine.json').read_text())
  images = np.stack([data.preprocess(image, 8) for image in images_of(source)])
  captions = [text for example in rows(9) for text in example['captions']]
  image = np.asarray(model(images, spell(captions[:9])).image)
  text = np.asarray(model(images, spell(captions)).text)
  owner = np.repeat(np.arange(9), [len(e['captions']) for e in rows(9)])
  assert record['metrics'] == pytest.approx(
    {k: v for cutoff in (1, 5, 10) for k, v in recalls(image, text, owner, cutoff).items()}
  )


def test_several_sources_and_calls_share_a_table(tmp_path):
  first = write_source(tmp_path / 'a', rows(8))
  second = write_source(tmp_path / 'b', [{'label': w} for w in ('cat', 'dog', 'cat')])
  options = {'tokenizer': spell, 'templates': ['{}']}
  run(FOLDER / 'clip', f'a={first}', tmp_path / 'out', tasks=['retrieval'], **options)
  records, table = run(FOLDER / 'clip', f'b={second}', tmp_path / 'out', **options)
  assert [*records] and [(row['dataset'], row['task']) for row in table] == [
    ('a', 'zeroshot_retrieval'),
    ('b', 'zeroshot_classification'),
  ]
  assert table[1]['acc5'] == 'nan' and float(table[1]['acc1']) <= 1  # two classes
  with pytest.raises(ValueError, match=r'benchmark_b\.json holds results of .*clip; give another'):
    run(FOLDER / 'clip_quickgelu', f'b={second}', tmp_path / 'out', **options)


@pytest.mark.parametrize(
  ('fields', 'options', 'message'),
  [
    ({}, {}, r'--model=.* needs a --tokenizer: the folder does not say how'),
    ({}, {'batch_size': 0}, '--batch_size=0; use 1 or more'),
    ({'text': {'length': 9}}, {'tokenizer': spell}, r'tokenizer gives \[1, 16\] ids'),
  ],
)
def test_mistakes_of_the_model_are_named_before_anything_is_written(
  fields, options, message, tmp_path
):
  model = model_of(fields, end_id=30)
  interop.write_hugging_face(model, tmp_path / 'model')
  source = write_source(tmp_path / 'data', [{'label': 'a'}, {'label': 'b'}])
  with pytest.raises(ValueError, match=message):
    benchmark.run(str(tmp_path / 'model'), source, **options)
  assert not (tmp_path / 'model' / 'evaluation').exists()


def test_a_model_without_texts_is_named(tmp_path):
  fields = {'name': 'encoder', 'embed': 16, 'image': IMAGE}
  shapes = define(**fields).shapes
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
  interop.write_model(interop.Model(fields, zeros), tmp_path / 'model')
  source = write_source(tmp_path / 'data', [{'label': 'a'}, {'label': 'b'}])
  with pytest.raises(ValueError, match=r"reads \('image',\); zero-shot"):
    benchmark.run(str(tmp_path / 'model'), source)
