"""Losses of masked patches: the error of their reconstruction, and the ranks of such errors."""

import jax
import jax.numpy as jnp

# Of a variance, as in MAE.
_EPSILON = 1e-6


def normalize_patches(patches: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Patches [..., C] by their own mean and deviation, and these two [..., 1], float32.

  The variance is the unbiased one plus 10⁻⁶, as in MAE.
  """
  patches = patches.astype(jnp.promote_types(patches.dtype, jnp.float32))
  mean = jnp.mean(patches, -1, keepdims=True)
  deviation = jnp.sqrt(jnp.var(patches, -1, ddof=1, keepdims=True) + _EPSILON)
  return (patches - mean) / deviation, mean, deviation


def patch_errors(predicted: jax.Array, patches: jax.Array) -> jax.Array:
  """The mean squared error per patch of MAE [1], whose mean over masked patches is its loss.

      l = mean over C of ( predicted − (x − mean x) / √(var x + 10⁻⁶) )²

  Args:
    predicted: [B, M, C].
    patches: x, [B, M, C] pixels of each patch, which get no gradient.

  Returns:
    [B, M], float32.

  Raises:
    ValueError: if the shapes differ.

  References:
    [1] He et al., https://arxiv.org/abs/2111.06377

  >>> patches = jnp.array([[[0.0, 1.0, 2.0]]])
  >>> patch_errors(jnp.array([[[-1.0, 0.0, 1.0]]]), patches).round(4).tolist()
  [[0.0]]
  """
  if predicted.shape != patches.shape:
    raise ValueError(f'predicted {predicted.shape} and patches {patches.shape}; give one shape')
  aims = jax.lax.stop_gradient(normalize_patches(patches)[0])
  return jnp.mean(jnp.square(predicted.astype(aims.dtype) - aims), -1)


def patch_ranking(predicted: jax.Array, errors: jax.Array) -> jax.Array:
  """The relative loss of HPM [1]: which of two patches of an image has the larger error.

      L = mean over images and pairs (i, j) with lᵢ > lⱼ of log( 1 + exp(rⱼ − rᵢ) )

  Ties do not count. Temporaries have B M² numbers. The authors' code adds 10⁻⁶ to the argument of
  the logarithm, which bounds the loss of a pair by 13.8.

  Args:
    predicted: r, [B, M].
    errors: l, [B, M], which get no gradient.

  Returns:
    Scalar, in nats; 0 where no pair counts.

  Raises:
    ValueError: if the shapes are not [B, M].

  References:
    [1] Wang et al., https://arxiv.org/abs/2312.13714; as in Haochen-Wang409/HPM:
      models_mae_learn_loss.py

  >>> loss = patch_ranking(jnp.zeros((1, 3)), jnp.array([[0.1, 0.5, 0.2]]))
  >>> round(float(loss), 4)      # log 2
  0.6931
  """
  if predicted.shape != errors.shape or predicted.ndim != 2:
    raise ValueError(f'predicted {predicted.shape} and errors {errors.shape}; give [B, M] of both')
  predicted = predicted.astype(jnp.promote_types(predicted.dtype, jnp.float32))
  counts, apart = _pairs(predicted, jax.lax.stop_gradient(errors))
  losses = jnp.where(counts, jax.nn.softplus(-apart), 0.0)
  return jnp.sum(losses) / jnp.maximum(jnp.sum(counts), 1)


def share_in_order(predicted: jax.Array, errors: jax.Array) -> jax.Array:
  """The share of the pairs of `patch_ranking` whose order is predicted, of the same arguments.

  >>> share = share_in_order(jnp.array([[1.0, 3.0, 2.0]]), jnp.array([[0.1, 0.2, 0.3]]))
  >>> round(float(share), 4)
  0.6667
  """
  counts, apart = _pairs(predicted, errors)
  return jnp.sum(counts & (apart > 0)) / jnp.maximum(jnp.sum(counts), 1)


def _pairs(predicted, errors):
  """[B, M, M]: whether the first of two patches has the larger error, and by how much it leads."""
  return errors[:, :, None] > errors[:, None], predicted[:, :, None] - predicted[:, None]
