"""Tasks beside pretraining: supervised fits, streams and others with a loop of their own.

A config with a field `task` is for one of them. It has the fields that the task reads, not those of
configs/clip.py, and `launch.py` trains and evaluates it in one go.
"""

import json
import pathlib
import time
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from contrastive_jax.tasks.classification import open_classification
from contrastive_jax.tasks.episodes import open_episodes
from contrastive_jax.tasks.metric_learning import open_metric_learning
from contrastive_jax.tasks.stream import open_stream
from contrastive_jax.tasks.super_resolution import open_super_resolution
from contrastive_jax.tasks.tracking import open_tracking
from contrastive_jax.training import workdir

Results = Mapping[str, float]
# config -> run, by name. Opening checks the config and opens its data, with a ValueError for what
# cannot work. The run trains in a workdir, from where it was stopped, and returns its results.
TASKS: dict[str, Callable[[ConfigDict], Callable[[pathlib.Path], Results]]] = {
  'classification': open_classification,
  'episodes': open_episodes,
  'metric_learning': open_metric_learning,
  'stream': open_stream,
  'super_resolution': open_super_resolution,
  'tracking': open_tracking,
}


def open_task(config: ConfigDict) -> Callable[[pathlib.Path], Results]:
  """Opens the task of a config.

  Raises:
    ValueError: if there is no such task, or its config cannot work.
  """
  if config.task not in TASKS:
    raise ValueError(f'config.task = {config.task!r} is no task; use one of {sorted(TASKS)}')
  return TASKS[config.task](config)


def run(config: ConfigDict, folder: pathlib.Path) -> Results:
  """Runs the task of a config in a workdir, and writes results.json to it.

  Returns:
    The results, with the `seconds` that this process took.
  """
  start = time.perf_counter()
  run_in = open_task(config)
  workdir.lock(folder, config)
  results = {**run_in(folder), 'seconds': time.perf_counter() - start}
  (folder / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
  return results
