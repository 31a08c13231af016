"""What paired runs say: intervals, the smallest detectable difference, and the verdict by rule."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from contrastive_jax.evaluation.outcomes import Outcome

LEVEL = 0.95  # confidence level of the intervals
POWER = 0.8  # of the smallest detectable difference
FALSE_DISCOVERIES = 0.10  # Benjamini and Hochberg's q, over the primary comparisons of a family

HOLDS, REVERSES, NO_DIFFERENCE, CANNOT_TELL = 'holds', 'reverses', 'no difference', "can't tell"
VERDICTS = (HOLDS, REVERSES, NO_DIFFERENCE, CANNOT_TELL)


class Paired(NamedTuple):
  """What the differences of S pairs of runs say, in the unit of the metric.

  Attributes:
    difference: their mean.
    interval: Student's t interval for the mean difference, over the seeds.
    p: two-sided p-value of Student's paired t test.
    detectable: the smallest true difference that S such pairs show with a probability of `POWER`.
    seeds: S.
  """

  difference: float
  interval: tuple[float, float]
  p: float
  detectable: float
  seeds: int


def paired(differences: Sequence[float]) -> Paired:
  """Summarizes the differences of runs that are paired by seed.

  Args:
    differences: [S] method − baseline, per seed.

  Raises:
    ValueError: if there are fewer than two.
  """
  count = len(differences)
  if count < 2:
    raise ValueError(f'{count} pair of runs has no interval; run at least two seeds')
  mean = float(np.mean(differences))
  error = float(np.std(differences, ddof=1)) / math.sqrt(count)
  reach = float(stats.t.ppf((1 + LEVEL) / 2, count - 1))
  if error == 0:  # all pairs differ alike, as where two arms are one computation
    p = 1.0 if mean == 0 else 0.0
  else:
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
  detectable = (reach + float(stats.t.ppf(POWER, count - 1))) * error
  return Paired(mean, (mean - reach * error, mean + reach * error), p, detectable, count)


def crossed_bootstrap(
  baseline: Sequence[Sequence[Outcome]],
  method: Sequence[Sequence[Outcome]],
  *,
  resamples: int = 4000,
  seed: int = 0,
) -> tuple[float, float]:
  """Interval of a difference of recalls, with seeds and queries resampled separately [1].

  Queries of equal caption are resampled together, since they are dependent.

  Args:
    baseline: K outcomes of each of S runs; the metric is the mean of the K means.
    method: the same of the runs of equal seed.
    resamples: number of resamples.
    seed: seed of the resamples.

  Raises:
    ValueError: if the runs have other queries.

  References:
    [1] Owen, The Pigeonhole Bootstrap, 2007.
  """
  random = np.random.default_rng(seed)
  first = baseline[0]
  for run in (*baseline, *method):
    for outcome, expected in zip(run, first, strict=True):
      if not np.array_equal(outcome.captions, expected.captions):
        raise ValueError('the runs were evaluated on other queries; evaluate them alike')
  captions, index = np.unique(
    np.concatenate([outcome.captions for outcome in first]), return_inverse=True
  )
  runs, clusters = len(baseline), len(captions)
  seeds = random.multinomial(runs, np.full(runs, 1 / runs), resamples)  # [R, S]
  queries = random.multinomial(clusters, np.full(clusters, 1 / clusters), resamples)  # [R, C]
  means = np.zeros(resamples)
  split = np.split(index, np.cumsum([len(outcome.captions) for outcome in first])[:-1])
  for k, cluster in enumerate(split):
    changes = np.stack(
      [
        np.bincount(cluster, after[k].hits.astype(float) - before[k].hits, clusters)
        for before, after in zip(baseline, method, strict=True)
      ]
    )
    sizes = queries @ np.bincount(cluster, minlength=clusters)
    means += np.einsum('rc,rc->r', seeds @ changes, queries) / (runs * sizes) / len(first)
  low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)


def verdict(found: Paired, delta: float) -> str:
  """The verdict on one comparison, before the control of false discoveries.

  Args:
    found: with the sign of an improvement.
    delta: the smallest difference that matters.
  """
  low, high = found.interval
  if low > 0 and found.difference >= delta:
    return HOLDS
  if high < 0 and found.difference <= -delta:
    return REVERSES
  return NO_DIFFERENCE if -delta < low and high < delta else CANNOT_TELL


def control(verdicts: Mapping[str, str], p: Mapping[str, float]) -> dict[str, str]:
  """Verdicts that survive Benjamini and Hochberg's control of false discoveries [1].

  Args:
    verdicts: of the primary comparisons of a family, by name.
    p: p-value of each of the family; 1 for one that is not measured yet.

  Returns:
    The verdicts, where a 'holds' or 'reverses' that does not survive is "can't tell".

  References:
    [1] Benjamini and Hochberg, Controlling the False Discovery Rate, 1995.
  """
  names = list(p)
  adjusted = dict(
    zip(names, stats.false_discovery_control([p[name] for name in names]), strict=True)
  )
  return {
    name: CANNOT_TELL
    if found in (HOLDS, REVERSES) and adjusted[name] > FALSE_DISCOVERIES
    else found
    for name, found in verdicts.items()
  }
