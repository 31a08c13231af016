"""PCL-SR: super-resolution with a contrastive loss on the features of the discriminator.

Wu et al., A Practical Contrastive Learning Framework for Single-Image Super-Resolution, 2021,
https://arxiv.org/abs/2111.13924

  python launch.py --config=configs/methods/pcl_sr.py             scikit-image's photographs
  python launch.py --config=configs/methods/pcl_sr.py:smoke       two tiny steps on the emoji
  python launch.py --config=configs/methods/pcl_sr.py:validation  to choose settings with
  python launch.py --config=configs/methods/pcl_sr.py:photographs trained on OpenCV's and MATE's

`psnr`, in dB, and `ssim` are of the test images, beside `bicubic_psnr` and `bicubic_ssim`.
`--config.contrast=0` trains the same networks without it. It needs scikit-image, and `photographs`
Debian's opencv-doc and mate-backgrounds. The authors add the loss to published networks.
"""

from ml_collections import ConfigDict

VARIANTS = ('default', 'smoke', 'validation', 'photographs')


def get_config(variant: str = 'default') -> ConfigDict:
  """Returns the config of a variant."""
  if variant not in VARIANTS:
    raise ValueError(f'configs/methods/pcl_sr.py has no variant {variant!r}; use one of {VARIANTS}')
  config = ConfigDict({'name': 'pcl_sr', 'variant': variant, 'task': 'super_resolution', 'seed': 0})
  config.data = ConfigDict({'name': 'photographs', 'folder': '', 'crop': 48})
  config.data.split, config.data.test_split = 'scikit_image[title%4!=0]', 'scikit_image[title%4=0]'
  config.model = ConfigDict({'width': 24, 'blocks': 4, 'upscale': 2})
  config.discriminator = ConfigDict({'width': 16, 'layers': 3})
  config.adversarial, config.contrast = 0.005, 1.0  # weights
  config.copies = 2  # sharpened and blurred, of each image
  config.optimizer = ConfigDict({'learning_rate': 5e-4})
  config.batch_size = 8
  config.total_steps, config.log_every, config.checkpoint_every = 600, 50, 600
  config.evaluation = ConfigDict({'size': 256})
  if variant == 'smoke':
    config.data.update({'name': 'emoji', 'crop': 16, 'split': 'train[:32]'})
    config.data.test_split = 'heldout_style[:4]'
    config.model.update({'width': 8, 'blocks': 1})
    config.discriminator.width = 4
    config.total_steps, config.log_every = 2, 1
  elif variant == 'validation':
    # Photographs that the default trains on
    config.data.split, config.data.test_split = (f'scikit_image[title%4={n}]' for n in (1, 2))
  elif variant == 'photographs':
    config.data.split, config.data.test_split = 'opencv+mate', 'scikit_image'
    config.model.update({'width': 64, 'blocks': 16})
    config.discriminator.width, config.batch_size, config.data.crop = 64, 16, 96
    config.total_steps = config.checkpoint_every = 20_000
  return config
