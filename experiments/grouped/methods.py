"""InfoNCE in groups over a sharded batch: gathered within machines, and ours."""

import jax
import jax.numpy as jnp
from jax import lax

from contrastive_jax import losses
from contrastive_jax.losses import pairwise


def all_gather(image, text, scale, mesh, groups):
  """Each device gathers its group's embeddings, and computes its rows of S and of Sᵀ.

  It is open_clip's `local_loss` with `gather_with_grad` within groups of devices, M2-Encoder's
  grouping of machines. `groups` divides the number of devices.
  """
  size = mesh.shape['data'] // groups
  members = [[*range(start, start + size)] for start in range(0, groups * size, size)]

  def local(image, text):
    def one_way(own, other):
      other = lax.all_gather(other, 'data', axis_index_groups=members, tiled=True)
      # The scale multiplies embeddings, as in open_clip: no copy of S.
      scores = lax.dot_general(own, other, (((1,), (1,)), ((), ())), precision='highest')
      return jax.nn.logsumexp(scores, 1)

    return (one_way(scale * image, text) + one_way(scale * text, image)) / 2

  batch = jax.P('data')
  each = jax.shard_map(local, mesh=mesh, in_specs=batch, out_specs=batch, check_vma=False)
  return jnp.mean(each(image, text) - scale * pairwise.paired(image, text))


def ring(image, text, scale, mesh, groups):
  """S in blocks, on rings of single devices."""
  return ours(image, text, scale, pairwise.Ring(mesh, gather_bytes=0), groups)


def ours(image, text, scale, mesh, groups):
  """S in blocks, on rings of devices that gather up to 64 MiB each."""
  return losses.info_nce(image, text, scale=scale, groups=groups, mesh=mesh)


METHODS = {'all-gather': all_gather, 'ring': ring, 'ours': ours}
