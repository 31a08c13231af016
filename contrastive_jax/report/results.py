"""Writes the results, outcomes and report of a finished run, and prints a table."""

import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence

import jax
import rich.console
import rich.markup
import rich.table
from ml_collections import ConfigDict

from contrastive_jax.evaluation import outcomes
from contrastive_jax.evaluation.embedded import EmbeddedSplit
from contrastive_jax.report import formatting, page


def write(
  folder: pathlib.Path,
  config: ConfigDict,
  results: dict[str, float],
  splits: Sequence[EmbeddedSplit],
  metrics: Sequence[dict[str, float]],
) -> dict[str, float]:
  """Writes, prints and returns the final metrics.

  Args:
    folder: the run's workdir.
    config: its config.
    results: metrics by name, including `parameters`, `images_seen` and `seconds`.
    splits: the held-out splits with their embeddings.
    metrics: the lines of metrics.jsonl.

  Returns:
    The results, with `step_seconds`, the median over the log.
  """
  if steps := [line['train/step_seconds'] for line in metrics if 'train/step_seconds' in line]:
    results = {**results, 'step_seconds': statistics.median(steps)}
  (folder / 'results.json').write_text(json.dumps(results, indent=2) + '\n')
  outcomes.write(folder / 'outcomes.npz', splits)
  page.write(
    folder / 'report.html',
    title=f'{config.name} {config.variant}',
    summary={
      'data': f'{config.data.name}, {config.data.split}',
      'devices': f'{jax.device_count()} x {jax.devices()[0].device_kind}',
      'parameters': f'{results["parameters"]:,}',
      'images seen': f'{results["images_seen"]:,}',
      'seconds': f'{results["seconds"]:.0f}',
    },
    results=results,
    metrics=metrics,
    splits=splits,
  )
  print_table(results)
  print(f'{folder}/report.html shows the curves, retrieved images and mistakes')
  return results


def print_table(results: Mapping[str, float], title: str = 'result') -> None:
  """Prints metrics by name, fractions in percent."""
  table = rich.table.Table(rich.markup.escape(title), rich.table.Column('', justify='right'))
  for name, value in results.items():
    shown = f'{value:.1%}' if formatting.is_fraction(name) else f'{value:,.4g}'
    table.add_row(rich.markup.escape(name), shown)
  rich.console.Console().print(table)
