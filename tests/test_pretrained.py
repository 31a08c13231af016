"""A trained model as a library has it, from every kind of folder."""

import copy
import dataclasses
import json
import shutil
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
from PIL import Image

import contrastive_jax
from configs import coca
from contrastive_jax import benchmark, data, interop, pretrained
from contrastive_jax.data.images import normalizer
from contrastive_jax.evaluation.captioner import Captioner
from contrastive_jax.evaluation.open import open_evaluator
from contrastive_jax.evaluation.zero_shot import read_classes
from contrastive_jax.training import build, restore, workdir
from contrastive_jax.training.checkpoint import Checkpoints
from tests.interop.models import model_of
from tests.interop.parity import CASES, FOLDER, expected
from tests.models.towers import drawn
from tests.training.test_restore import delete_arrays, snapshot

SPLIT = 'heldout_composition'


def make_run(folder):
  """A run of CoCa, saved before its first step; NumPy draws its parameters."""
  config = coca.get_config('smoke')
  config.evaluation.splits, config.evaluation.zero_shot = (SPLIT,), ('group',)
  config.data.split = 'heldout_style'  # which opens fast
  config.data.mean, config.data.std = (0.5, 0.4, 0.3), (0.5, 0.6, 0.7)
  workdir.lock(folder, config)
  checkpoints = Checkpoints(folder / 'checkpoints')
  run = build.build(config, jax.devices()[:1])
  state = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), run.abstract_state)
  state = state.replace(parameters=drawn(run.definition))
  shardings = jax.tree.map(lambda a: a.sharding, run.abstract_state)
  checkpoints.save(jax.device_put(state, shardings), {})
  checkpoints.close()
  return restore.open_run(config, folder)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """The run, its folder, the model as it is loaded, and pictures."""
  folder = tmp_path_factory.mktemp('pretrained') / 'run'
  run = make_run(folder)
  return run, folder, contrastive_jax.load(folder), [*data_images(run)[:20]]


def data_images(run):
  return data.evaluation_images(data.open_source('emoji', SPLIT), run.config.model.image.size)


def spell(texts):
  """Tokens of the models in tests/parity_data: letters, of which there are 14."""
  rows = [[254, *(min(byte, 253) for byte in text.encode()[:14]), 255] for text in texts]
  return np.array([row + [0] * (16 - len(row)) for row in rows])


def pictures(count, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (count, 30, 40, 3), np.uint8)


@pytest.fixture(scope='module')
def clip():
  return contrastive_jax.load(FOLDER / 'clip', tokenizer=spell, batch_size=4)


def test_a_run_is_seen_as_its_evaluation_sees_it(saved):
  run, folder, model, _ = saved
  parameters = restore.restore_parameters(run, folder).parameters
  source, config = data.open_source('emoji', SPLIT), copy.deepcopy(run.config)
  config.evaluation.captions = {}
  evaluator = open_evaluator(config, run.definition, run.tokenizer, run.mesh, source)
  figures, (split,) = evaluator.evaluate(parameters)
  np.testing.assert_allclose(model.encode_image(split.images), split.image_embeddings, atol=1e-5)
  np.testing.assert_allclose(model.encode_text(split.captions), split.text_embeddings, atol=1e-5)

  groups = source.values('group')
  names, templates = sorted(set(groups)), run.config.evaluation.templates
  shares = model.classify(split.images, names, templates=templates)
  np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
  right = np.mean(
    [names[best] == group for best, group in zip(shares.argmax(1), groups, strict=True)]
  )
  assert right == pytest.approx(figures[f'{SPLIT}/zero_shot_group_accuracy@1'], abs=2 / len(groups))


def test_a_benchmark_of_a_run_has_the_metrics_of_its_own_evaluation(saved, tmp_path):
  run, folder, _, _ = saved
  split, config = f'{SPLIT}[vendor=noto]', copy.deepcopy(run.config)
  config.evaluation.splits, config.evaluation.captions, config.evaluation.probes = (split,), {}, ()
  evaluator = open_evaluator(config, run.definition, run.tokenizer, run.mesh)
  expected = evaluator(restore.restore_parameters(run, folder).parameters)
  # Without names, the classes would be those of the split.
  _, groups = read_classes('group', data.open_source('emoji', config.data.split).values)
  (tmp_path / 'groups.json').write_text(json.dumps(groups))
  benchmark.run(
    str(folder),
    f'noto=emoji:{split}',
    tasks=['retrieval', f'zero_shot:group={tmp_path}/groups.json'],
    templates=[*config.evaluation.templates],
    workdir=str(tmp_path / 'out'),
  )
  found = json.loads((tmp_path / 'out' / 'benchmark_noto.json').read_text())['metrics']
  assert len(found) == 9
  assert found == pytest.approx({name: expected[f'{split}/{name}'] for name in found})


