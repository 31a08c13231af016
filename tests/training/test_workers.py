"""Laws of the default number of workers."""

import types

import numpy as np
import pytest

from configs import clip
from contrastive_jax import data
from contrastive_jax.data import cores
from contrastive_jax.training import workers


@pytest.mark.parametrize(
  ('cores', 'sharing', 'expected'),
  [(2, 1, 0), (1, 4, 0), (12, 1, 10), (224, 1, 32), (96, 8, 10), (208, 4, 32)],
)
def test_workers_take_the_cores_that_the_trainers_leave(cores, sharing, expected):
  assert workers.automatic_workers(cores, sharing) == expected


def mesh_of(platform):
  return types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform=platform)]))


@pytest.mark.parametrize(
  ('given', 'platform', 'cached', 'expected'),
  [
    (-1, 'cpu', False, 0),
    (-1, 'tpu', True, 0),
    (-1, 'gpu', False, 10),
    (0, 'gpu', False, 0),
    (3, 'cpu', True, 3),
  ],
)
def test_only_the_automatic_number_depends_on_the_machine(
  monkeypatch, caplog, given, platform, cached, expected
):
  monkeypatch.setattr(workers, 'available_cores', lambda: 12)
  source = types.SimpleNamespace(cached=cached)
  assert workers.worker_count(given, source, mesh_of(platform)) == expected
  assert ('10 processes prepare batches' in caplog.text) == (expected == 10)


def test_the_default_is_automatic_and_the_emoji_need_no_worker():
  for variant in clip.VARIANTS:
    assert clip.get_config(variant).data.workers == workers.AUTOMATIC
  assert workers.worker_count(-1, data.open_source('emoji', 'train'), mesh_of('gpu')) == 0


@pytest.mark.parametrize(
  ('quota', 'expected'), [('400000 100000', 4), ('50000 100000', 1), ('max 100000', 8), (None, 8)]
)
def test_the_quota_of_a_container_counts(monkeypatch, tmp_path, quota, expected):
  monkeypatch.setattr(cores.os, 'sched_getaffinity', lambda _: range(8))
  monkeypatch.setattr(cores, '_QUOTA', tmp_path / 'cpu.max')
  if quota:
    (tmp_path / 'cpu.max').write_text(quota)
  assert cores.available_cores() == expected
