"""A run's model as files for others, with a model card."""

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax

from contrastive_jax.interop import open_clip, own
from contrastive_jax.interop.model import Model, unroll
from contrastive_jax.interop.table import NoForm

# No name that another library would open, or that a folder of another's has.
TOKENIZER = 'contrastive_jax_tokenizer'


def export_run(config: Mapping[str, Any], parameters: Any, workdir: pathlib.Path, tokenizer) -> str:
  """Writes `workdir/export`: weights, config and README.md, in open_clip's form where it has one.

  The tokenizer's file, if the run has one, lies beside them.

  Args:
    config: the run's config.
    parameters: those to write.
    workdir: the run's folder, whose results.json the card quotes.
    tokenizer: the run's.

  Returns:
    A sentence that says what was written.
  """
  folder = workdir / 'export'
  model = Model(dict(config['model']), parameters, tokenizer.end_id)
  try:
    open_clip.write_open_clip(model, folder)
    form, reason = 'open_clip', ''
  except NoForm as error:
    own.write_model(model, folder)
    form, reason = 'contrastive_jax', f'; open_clip cannot hold it: {error}'
  if tokenizer.path:
    shutil.copyfile(tokenizer.path, folder / f'{TOKENIZER}{tokenizer.path.suffix}')
  results = workdir / 'results.json'
  figures = json.loads(results.read_text()) if results.exists() else {}
  (folder / 'README.md').write_text(_card(config, model, figures, form), encoding='utf-8')
  return f'{folder} holds the model in the form of {form}{reason}'


def _card(config, model: Model, figures: Mapping[str, float], form: str) -> str:
  name = f'{config["name"]}-{config["variant"]}'
  image, text = config['model']['image'], config['model']['text']
  count = sum(leaf.size for leaf in jax.tree.leaves(unroll(model.parameters)))
  seen = figures.get('images_seen')
  rows = '\n'.join(
    f'| {key} | {value:.4g} |'
    for key, value in figures.items()
    if key not in ('images_seen', 'parameters', 'step', 'seconds')
  )
  lines = [
    '---',
    f'library_name: {form}',
    'tags:',
    f'- {config["model"]["name"]}',
    '---',
    f'# {name}',
    '',
    f'A {config["model"]["name"]} model of {count:,} parameters, trained from '
    + (f'the weights in `{config["init_from"]}`' if config.get('init_from') else 'scratch')
    + ' with contrastive_jax.',
    '',
    '| | |',
    '|---|---|',
    f'| image tower | {image["layers"]} layers of width {image["width"]}, '
    f'{image["size"]} x {image["size"]} pixels in patches of {image["patch"]} |',
    f'| text tower | {text["layers"]} layers of width {text["width"]}, '
    f'{text["length"]} tokens of {text["vocabulary"]} |',
    f'| shared space | {config["model"]["embed"]} dimensions |',
    f'| objective | {", ".join(f"{v} {k}" for k, v in config["objective"].items())} |',
    '',
    '## Data',
    '',
    f'Trained on `{config["data"]["name"]}`, split `{config["data"]["split"]}`'
    + (f', {seen:,} images seen' if seen else '')
    + f', in batches of {config["batch_size"]}. Tokenizer: `{config["data"]["tokenizer"]}`, '
    f'padded with 0. Images are normalised by the mean and deviation of CLIP.',
    '',
    '## Figures',
    '',
    f'| | |\n|---|---:|\n{rows}' if rows else 'None: the run was not evaluated.',
    '',
    '## How to load',
    '',
    _usage(config['data']['tokenizer'], form),
  ]
  return '\n'.join(lines) + '\n'


def _usage(tokenizer: str, form: str) -> str:
  here = (
    '```python\n'
    'import contrastive_jax\n\n'
    "model = contrastive_jax.load('FOLDER')\n"
    "model.encode_image(pictures), model.encode_text(['a caption'])  # unit rows\n"
    '```'
  )
  if form != 'open_clip':
    return here
  there = (
    '```python\n'
    'import open_clip\n\n'
    "model, _, preprocess = open_clip.create_model_and_transforms('local-dir:FOLDER')\n"
    '```'
  )
  note = '' if tokenizer == 'clip' else '\n\nGive it the tokens of the tokenizer above.'
  return f'{there}{note}\n\nOr\n\n{here}'