def test_a_run_is_loaded_without_what_trained_it(saved, tmp_path):
  folder = tmp_path / 'run'
  shutil.copytree(saved[1], folder)
  config = json.loads((folder / 'config.json').read_text())
  config |= {'objective': {'another': 1.0}, 'optimizer': {'another': -1}, 'batch_size': 0}
  (folder / 'config.json').write_text(json.dumps(config))
  delete_arrays(folder, 0, {'optimizer_state'})
  before = snapshot(folder)
  model = contrastive_jax.load(folder)
  chex.assert_trees_all_equal(model.model.parameters, saved[2].model.parameters)
  assert snapshot(folder) == before


@pytest.mark.slow
def test_captions_are_those_of_the_evaluation(saved):
  run, folder, model, images = saved
  rules = {'beams': 2, 'rerank': True}
  size = run.config.model.image.size
  normalize = normalizer(run.config.data.mean, run.config.data.std)
  captioner = Captioner(run.definition, run.tokenizer, run.mesh, size, 8, rules, normalize)
  written = captioner(restore.restore_parameters(run, folder).parameters, np.stack(images))
  assert model.caption(images, **rules) == written
  assert model.caption(images[3], **rules) == [written[3]]


def test_drawn_captions_follow_the_key(saved):
  model = dataclasses.replace(saved[2], batch_size=8)
  first, again, other = (
    model.caption(saved[3], temperature=1.0, max_length=5, key=jax.random.key(seed))
    for seed in (0, 0, 1)
  )
  assert first == again != other
  with pytest.raises(ValueError, match='key = None'):
    model.caption(saved[3], temperature=1.0)


def test_what_a_run_exports_is_the_run(saved, tmp_path):
  run, folder, model, images = saved
  parameters = restore.restore_parameters(run, folder).parameters
  interop.export_run(run.config.to_dict(), parameters, tmp_path, run.tokenizer)
  again = contrastive_jax.load(tmp_path / 'export')
  np.testing.assert_allclose(again.encode_image(images), model.encode_image(images), atol=1e-6)
  texts = ['red heart', 'flag: Austria']
  np.testing.assert_allclose(again.encode_text(texts), model.encode_text(texts), atol=1e-6)
  assert again.caption(images[:2]) == model.caption(images[:2])
  for transform in (again.transform, model.transform):
    assert tuple(transform.mean) == (0.5, 0.4, 0.3) and tuple(transform.std) == (0.5, 0.6, 0.7)
  assert 'mean [0.5, 0.4, 0.3]' in (tmp_path / 'export' / 'README.md').read_text()


