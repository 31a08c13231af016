"""Exports the model of a run, with a model card."""

import json
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from contrastive_jax.interop import native, open_clip
from contrastive_jax.interop.model import Model, unstack_layers
from contrastive_jax.interop.table import UnsupportedError
from contrastive_jax.models.towers import image_class, pad_id_of, text_class

# File name of an exported tokenizer, distinct from those that other libraries open or write.
TOKENIZER = 'contrastive_jax_tokenizer'


def export_run(
  config: Mapping[str, Any],
  parameters: Any,
  workdir: pathlib.Path,
  tokenizer,
  sequence_length: int = 0,
) -> str:
  """Writes `workdir/export`: weights, config and README.md, in open_clip's format if possible.

  The tokenizer's file, if there is one, is copied beside them.

  Args:
    config: the run's config.
    parameters: parameters to write.
    workdir: the run's folder, whose results.json the model card quotes.
    tokenizer: the run's tokenizer; None for a model without texts.
    sequence_length: maximum number of patches per image; 0 for square images.

  Returns:
    A message that names the format.
  """
  results = workdir / 'results.json'
  metrics = json.loads(results.read_text()) if results.exists() else {}
  given = {name: [*config['data'].get(name, ())] for name in ('mean', 'std')}
  model = Model(
    dict(config['model']),
    parameters,
    tokenizer and tokenizer.end_id,
    {'preprocess_cfg': {name: value for name, value in given.items() if value}},
    sequence_length=sequence_length,
  )
  if isinstance(workdir, pathlib.Path):
    return _export(config, model, workdir / 'export', tokenizer, metrics)
  with tempfile.TemporaryDirectory() as temporary:  # of a bucket, whose files are written whole
    local = pathlib.Path(temporary) / 'export'
    message = _export(config, model, local, tokenizer, metrics)
    for path in local.iterdir():
      epath.Path(path).copy(epath.Path(workdir) / 'export' / path.name, overwrite=True)
  return message.replace(str(local), f'{workdir}/export')


def _export(config, model: Model, folder: pathlib.Path, tokenizer, metrics) -> str:
  try:
    open_clip.write_open_clip(model, folder)
    form, reason = 'open_clip', ''
  except UnsupportedError as error:
    native.write_model(model, folder)
    form, reason = 'contrastive_jax', f'; open_clip cannot hold it: {error}'
  if tokenizer is not None and tokenizer.path:
    shutil.copyfile(tokenizer.path, folder / f'{TOKENIZER}{tokenizer.path.suffix}')
  (folder / 'README.md').write_text(_card(config, model, metrics, form), encoding='utf-8')
  return f'{folder} holds the model in the format of {form}{reason}'


def _card(config, model: Model, metrics: Mapping[str, float], form: str) -> str:
  name = f'{config["name"]}-{config["variant"]}'
  normalized = ''
  if 'image' in config['model']:
    mean, std = ([*config['data'].get(name, ())] or "CLIP's" for name in ('mean', 'std'))
    normalized = f' Images are normalized by the mean {mean} and the standard deviation {std}.'
    if mean == std == "CLIP's":
      normalized = " Images are normalized by CLIP's mean and standard deviation."
  if model.sequence_length:
    normalized += (
      f' They are resized at their own aspect to at most {model.sequence_length} patches (NaFlex).'
    )
  towers = [
    f'| {tower} tower | {find(config["model"][tower]).describe(config["model"][tower])} |'
    for tower, find in (('image', image_class), ('text', text_class), ('audio', image_class))
    if tower in config['model']
  ]
  tokenizer = ''
  if 'text' in config['model']:
    padding = f'padded with {pad_id_of(config["model"]["text"])}'
    tokenizer = f' Tokenizer: `{config["data"]["tokenizer"]}`, {padding}.'
  lengths = ''
  if trained := config['data'].get('sequence_lengths'):
    lengths = f' images of at most {max(trained)} patches'
    if shorter := sorted({*trained} - {max(trained)}):
      lengths += f', or more images of at most {" or ".join(map(str, shorter))}'
  count = sum(leaf.size for leaf in jax.tree.leaves(unstack_layers(model.parameters)))
  seen = metrics.get('images_seen')
  rows = '\n'.join(
    f'| {key} | {value:.4g} |'
    for key, value in metrics.items()
    if key not in ('images_seen', 'parameters', 'step', 'seconds', 'step_seconds')
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
    *towers,
    f'| shared space | {config["model"]["embed"]} dimensions |',
    f'| objective | {", ".join(f"{v} {k}" for k, v in config["objective"].items())} |',
    '',
    '## Data',
    '',
    f'Trained on `{config["data"]["name"]}`, split `{config["data"]["split"]}`'
    + (f', {seen:,} {"images" if "image" in config["model"] else "examples"} seen' if seen else '')
    + f', in batches of {config["batch_size"]}{lengths}.{tokenizer}{normalized}',
    '',
    '## Metrics',
    '',
    f'| | |\n|---|---:|\n{rows}' if rows else 'None: the run was not evaluated.',
    '',
    '## How to load',
    '',
    _usage(config, form),
  ]
  return '\n'.join(lines) + '\n'


def _usage(config, form: str) -> str:
  tokenizer = config['data']['tokenizer']
  calls = ['model.encode_image(images)'] if 'image' in config['model'] else []
  if 'text' in config['model']:
    calls.append("model.encode_text(['a caption'])")
  if 'image' not in config['model']:
    calls.append("model.encode_second_text(['another'])")
  here = (
    '```python\n'
    'import contrastive_jax\n\n'
    "model = contrastive_jax.load('FOLDER')\n"
    f'{", ".join(calls)}  # unit rows\n'
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
