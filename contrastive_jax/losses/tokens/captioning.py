"""The captioning loss of CoCa, from logits or without them."""

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
    pad_id: the label that counts for nothing.
    count: of the tokens that the mean is over; default those that are not padding. With the whole
      batch's count, the losses of its parts add up to the whole's.

  Returns:
    Scalar, in nats a token; 0 if all are padding.

  Raises:
    ValueError: if the shapes do not match.

  References:
    [1] Yu et al., CoCa: Contrastive Captioners are Image-Text Foundation Models, 2022.

  >>> logits = jnp.zeros((2, 3, 8))
  >>> round(float(captioning(logits, jnp.array([[1, 2, 0], [3, 0, 0]]))), 4)      # log 8
  2.0794
  """
  if logits.shape[:-1] != labels.shape:
    raise ValueError(f'logits {logits.shape} and labels {labels.shape} differ; give [B, L, V]')
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  # A sum over the vocabulary and not a gather: it stays sharded if the vocabulary is.
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
  """`captioning` of logits = hidden vocabularyᵀ [B, L, V], which are never built.

  Args:
    hidden: [B, L, D], what the output layer would take; position t predicts token t of `labels`.
      The products are in its dtype.
    vocabulary: [V, D], the output matrix; its gradient is summed in float32.
    labels: [B, L] integers.
    pad_id: the label that counts for nothing.
    count: see `captioning`.
    block_size: tokens and words visited at a time; chosen from a memory budget by default.
    mesh: the mesh over whose axes named 'data' and 'fsdp' the batch, and here the vocabulary, are
      sharded; None for one device.

  Returns:
    Scalar, in nats a token; 0 if all are padding.

  Raises:
    ValueError: if the shapes do not match.

  >>> hidden, vocabulary = jnp.zeros((2, 3, 4)), jnp.ones((8, 4))
  >>> labels = jnp.array([[1, 2, 0], [3, 0, 0]])
  >>> round(float(captioning_streamed(hidden, vocabulary, labels)), 4)      # log 8
  2.0794
  """
  if hidden.shape[:-1] != labels.shape:
    raise ValueError(f'hidden {hidden.shape} and labels {labels.shape} differ; give [B, L, D]')
  tokens = hidden.reshape(-1, hidden.shape[-1])
  # Casts follow the gather, and both terms of the gradient: a frequent token's is a sum of many.
  vocabulary = vocabulary.astype(jnp.promote_types(vocabulary.dtype, jnp.float32))
  total, _ = pairwise.logsumexp(
    tokens, vocabulary, dtype=tokens.dtype, block_size=block_size, mesh=mesh
  )
  predicted = pairwise.paired(tokens, vocabulary[labels.reshape(-1)].astype(tokens.dtype))
  return _mean_over_tokens((total - predicted).reshape(labels.shape), labels, pad_id, count)


def count_tokens(labels: jax.Array, pad_id: int = 0) -> jax.Array:
  """How many labels [B, L] are not padding."""
  return jnp.sum(labels != pad_id)


def _mean_over_tokens(loss, labels, pad_id, count):
  count = count_tokens(labels, pad_id) if count is None else count
  return jnp.sum(jnp.where(labels != pad_id, loss, 0.0)) / jnp.maximum(count, 1)
