"""SLIP: CLIP, and SimCLR between two views of each image through a projector."""

import jax

from contrastive_jax import losses
from contrastive_jax.methods.lift import streamed
from contrastive_jax.methods.method import Method, Paper, Result
from contrastive_jax.models import transformer
from contrastive_jax.models.heads import define_head, head_flops

PAPER = Paper(
  title='SLIP: Self-supervision meets Language-Image Pre-training',
  url='https://arxiv.org/abs/2112.12750',
  says='SimCLR beside CLIP lifts zero-shot, linear and finetuned accuracy over either alone',
  grade='V',
)


def slip(
  *,
  hidden: int = 4096,
  outputs: int = 256,
  temperature: float = 0.1,
  simclr: float = 1.0,
  mesh: jax.sharding.Mesh | None = None,
) -> Method:
  """SLIP [1].

      L = InfoNCE(image, text) + simclr · NT-Xent(z₁, z₂),   z = unit vectors of the projector

  The projector maps the pooled image features by three linear layers, the first two with batch
  norm over the whole batch and ReLU. NT-Xent compares the last two of `config.views` views. The
  authors have three: a mild crop that goes with the text, and two strongly augmented views. Here
  `config.augmentation` changes all views alike, so the first is as strong as the others. With
  `config.views = 2` the first view serves both losses, for two thirds of the image tower's work.

  The projector and the defaults are those of facebookresearch/SLIP, models.py, losses.py and
  main.py, for every size of the ViT.

  Args:
    hidden: width of the projector's two hidden layers.
    outputs: width of z.
    temperature: of NT-Xent; that of the pairs is learned.
    simclr: weight of NT-Xent.
    mesh: the mesh over which the batch is sharded; None for one device.

  References:
    [1] Mu et al., https://arxiv.org/abs/2112.12750
  """

  def heads(sizes):
    return {'projector': define_head(sizes.image_features, (hidden,) * 2, outputs)}

  def loss(inputs, heads, memory, key):
    image, text, scale = (inputs[name] for name in ('image', 'text', 'scale'))
    clip = losses.info_nce(image, text, scale=scale, same=inputs.get('same'), mesh=mesh)
    first, second = (
      transformer.unit(heads['projector'](inputs['view_features'][:, number]))
      for number in (-2, -1)
    )
    own = losses.nt_xent(first, second, scale=1 / temperature, mesh=mesh)
    return Result(clip + simclr * own, metrics={'clip': clip, 'simclr': own})

  def flops(sizes):
    projector = head_flops(sizes.image_features, (hidden,) * 2, outputs, 2 * sizes.batch)
    # NT-Xent visits three of the four B × B blocks of scores: the fourth is a transpose.
    own = streamed(12)(sizes._replace(embed=outputs))
    return streamed()(sizes) + projector + own

  return Method(
    reads=('image', 'text', 'scale', 'same?', 'view_features:2'),
    loss=loss,
    heads=heads,
    flops=flops,
  )
