"""Laws of the diagnostics of the embedding space, against plain NumPy in float64."""

import jax
import numpy as np
import pytest

from contrastive_jax.evaluation import diagnostics
from contrastive_jax.sharding.mesh import make_mesh
from tests.losses import reference


@pytest.fixture(scope='module')
def pairs():
  return reference.unit(np.random.default_rng(0), 2, 24, 5)


def shares(image, text, scale, hardest, same):
  """Of each image's softmax over its negatives, the sum of the greatest."""
  scores = scale * (image.astype(np.float64) @ text.T)
  scores[same[:, None] == same] = -np.inf
  negatives = np.exp(scores - scores.max(1, keepdims=True))
  negatives /= negatives.sum(1, keepdims=True)
  return np.sort(negatives, axis=1)[:, -hardest:].sum(1).mean()


@pytest.mark.parametrize('mesh', ['none', '8'])
def test_the_hard_negatives_shares_are_the_softmaxs(pairs, mesh):
  same = np.arange(24, dtype=np.int32) // 2
  scales, hardest = [0.5, 14.0, 100.0], (1, 3)
  found = diagnostics.hard_negative_shares(
    *pairs, scales=scales, hardest=hardest, same=same, mesh=reference.make_mesh(mesh)
  )
  expected = [[shares(*pairs, scale, count, same) for count in hardest] for scale in scales]
  np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_share_grows_as_the_temperature_falls(pairs):
  """From the same for all negatives to all for the hardest."""
  found = diagnostics.hard_negative_shares(*pairs, scales=[0, 1, 10, 3e4], hardest=(1,))[:, 0]
  assert found.tolist() == sorted(found.tolist())
  assert found[0] == pytest.approx(1 / 23, rel=1e-5) and found[-1] == pytest.approx(1, abs=1e-3)


def test_the_share_is_that_of_the_losss_gradient(pairs):
  """The slope of InfoNCE in each negative's similarity, by differences."""
  similarity = pairs[0].astype(np.float64) @ pairs[1].T

  def loss(similarity):
    scores = 10.0 * similarity
    return np.sum(reference.logsumexp(scores, 1) - np.diag(scores))

  [slope] = reference.differences(loss, similarity)
  negative = np.where(np.eye(24, dtype=bool), -np.inf, slope)
  hardest = negative.max(1) / np.sum(negative, axis=1, where=np.isfinite(negative))
  [[found]] = diagnostics.hard_negative_shares(*pairs, scales=[10.0], hardest=(1,))
  assert found == pytest.approx(hardest.mean(), rel=1e-4)


def test_the_gap_is_the_distance_of_means_and_a_shift_apart_makes_it_separable(pairs):
  image, text = pairs
  assert diagnostics.modality_gap(image, image[::-1]) == pytest.approx(0, abs=1e-7)
  expected = np.linalg.norm(image.astype(np.float64).mean(0) - text.mean(0))
  assert diagnostics.modality_gap(image, text) == pytest.approx(expected, rel=1e-5)
  # The last direction is the modality's own.
  image, text = (np.column_stack([x, np.full(24, sign)]) for x, sign in ((image, 2), (text, -2)))
  assert diagnostics.separability(image, text) == 1


def test_views_are_diagnosed_by_both_and_by_the_first(pairs):
  mesh, classes = make_mesh('data:1', jax.devices()[:1]), {'kind': list('ab' * 12)}
  first, second = pairs
  found = diagnostics.diagnose_views(first, second, second, classes, mesh)
  assert list(found) == diagnostics.view_metric_names(24, classes)
  assert found['alignment'] == pytest.approx(np.mean(np.sum((first - second) ** 2, 1)), rel=1e-5)
  squares = [np.sum((view[:, None] - view) ** 2, -1)[~np.eye(24, dtype=bool)] for view in pairs]
  spread = np.mean([np.log(np.mean(np.exp(-2 * own))) for own in squares])
  assert found['uniformity'] == pytest.approx(spread, rel=1e-4)
  assert found['effective_rank'] == pytest.approx(diagnostics.effective_rank(first))
  assert found['effective_rank_features'] == pytest.approx(diagnostics.effective_rank(second))
  assert found['tolerance_kind'] == pytest.approx(diagnostics.tolerance(first, classes['kind']))
  assert diagnostics.diagnose_views(*(x[:1] for x in (first, second, first)), {}, mesh) == {}
  assert diagnostics.view_metric_names(1, {}) == []


