"""What the claims of image encoders share: the metric."""

from experiments.claims.claim import Arm, Comparison

# Of the groups of an unseen vendor's drawings, by the nearest of Noto's, each group equally.
NEIGHBORS = ('heldout_style/group_neighbours_mean_per_class_recall',)


def compare(method: Arm, baseline: Arm, says: str, seeds: int = 5) -> Comparison:
  """Two encoders by k-NN."""
  return Comparison(method, baseline, says, metrics=NEIGHBORS, seeds=seeds)
