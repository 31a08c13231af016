"""Checks which of open_clip's model configs are read here.

python -m experiments.zoo.run --model_configs=FOLDER --repository=FOLDER

The folders are model_configs of a release of open_clip, and of its repository.
"""

import json
import pathlib

from absl import app, flags

from contrastive_jax import interop
from experiments import records
from experiments.zoo import report

_CONFIGS = flags.DEFINE_string('model_configs', None, 'folder of JSON files', required=True)
_REPOSITORY = flags.DEFINE_string('repository', None, 'folder of JSON files', required=True)
_VERSION = flags.DEFINE_string('open_clip', '3.3.0', 'version of open_clip that the folder is of')


def check(config: dict) -> dict[str, str]:
  """Returns the towers of a config, and why it is not read; '' if it is."""
  vision, text = config.get('vision_cfg', {}), config.get('text_cfg', {})
  image = vision.get('timm_model_name')
  own = 'ResNet' if isinstance(vision.get('layers'), list) else 'ViT'
  found = {'image': image or own, 'text': text.get('hf_model_name') or 'transformer'}
  try:
    interop.check_open_clip(config)
  except ValueError as error:
    return {**found, 'error': str(error)}
  return {**found, 'error': ''}


def check_all(folder: str) -> dict[str, dict[str, str]]:
  """Returns `check` of each config of a folder, by name."""
  paths = sorted(pathlib.Path(folder).glob('*.json'))
  return {path.stem: check(json.loads(path.read_text(encoding='utf-8'))) for path in paths}


def main(_):
  """Writes and prints the tables."""
  results = {'configs': check_all(_CONFIGS.value), 'repository': check_all(_REPOSITORY.value)}
  records.write(report.RESULTS, {'open_clip': _VERSION.value, **results})
  for table in report.TABLES.values():
    print(f'\n{table()}')


if __name__ == '__main__':
  app.run(main)
