"""Checks, before the first step, of settings that an evaluation reads hours into a run."""

import difflib
from collections.abc import Mapping, Sequence

from absl import logging

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.evaluation.retrieval import RECALLS
from contrastive_jax.evaluation.splits import Split, warn_of_repeats
from contrastive_jax.evaluation.zero_shot import ACCURACIES


def check_settings(texts: Sequence[str], probes: Sequence[str], known: Sequence[str]) -> None:
  """Checks the names of the probes, and that there is a field of texts.

  Raises:
    ValueError: if a probe is unknown, or no field of texts is named.
  """
  if not texts:
    raise ValueError("config.evaluation.texts = () names no field; use ('caption',)")
  for probe in probes:
    if probe not in known:
      raise ValueError(
        f'config.evaluation.probes has no {probe!r}; use some of {known}. '
        'experiments/probes has those that train'
      )


def check_probed(probed: Split, texts: Sequence[str]) -> None:
  """Checks that the examples of the probes have one or several texts in a field.

  Raises:
    ValueError: if they lack it, or it holds texts by language.
  """
  for field in texts:
    own = probed.fields.get(field, [{}])
    if isinstance(own[0], Mapping):
      raise ValueError(
        f'config.evaluation.probe_split has no texts in {field!r}, which the probes on image and '
        'text read; use another split, or a field of plain texts first in config.evaluation.texts'
      )


def check_fields(
  splits: Mapping[str, Split],
  partners: Split | None,
  classes: Mapping[str, Mapping[str, str]],
  texts: Sequence[str],
  pairs: Sequence[str],
  arithmetic: Sequence[str],
) -> None:
  """Checks that the fields of an `Evaluator` exist, and warns of splits without retrieval.

  Raises:
    ValueError: if no split has one of the fields, the partners lack one, or the first of `texts`
      holds texts by language.
  """
  known = {field for split in splits.values() for field in split.fields}
  named = {'zero_shot': classes, 'texts': texts[1:], 'arithmetic': arithmetic}
  for setting, fields in named.items():
    for field in fields:
      if splits and field not in known:
        raise ValueError(f'config.evaluation.{setting} names {field!r}, which no split has')
  if splits and (lacking := [field for field in pairs if field not in known]):
    logging.warning('config.evaluation.pairs names %s, which no split has: no pairs', lacking)
  needed = (*pairs, *arithmetic, *texts[:1])
  if partners and (lacking := [field for field in needed if field not in partners.fields]):
    raise ValueError(
      f'config.evaluation.partners: the examples lack {lacking}; use others, or '
      'config.evaluation.pairs = () and config.evaluation.arithmetic = ()'
    )
  for name, split in splits.items() if texts else ():
    if (own := split.fields.get(texts[0])) is None:
      logging.warning(
        'split %r has no %r and is not retrieved; config.evaluation.texts names the field of texts',
        name,
        texts[0],
      )
      continue
    if isinstance(own[0], Mapping):
      raise ValueError(
        f'config.evaluation.texts: {texts[0]!r} of split {name!r} holds texts by language; name a '
        'field of plain texts first'
      )
    if split.digests is not None:
      warn_of_repeats(name, split.digests, own)


def check_labels(
  labels: Mapping[str, Mapping[str, Sequence[str]]],
  learned: Mapping[str, Sequence[str]],
  classes: Mapping[str, Mapping[str, str]],
  probes: Sequence[str],
) -> None:
  """Checks the labels of an `Evaluator`.

  Args:
    labels: labels of the splits, by split and field.
    learned: labels that the probes are fitted to, by field.
    classes: names by label, by field.
    probes: names of the probes.

  Raises:
    ValueError: if a split has none of the known labels, or a linear probe has a single class.
  """
  for field, own in learned.items():
    if any(kind.endswith('linear') for kind in probes) and len(set(own)) < 2:
      raise ValueError(
        f'config.evaluation.probe_split: all examples have the {field!r} {own[0]!r}, and a linear '
        'probe tells classes apart; use a split of several'
      )
  for setting, known, remedy in (
    ('zero_shot', classes, "name these in a file, 'FIELD=FILE'"),
    ('probe_split', learned, 'use one with these labels, or config.evaluation.probes = ()'),
  ):
    for name, fields in labels.items():
      for field, own in fields.items():
        if field in known and set(own).isdisjoint(known[field]):
          raise ValueError(
            f'config.evaluation.{setting}: split {name!r} has {field!r} of {own[0]!r} and so on, '
            f'none of the known {len(set(known[field]))}, {next(iter(known[field]))!r} and so on; '
            f'{remedy}'
          )


def metric_names(
  texts: Sequence[str | Sequence[str]] | None,
  labels: Mapping[str, Sequence[str]],
  sides: tuple[str, str] = ('image', 'text'),
) -> list[str]:
  """Returns the names of a split's metrics during training.

  Args:
    texts: texts of its examples; None if it has none.
    labels: labels of its examples, by field.
    sides: names of the two sides of a pair.
  """
  found = [
    f'zero_shot_{field}_{measure}'
    for field in labels
    for measure in (*(f'accuracy@{k}' for k in ACCURACIES), 'mean_per_class_recall')
  ]
  if texts is None:
    return found
  ways = [f'{one}_to_{other}_recall' for one, other in (sides, sides[::-1])]
  captions = [own if isinstance(own, str) else own[0] for own in texts]
  recalls = [f'{way}@{k}' for way in ways for k in RECALLS]
  return recalls + found + diagnostics.metric_names(captions, labels, sides)


def image_metric_names(
  labels: Mapping[str, Sequence[str]], probes: Sequence[str], number: int
) -> list[str]:
  """Returns the names of a split's metrics during training, for a model without texts.

  Args:
    labels: labels of its examples, by field.
    probes: names of the probes, of which k-NN runs during training.
    number: of its images, if two views of each are compared; else 0.
  """
  measures = ('neighbours_accuracy', 'neighbours_mean_per_class_recall')
  measures = measures if 'neighbours' in probes else ()
  found = [f'{field}_{measure}' for field in labels for measure in measures]
  return found + diagnostics.view_metric_names(number, labels)


def check_best(best: str, names: Sequence[str]) -> None:
  """Checks that `config.keep_best` is the name of a metric, or ''.

  Raises:
    ValueError: if it is another name.
  """
  if not best or best in names:
    return
  if not names:
    raise ValueError(
      f"config.keep_best = {best!r}, and config.evaluation gives no metric during training; use ''"
    )
  near = difflib.get_close_matches(best, names, n=5, cutoff=0.4) or names
  raise ValueError(
    f'config.keep_best = {best!r} is no metric of the evaluation during training; use one of {near}'
  )
