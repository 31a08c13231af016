"""HPM beside MAE by a linear probe and finetuned, and without its masks."""

from experiments.claims.claim import Arm, Claim, Comparison

# Of the groups of an unseen vendor's drawings, by a linear probe, each group equally.
PROBE = ('heldout_style/group_linear_probe_mean_per_class_recall',)
# Likewise, after the encoder is trained with a linear layer.
FINETUNED = ('heldout_style/group_finetuned_mean_per_class_recall',)
# Half as wide as the encoder, as in the configs
FIELDS: dict[str, float] = {'model.pixel_decoder.width': 32}
MAE = Arm('mae', FIELDS)
_PROBES = {'evaluation.probes': ('finetuned',)}


def compare(fields: dict[str, float], says: str, seeds: int) -> Comparison:
  """HPM with some options beside MAE."""
  return Comparison(Arm('hpm', FIELDS | fields), MAE, says, metrics=PROBE, seeds=seeds)


CLAIM = Claim(
  method='HPM',
  paper=19,
  primary=compare({}, 'linear probe, equal steps', seeds=3),
  secondary={
    'predictor': compare(
      {'objective.hpm.hard': 0.0}, 'the loss predictor alone, with random masks', seeds=1
    ),
    'finetuned': Comparison(
      Arm('hpm', FIELDS | _PROBES, 'hpm, finetuned'),
      Arm('mae', FIELDS | _PROBES, 'mae, finetuned'),
      'finetuned, equal steps',
      metrics=FINETUNED,
      seeds=1,
    ),
  },
  family='pixels',
  notes='The paper trains for 200 to 800 epochs of ImageNet, and this for five of the emoji. A '
  'step of HPM also has a forward pass of its target. Finetuning takes 200 steps, without the '
  'layer-wise decay and the mixtures of images of the paper.',
)
