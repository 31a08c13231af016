"""SLIP: CLIP, and SimCLR between two views of each image through a projector."""

import dataclasses

import jax

from contrastive_jax import losses
from contrastive_jax.methods.lift import streamed
from contrastive_jax.methods.method import Method, Result
from contrastive_jax.models import transformer
from contrastive_jax.models.heads import define_head, head_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slip(Method):
  """SLIP [1].

      L = InfoNCE(image, text) + simclr · NT-Xent(z₁, z₂),   z = unit vectors of the projector

  The projector maps the pooled image features by three linear layers, the first two with batch
  norm over the whole batch and ReLU. NT-Xent compares the last two of `config.views` views. The
  authors have three: a mild crop that goes with the text, and two strongly augmented views. Here
  `config.augmentation` changes all views alike, so the first is as strong as the others. With
  `config.views = 2` the first view serves both losses, for two thirds of the image tower's work.

  The projector and the defaults are those of facebookresearch/SLIP, models.py, losses.py and
  main.py, for every size of the ViT.

  Attributes:
    hidden: width of the projector's two hidden layers.
    outputs: width of z.
    temperature: of NT-Xent; that of the pairs is learned.
    simclr: weight of NT-Xent.
    mesh: the mesh over which the batch is sharded; None for one device.

  References:
    [1] Mu et al., https://arxiv.org/abs/2112.12750
  """

  hidden: int = 4096
  outputs: int = 256
  temperature: float = 0.1
  simclr: float = 1.0
  mesh: jax.sharding.Mesh | None = None

  reads = ('image', 'text', 'scale', 'same?', 'view_features:2')

  def heads(self, sizes):
    """The projector of SimCLR."""
    return {'projector': define_head(sizes.image_features, (self.hidden,) * 2, self.outputs)}

  def loss(self, inputs, heads, memory, key):
    """InfoNCE of the first view and the text, and NT-Xent of the last two views."""
    image, text, scale = (inputs[name] for name in ('image', 'text', 'scale'))
    clip = losses.info_nce(image, text, scale=scale, same=inputs.get('same'), mesh=self.mesh)
    first, second = (
      transformer.unit(heads['projector'](inputs['view_features'][:, number]))
      for number in (-2, -1)
    )
    own = losses.nt_xent(first, second, scale=1 / self.temperature, mesh=self.mesh)
    return Result(clip + self.simclr * own, metrics={'clip': clip, 'simclr': own})

  def flops(self, sizes):
    """Both losses, and the projector of two views."""
    rows = 2 * sizes.batch
    projector = head_flops(sizes.image_features, (self.hidden,) * 2, self.outputs, rows)
    return streamed()(sizes) + projector + streamed(12)(sizes._replace(embed=self.outputs))