# tests/interop/test_open_clip.py has them all.
@pytest.mark.parametrize(
  'case', [case if case == 'coca' else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_open_clips_models_give_what_open_clip_gives(case):
  there = expected(case)
  model = contrastive_jax.load(FOLDER / case, tokenizer=lambda _: there['tokens'], batch_size=8)
  text = model.encode_text(['their tokens'] * 6)
  np.testing.assert_allclose(text, there['text_features'], atol=2e-5)
  images = pictures(6)
  pixels = np.stack([data.preprocess(Image.fromarray(image), 32) for image in images])
  outputs = model.model(pixels, there['tokens'])
  # Padding with the end token, as Hugging Face pads, is no other text.
  padded = np.where(there['tokens'] == 0, 255, there['tokens'])
  again = dataclasses.replace(model, tokenizer=lambda _: padded).encode_text(['theirs'] * 6)
  np.testing.assert_array_equal(again, text)
  np.testing.assert_array_equal(model.model(pixels, padded).text, outputs.text)
  np.testing.assert_allclose(model.encode_image(images), outputs.image, atol=2e-5)

  logits = np.asarray(outputs.scale * outputs.image @ text.T)
  shares = dataclasses.replace(model, tokenizer=lambda texts: there['tokens'][: len(texts)])
  shares = shares.classify(images, ['a', 'b', 'c'])
  if outputs.bias is None:
    theirs = np.exp(logits[:, :3]) / np.exp(logits[:, :3]).sum(axis=1, keepdims=True)
  else:
    theirs = 1 / (1 + np.exp(-logits[:, :3] - outputs.bias))
  np.testing.assert_allclose(shares, theirs, rtol=1e-3)


def test_a_scale_beyond_the_bound_of_training_is_kept(clip, tmp_path):
  parameters = {**clip.model.parameters, 'log_scale': np.float32(np.log(117.33))}
  model = dataclasses.replace(clip.model, parameters=parameters)
  interop.write_hugging_face(model, tmp_path / 'there')
  again = interop.read(tmp_path / 'there').parameters['log_scale']
  np.testing.assert_allclose(np.exp(again), 117.33, rtol=1e-6)
  images, labels = pictures(4), ['cat', 'dog', 'ship']
  logits = 117.33 * clip.encode_image(images) @ clip.encode_text(labels).T
  shares = np.exp(logits - logits.max(axis=1, keepdims=True))
  np.testing.assert_allclose(
    dataclasses.replace(clip, model=model).classify(images, labels),
    shares / shares.sum(axis=1, keepdims=True),
    rtol=1e-3,
  )


def test_hugging_faces_models_are_read_too(tmp_path):
  model = model_of({}, end_id=30)
  interop.write_hugging_face(model, tmp_path)
  there = contrastive_jax.load(tmp_path)
  images = pictures(3)
  pixels = np.stack([data.preprocess(Image.fromarray(image), 8) for image in images])
  tokens = np.zeros((3, model.fields['text']['length']), int)
  np.testing.assert_allclose(there.encode_image(images), model(pixels, tokens + 1).image, atol=2e-5)
  with pytest.raises(ValueError, match='does not say how its texts become tokens'):
    there.encode_text('a text')


def test_the_size_of_a_call_changes_nothing_but_its_rows(clip):
  images = pictures(9)
  whole = clip.encode_image(images)
  assert whole.shape == (9, 32) and whole.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
  for count in (1, 2, 3, 5):
    np.testing.assert_allclose(clip.encode_image(images[:count]), whole[:count], atol=1e-6)
  texts = [f'text {i}' for i in range(9)]
  np.testing.assert_allclose(clip.encode_text(texts)[4:5], clip.encode_text(texts[4]), atol=1e-6)


def test_calls_of_many_sizes_compile_few_programs(clip):
  model = dataclasses.replace(clip, batch_size=32)  # eight devices take eight rows or more
  for count in (1, 2, 3, 5, 7, 8, 33, 60, 65, 100):
    model.encode_image(pictures(count))
  assert model._encode_image._cache_size() == 2


def test_one_and_many_of_any_kind_are_the_same(clip):
  images = pictures(3)
  whole = clip.encode_image(images)
  opened = [Image.fromarray(image) for image in images]
  for given in (opened, [*images], images / 255, tuple(opened)):
    np.testing.assert_array_equal(clip.encode_image(given), whole)
  for one in (opened[1], images[1]):
    np.testing.assert_allclose(clip.encode_image(one), whole[1:2], atol=1e-6)


def test_a_search_gives_the_nearest_first(clip):
  images = pictures(7)
  embedded = clip.encode_image(images)
  texts = ['a cat', 'two dogs']
  cosines = clip.encode_text(texts) @ embedded.T
  for corpus in (images, embedded):
    found = clip.search(corpus, texts, k=7)
    np.testing.assert_array_equal(found.indices, np.argsort(-cosines, axis=1))
    np.testing.assert_allclose(found.scores, -np.sort(-cosines, axis=1), atol=1e-6)
  for query in (images[4], Image.fromarray(images[4]), embedded[4:5], embedded[4]):
    found = clip.search(embedded, query, k=1)
    assert found.indices.tolist() == [[4]] and found.scores[0, 0] == pytest.approx(1, abs=1e-5)
  # Texts are found as pictures are, by their embeddings.
  assert clip.search(clip.encode_text(texts), texts, k=1).indices.tolist() == [[0], [1]]


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda model: model.encode_image([]), 'images is empty'),
    (lambda model: model.encode_text([]), 'texts is empty'),
    (lambda model: model.classify(pictures(1), []), 'labels is empty'),
    (lambda model: model.classify(pictures(1), ['cat'], templates=['a photo']), 'has no {}'),
    (lambda model: model.caption(pictures(1)), 'is a clip, which has no captioner'),
    (lambda model: model.search(pictures(2), 'cat', k=3), 'k = 3 of 2 images; use 1 to 2'),
    (lambda model: model.search(np.ones((2, 5)), 'cat', k=1), r'give embeddings \[N, 32\]'),
    (lambda model: model.search(pictures(2), [], k=1), 'queries is empty'),
    (
      lambda model: dataclasses.replace(
        model, tokenizer=lambda texts: spell(texts) + 9
      ).encode_text('cat'),
      r'ids from 9 to 264; the model takes \[1, 16\] ids from 0, below 256',
    ),
  ],
)
def test_mistakes_are_named(clip, call, message):
  with pytest.raises(ValueError, match=message):
    call(clip)


def test_a_folder_without_a_model_is_told_what_one_holds(tmp_path):
  with pytest.raises(ValueError, match=r'holds no model: give the workdir of a run .*config\.json'):
    contrastive_jax.load(tmp_path)
  with pytest.raises(ValueError, match='batch_size = 0'):
    contrastive_jax.load(tmp_path, batch_size=0)
  with pytest.raises(
    ValueError, match=r"tokenizer = 'clip' has 49408 ids, and the model in .* 256"
  ):
    contrastive_jax.load(FOLDER / 'clip', tokenizer='clip')


def test_losses_wait_for_nothing_else():
  code = (
    'import sys; from contrastive_jax import losses; import contrastive_jax; '
    "assert 'contrastive_jax.data' not in sys.modules"
  )
  subprocess.run([sys.executable, '-c', code], check=True)
  assert contrastive_jax.load is pretrained.load
  with pytest.raises(AttributeError, match="no attribute 'laod'"):
    _ = contrastive_jax.laod
