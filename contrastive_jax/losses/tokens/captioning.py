"""The captioning loss of CoCa, from logits or streamed over the vocabulary."""

import jax
import jax.numpy as jnp

from contrastive_jax.losses import pairwise


def captioning(
  logits: jax.Array, labels: jax.Array, *, pad_id: int = 0, count: jax.Array | None = None
) -> jax.Array:
  """Cross entropy of the tokens that are not padding [1].

      L = mean over (b, t) with label ≠ pad of ( logsumexpᵥ logitsᵦₜᵥ − logitsᵦₜ at the label )

  Args:
    logits: [B, L, V]; position t predicts token t of `labels`.
    labels: [B, L] integers.
    pad_id: the label of padding.
    count: the number of tokens that the sum is divided by. Default: those that are not padding.
      With the count of the whole batch, the losses of micro-batches add up to that of the batch.

  Returns:
    Scalar, in nats per token; 0 if all are padding.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022,
      https://arxiv.org/abs/2205.01917.

  See also `captioning_streamed`, which needs no logits.

  >>> logits = jnp.zeros((2, 3, 8))
  >>> round(float(captioning(logits, jnp.array([[1, 2, 0], [3, 0, 0]]))), 4)      # log 8
  2.0794
  """
  if logits.shape[:-1] != labels.shape:
    raise ValueError(
      f'logits {logits.shape} and labels {labels.shape} do not match; give [B, L, V] and [B, L]'
    )
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  # A masked sum instead of a gather stays sharded where the vocabulary is.
  chosen = labels[..., None] == jnp.arange(logits.shape[-1])
  predicted = jnp.sum(jnp.where(chosen, logits, 0.0), axis=-1)
  return _mean_over_tokens(jax.nn.logsumexp(logits, axis=-1) - predicted, labels, pad_id, count)


def captioning_streamed(
  hidden: jax.Array,
  vocabulary: jax.Array,
  labels: jax.Array,
  *,
  pad_id: int = 0,
  count: jax.Array | None = None,
  block_size: int | None = None,
  mesh: jax.sharding.Mesh | None = None,
) -> jax.Array:
  """`captioning` of logits = hidden vocabularyᵀ [B, L, V], which are never stored.

  Args:
    hidden: [B, L, D], the input of the output layer; position t predicts token t of `labels`. The
      products have its dtype.
    vocabulary: [V, D], the output matrix; its gradient is summed in float32.
    labels: [B, L] integers.
    pad_id: the label of padding.
    count: as in `captioning`.
    block_size: as in `pairwise.logsumexp`.
    mesh: as in `pairwise.logsumexp`; it shards the tokens, and here the vocabulary.

  Returns:
    Scalar, in nats per token; 0 if all are padding.

  Raises:
    ValueError: if the shapes do not match.

  >>> hidden, vocabulary = jnp.zeros((2, 3, 4)), jnp.ones((8, 4))
  >>> labels = jnp.array([[1, 2, 0], [3, 0, 0]])
  >>> round(float(captioning_streamed(hidden, vocabulary, labels)), 4)      # log 8
  2.0794
  """
  if hidden.shape[:-1] != labels.shape:
    raise ValueError(
      f'hidden {hidden.shape} and labels {labels.shape} do not match; give [B, L, D] and [B, L]'
    )
  tokens = hidden.reshape(-1, hidden.shape[-1])
  # Cast after the gather, so that the gradient of a frequent token is a sum in float32.
  vocabulary = vocabulary.astype(jnp.promote_types(vocabulary.dtype, jnp.float32))
  total, _ = pairwise.logsumexp(
    tokens, vocabulary, dtype=tokens.dtype, block_size=block_size, mesh=mesh
  )
  predicted = pairwise.paired(tokens, vocabulary[labels.reshape(-1)].astype(tokens.dtype))
  return _mean_over_tokens((total - predicted).reshape(labels.shape), labels, pad_id, count)


def count_tokens(labels: jax.Array, pad_id: int = 0) -> jax.Array:
  """The number of labels [B, L] that are not padding.

  >>> int(count_tokens(jnp.array([[1, 2, 0], [3, 0, 0]])))
  3
  """
  return jnp.sum(labels != pad_id)


def _mean_over_tokens(loss, labels, pad_id, count):
  count = count_tokens(labels, pad_id) if count is None else count
  return jnp.sum(jnp.where(labels != pad_id, loss, 0.0)) / jnp.maximum(count, 1)
