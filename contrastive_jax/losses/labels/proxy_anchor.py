"""The proxy anchor loss, with labels of pairs between 0 and 1."""

from typing import Any

import jax
import jax.numpy as jnp

from contrastive_jax.losses.labels.label_weights import NEVER, log_sums, make_pairs


def proxy_anchor(
  embeddings: jax.Array,
  classes: jax.Array,
  proxies: jax.Array,
  *,
  share: jax.Array | None = None,
  scale: float = 32.0,
  margin: float = 0.1,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """The proxy anchor loss [1], and its form for mixtures, Metrix [2].

      L = mean⁺ log(1 + Σⱼ y_cⱼ e^(−α (s_cⱼ − δ))) + mean log(1 + Σⱼ (1 − y_cⱼ) e^(α (s_cⱼ + δ)))

  over the proxies c, one per class, with s = p · x; the first mean is over those with a positive
  in the batch. Labels y are those of `contrastive_margin`, with the proxies as anchors.

  Args:
    embeddings: [N, D] unit vectors.
    classes: [N] integers below C; or [N, 2], the two classes of each mixture.
    proxies: [C, D] unit vectors, trained with the model.
    share: [N] numbers from 0 to 1, λ: the share of the first class in each mixture.
    scale: α.
    margin: δ.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`.

  Returns:
    Scalar.

  Raises:
    ValueError: if the shapes do not match, or as `pairwise.logsumexp`: on a mesh, C must divide
      over its shards.

  References:
    [1] Kim et al., Proxy Anchor Loss for Deep Metric Learning, 2020,
      https://arxiv.org/abs/2003.13911.
    [2] Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, 2022,
      https://arxiv.org/abs/2106.04990.

  >>> eye = jnp.eye(2)
  >>> value = proxy_anchor(eye, jnp.arange(2), eye, scale=1.0, margin=0.0)
  >>> round(float(value), 4)      # log(1 + 1/e) + log 2
  1.0064
  """
  if proxies.ndim != 2:
    raise ValueError(f'proxies {proxies.shape}; give [C, D]')
  pairs = make_pairs(embeddings, classes, share, proxies, jnp.arange(len(proxies)))
  options: dict[str, Any] = {'block_size': block_size, 'mesh': mesh}
  positive, negative = log_sums(pairs, (scale, margin), (scale, -margin), **options)
  present = jnp.sum(positive > NEVER / 2)
  attraction = jnp.sum(jax.nn.softplus(positive)) / jnp.maximum(present, 1)
  return attraction + jnp.mean(jax.nn.softplus(negative))