@pytest.mark.parametrize('mesh', [None, 'data:8'])
def test_equal_modalities_cannot_be_told_apart(pairs, mesh):
  mesh = mesh and make_mesh(mesh)
  assert diagnostics.separability(pairs[0], pairs[0], mesh=mesh) == 0.5
  with pytest.raises(ValueError, match=r'image \(1, 5\)'):
    diagnostics.separability(pairs[0][:1], pairs[1][:1])


def test_the_ranks_are_those_of_the_singular_values(pairs):
  x = (pairs[0] * [3, 2, 1, 0.5, 0.1]).astype(np.float64)
  values = np.linalg.svd(x - x.mean(0), compute_uv=False)
  np.testing.assert_allclose(diagnostics.spectrum(x), values**2 / 24, rtol=1e-9)
  p = values / values.sum()
  assert diagnostics.effective_rank(x) == pytest.approx(np.exp(-np.sum(p * np.log(p))))


def test_what_has_collapsed_is_counted(pairs):
  x = pairs[0]
  flat = np.column_stack([x, np.zeros((24, 3)), 1e-3 * x[:, :2]])
  assert diagnostics.collapsed_dimensions(x) == 0
  assert diagnostics.collapsed_dimensions(flat) == 5
  assert diagnostics.collapsed_dimensions(flat, below=1e-9) == 5  # x's own copies add no direction
  assert diagnostics.effective_rank(flat) == pytest.approx(diagnostics.effective_rank(x), rel=1e-2)
  assert diagnostics.effective_rank(np.ones((9, 4))) == 0
  turn = np.linalg.qr(np.random.default_rng(1).normal(size=(10, 10)))[0]
  assert diagnostics.collapsed_dimensions(flat @ turn) == 5


def test_tolerance_is_the_mean_over_pairs_of_a_class(pairs):
  x, labels = pairs[0], [row % 5 for row in range(24)]
  cosines = [
    x[i].astype(np.float64) @ x[j] for i in range(24) for j in range(i) if labels[i] == labels[j]
  ]
  assert diagnostics.tolerance(x, labels) == pytest.approx(np.mean(cosines), rel=1e-5)
  with pytest.raises(ValueError, match='no two of the 24 labels are equal'):
    diagnostics.tolerance(x, range(24))


@pytest.mark.parametrize('sample', [8192, 16, 12])
def test_all_metrics_at_once(pairs, sample, monkeypatch):
  """Of all pairs on one device, or of a sample that eight share, or cannot."""
  monkeypatch.setattr(diagnostics, 'SAMPLE', sample)
  captions = [f'caption {row // 2}' for row in range(24)]
  classes = {'group': ['a', 'b'] * 12, 'id': range(24)}
  found = diagnostics.diagnose(*pairs, captions, classes, 10.0, make_mesh('data:8'))
  rows = np.arange(24)
  if sample < 24:
    rows = np.sort(np.random.default_rng(0).choice(rows, sample, replace=False))
  image, text = (x[rows].astype(np.float64) for x in pairs)

  def uniformity(x):
    others = ~np.eye(len(x), dtype=bool)
    return np.log(np.mean(np.exp(4 * (x @ x.T - 1))[others]))

  assert found == pytest.approx(
    {
      'alignment': np.mean(np.sum((image - text) ** 2, axis=1)),
      'uniformity_image': uniformity(image),
      'uniformity_text': uniformity(text),
      'hard_negative_share': shares(image, text, 10.0, 1, rows // 2),
      'modality_gap': np.linalg.norm(image.mean(0) - text.mean(0)),
      'separability': diagnostics.separability(*(x[rows] for x in pairs)),
      'effective_rank_image': diagnostics.effective_rank(image),
      'effective_rank_text': diagnostics.effective_rank(text),
      'collapsed_dimensions_image': 0,
      'collapsed_dimensions_text': 0,
      'tolerance_group': diagnostics.tolerance(image, rows % 2),
    },
    rel=1e-4,
  )


def test_one_caption_alone_has_no_metrics(pairs):
  assert diagnostics.diagnose(*pairs, ['same'] * 24, {}, 1.0, make_mesh('data:8')) == {}
