"""Evaluates trained models of any format on any source, without the data they were trained on."""

import functools
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from contrastive_jax import data
from contrastive_jax.evaluation.batches import place_copies
from contrastive_jax.evaluation.benchmark import (
  Benchmark,
  evaluate,
  open_benchmark,
  open_named,
  own_files,
  parse_sources,
)
from contrastive_jax.evaluation.encoder import Encoder
from contrastive_jax.interop.tokenizers import Tokenize, unknown_tokenizer
from contrastive_jax.pretrained import Pretrained, load
from contrastive_jax.report import clip_benchmark, results
from contrastive_jax.runtime import buckets, processes
from contrastive_jax.runtime.waiting import waiting
from contrastive_jax.sharding.mesh import make_mesh


def run(
  model: str,
  sources: str,
  *,
  tasks: Sequence[str] = (),
  templates: Sequence[str] = (),
  tokenizer: str | Tokenize | None = None,
  batch_size: int = 256,
  sequence_length: int | None = None,
  workdir: str | None = None,
) -> None:
  """Evaluates a model on each source; writes and prints the results. All processes call it.

  Args:
    model: see `load`.
    sources: 'SOURCE,NAME=SOURCE:SPLIT,…', see `parse_sources` and `open_named`.
    tasks: see `open_benchmark`; default all that a source has fields for.
    templates: see `open_benchmark`.
    tokenizer: see `load`.
    batch_size: images or texts per batch, over all devices.
    sequence_length: see `load`.
    workdir: folder of the results; default the folder `evaluation` in the model's, or, of a file,
      in a folder of its name.

  Raises:
    ValueError: if the model or a source cannot be used; before anything is compiled.
  """
  named, path = parse_sources(sources), buckets.open_path(model)
  if batch_size < 1:
    raise ValueError(f'--batch_size={batch_size}; use 1 or more')
  opened = {name: open_named(source, _open_source) for name, source in named.items()}
  with waiting(f'loading {model}'):
    loaded = load(model, tokenizer=tokenizer, sequence_length=sequence_length)
  _check_model(loaded, model)
  read = functools.partial(_read, loaded, tasks, templates)
  benchmarks = [read(name, source, opened[name]) for name, source in named.items()]
  folder = buckets.open_path(workdir) if workdir else _default_folder(path)
  processes.on_first_process(
    lambda: clip_benchmark.prepare(folder, str(path), [*named]), f'creates {folder}'
  )
  mesh = make_mesh()
  parameters = place_copies(jax.device_get(loaded.model.parameters), mesh)
  encoder = Encoder(
    loaded.model.definition, loaded.tokenize, mesh, batch_size, loaded.transform.normalize
  )
  while benchmarks:
    benchmark = benchmarks.pop(0)  # which drops its images afterwards
    start = time.perf_counter()
    with waiting(f'evaluating {benchmark.name}: {len(benchmark.split.images):,} images'):
      metrics = evaluate(benchmark, encoder, parameters, mesh)
    seconds = time.perf_counter() - start
    if jax.process_index() == 0:
      about = {
        'source': named[benchmark.name],
        'model': loaded.model.fields['name'],
        'pretrained': str(path),
      }
      clip_benchmark.write(folder, _record(benchmark, about, metrics) | {'seconds': seconds})
      results.print_table(metrics, benchmark.name)
  if jax.process_index() == 0:
    print(f'{folder}/{clip_benchmark.CSV} holds these results in the columns of CLIP_benchmark')


def _open_source(name: str, split: str) -> data.Source:
  """Opens a source on the first process, which stores its index, and then on the others."""
  action = functools.partial(data.open_source, name, split)
  with waiting(f'opening {name}'):
    return processes.first_then_others(action, f'opens {name}, split {split}')


def _read(
  loaded: Pretrained, tasks, templates, name: str, source: str, opened: data.Source
) -> Benchmark:
  """Reads the captions and labels of a source."""
  classes, own_templates = own_files(source)
  with waiting(f'reading the captions and labels of {name}: {len(opened):,} examples'):
    return open_benchmark(
      name,
      opened,
      image_size=loaded.model.fields['image']['size'],
      resize=loaded.transform.patches if loaded.patches else loaded.transform.pixels,
      patches=loaded.patches,
      tasks=tasks,
      templates=templates or own_templates,
      classes=classes,
    )


def _check_model(loaded: Pretrained, model: str) -> None:
  """Raises ValueError for a model without images or texts, or without their tokenizer."""
  inputs = loaded.model.definition.inputs
  if not {'image', 'tokens'} <= {*inputs}:
    raise ValueError(
      f'--model={model} reads {inputs}; zero-shot classification and retrieval need a model of '
      'images and texts'
    )
  if loaded.tokenizer is None:
    raise ValueError(f'--model={model} needs a --tokenizer: {unknown_tokenizer(loaded.model)}')
  loaded.tokenize(['a photo'])


def _default_folder(path: pathlib.Path) -> pathlib.Path:
  return (path.with_suffix('') if path.is_file() else path) / 'evaluation'


def _record(
  benchmark: Benchmark, about: Mapping[str, str], metrics: Mapping[str, float]
) -> dict[str, Any]:
  """Returns the results of a source, as they are written."""
  count = {'texts': sum(map(len, benchmark.texts))} if benchmark.texts else {}
  return {
    'dataset': benchmark.name,
    **about,
    'images': len(benchmark.split.images),
    **count,
    'classes': {field: len(names) for field, names in benchmark.classes.items()},
    'templates': [*benchmark.templates],
    'metrics': dict(metrics),
  }
