"""PixPro and PixContrast beside SimCLR, by the segmentation of composed scenes."""

from configs import claims
from experiments.claims.claim import Arm, Claim, Comparison

# Of drawings and background, in scenes with an unseen vendor's; the head is fitted to the others'.
SEGMENTATION = ('heldout_style/segmentation_mean_iou',)
# Of all arms: an encoder of 8 x 8 pixels, and the views of `crop_views` in configs/simclr.py.
SHARED = {
  'model.embed': 32,
  'model.image.width': 32,
  'model.image.patch': 4,
  'model.image.stem_blocks': (0, 1),
  'augmentation': claims.get_config('pixpro').augmentation.to_dict(),
  'evaluation.probes': ('segmentation',),
}
PIXPRO, CONTRAST = (Arm(name, SHARED, name) for name in ('pixpro', 'pix_contrast'))
SIMCLR = Arm('simclr', SHARED, 'simclr, 8 x 8 pixels')


def compare(method: Arm, says: str, seeds: int) -> Comparison:
  """A method beside SimCLR, by the mean IoU of a linear head on their tokens."""
  return Comparison(method, SIMCLR, says, metrics=SEGMENTATION, seeds=seeds)


CLAIM = Claim(
  method='PixPro',
  paper=70,
  primary=compare(PIXPRO, 'mean IoU of composed scenes, equal steps', 5),
  secondary={'pix_contrast': compare(CONTRAST, 'PixContrast, likewise', 1)},
  family='pixels',
  notes='Dense transfer in small: the head tells drawings from the smooth background of a scene, '
  'whose mask is exact for what was pasted. The encoders are trained on drawings on white. The IoU '
  'of groups was near chance in a short trial of PixPro, so it decides nothing.',
)
