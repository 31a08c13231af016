"""The page for users of open_clip names flags that exist, of both."""

import ast
import importlib
import inspect
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

from configs import clip, coca, siglip
from contrastive_jax.evaluation.open import open_evaluator
from contrastive_jax.models.towers import IMAGE_TOWERS, TEXT_TOWERS
from contrastive_jax.training import build
from contrastive_jax.training.config_checks import leaves

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / 'docs' / f'from_{name}.md' for name in ('open_clip', 'big_vision')]
# What a table's left column names.
THEIRS = re.findall(
  r'`(--[a-z0-9-]+)',
  ''.join(
    line.split('|')[1] for line in PAGES[0].read_text().splitlines() if line.startswith('| `')
  ),
)


def fields():
  """Every field of the configs, and of their sections."""
  configs = [
    recipe.get_config(variant) for recipe in (clip, siglip, coca) for variant in recipe.VARIANTS
  ]
  found = {field for config in configs for field, _ in leaves(config.to_dict())}
  parts = (field.split('.') for field in found)
  sections = {'.'.join(names[:end]) for names in parts for end in range(1, len(names) + 1)}
  empty = {name for config in configs for name, value in config.items() if not value}
  return sections | empty


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_our_flags_exist(page):
  # The left column of a table is theirs.
  ours = re.sub(r'^\|[^|]*\|', '', page.read_text(), flags=re.MULTILINE)
  named = set(re.findall(r'\bconfig\.([a-z0-9_.]+[a-z0-9_])', ours))
  arguments = {
    f'model.{name}.{argument}'
    for name, towers in (('image', IMAGE_TOWERS), ('text', TEXT_TOWERS))
    for tower in towers.values()
    for argument in inspect.signature(tower.__init__).parameters
  }
  arguments |= {'model.image.tower', 'model.text.tower'}
  assert named and named <= fields() | arguments, sorted(named - fields() - arguments)
  scripts = [ROOT / 'launch.py', ROOT / 'contrastive_jax' / 'data' / 'convert.py']
  defined = ''.join(script.read_text() for script in scripts)
  flags = set(re.findall(r'--([a-z]+)=', ours)) - {'config'}
  assert flags and all(f"'{flag}'" in defined for flag in flags), flags


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_named_variants_exist(page):
  for recipe, variant in re.findall(r'configs/(\w+)\.py:(\w+)', page.read_text()):
    if variant != 'batch_size':
      importlib.import_module(f'configs.{recipe}').get_config(variant)


def test_no_flag_of_theirs_is_named_twice():
  assert len(THEIRS) == len(set(THEIRS)) == 90


def test_every_flag_of_theirs_is_named():
  params = pytest.importorskip('open_clip_train.params', reason='pip install open_clip_torch==3.3')
  flags = re.findall(r"""add_argument\(\s*["'](--[a-z0-9-]+)""", inspect.getsource(params))
  assert set(flags) == set(THEIRS)


def test_the_row_of_imagenet_opens_a_folder_of_wordnet_ids(tmp_path):
  for name in ('n01440764', 'n01443537'):
    folder = tmp_path / 'val' / name
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / 'one.png')
  (row,) = (line for line in PAGES[0].read_text().splitlines() if '`--imagenet-val`' in line)
  given = re.findall(r"--config\.evaluation\.(\w+)='(\(.*?\))'", row)
  assert [name for name, _ in given] == ['splits', 'zero_shot', 'templates']
  config = clip.get_config('smoke')
  for name, value in given:
    config.evaluation[name] = ast.literal_eval(value.replace('/data/imagenet', str(tmp_path)))
  run = build.open_model(config, jax.devices()[:1])
  evaluator = open_evaluator(config, run.definition, run.tokenizer, run.mesh)
  assert 'imagenet/zero_shot_label_accuracy@1' in evaluator.names
