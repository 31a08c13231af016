"""PCL-SR beside the same networks without its contrastive loss."""

from experiments.claims.claim import Arm, Claim, Comparison

_DATA = {'data.split': 'opencv+mate', 'data.test_split': 'scikit_image'}
_METHOD = Arm('pcl_sr', _DATA, 'pcl_sr')
_BASELINE = Arm('pcl_sr', _DATA | {'contrast': 0.0}, 'the same networks without contrast')

CLAIM = Claim(
  method='PCL-SR',
  paper=41,
  primary=Comparison(_METHOD, _BASELINE, 'SSIM, equal steps', delta=0.005, metrics=('ssim',)),
  secondary={'psnr': Comparison(_METHOD, _BASELINE, 'PSNR in dB', delta=0.1, metrics=('psnr',))},
  family='pixels',
  notes=(
    'Both have the discriminator. Trained on 37 photographs of OpenCV and MATE, tested on 14 of '
    'scikit-image, enlarged twofold.'
  ),
)
