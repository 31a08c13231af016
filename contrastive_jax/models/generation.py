"""Caption generation: greedy, beam search and sampling, in one loop over positions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models.coca import Coca

PAD_ID = 0


class Captions(NamedTuple):
  """Captions generated for B images.

  Attributes:
    tokens: [B, L] integers: start, ids, end, zeros. A caption cut at L has no end token.
    scores: [B] log-probability of the tokens after the start, divided by their number to the power
      of `length_penalty`.
  """

  tokens: jax.Array
  scores: jax.Array


@dataclasses.dataclass(frozen=True)
class Rules:
  """Decoding rules: greedy by default, beam search with `beams`, sampling with `temperature`.

  Attributes:
    start_id: id of the first token.
    end_id: id of the end token, which only padding follows.
    max_length: L, maximum number of tokens, start and end included.
    min_length: minimum number of tokens, start and end included.
    beams: K, beams per image. A finished beam stays until better ones displace it, and the search
      stops once no other beam can overtake the best one.
    length_penalty: exponent of the length in the score: 0 prefers the most probable caption, 1 the
      highest mean log-probability per token.
    rerank: whether to choose, among the beams, the caption whose embedding is nearest to the
      image's, instead of the most probable one.
    temperature: temperature of sampling; 0 does not sample.
    top_k: number of most probable tokens to sample from; None for all.
    top_p: smallest total probability of the most probable tokens to sample from [1].

  Raises:
    ValueError: names the field that is out of range.

  References:
    [1] Holtzman et al., The Curious Case of Neural Text Degeneration, 2020.
  """

  start_id: int
  end_id: int
  max_length: int
  min_length: int = 0
  beams: int = 1
  length_penalty: float = 0.0
  rerank: bool = False
  temperature: float = 0.0
  top_k: int | None = None
  top_p: float = 1.0

  def __post_init__(self):
    draws = self.top_k is not None or self.top_p != 1
    for field, holds, works in (
      ('max_length', self.max_length >= 2, '2 or more: start and one token'),
      ('min_length', self.min_length <= self.max_length, f'at most max_length {self.max_length}'),
      ('beams', self.beams >= 1, '1 or more'),
      ('beams', self.beams == 1 or not self.temperature, '1 with a temperature, which samples'),
      ('rerank', self.beams > 1 or not self.rerank, 'False with one beam'),
      ('length_penalty', self.length_penalty >= 0, '0 or more'),
      ('temperature', self.temperature >= 0, '0 or more'),
      ('temperature', self.temperature > 0 or not draws, 'more than 0 with top_k or top_p'),
      ('top_k', self.top_k is None or self.top_k >= 1, '1 or more, or None'),
      ('top_p', 0 < self.top_p <= 1, 'more than 0, and at most 1'),
      ('start_id', self.start_id != PAD_ID, 'an id other than the padding, 0'),
      ('end_id', self.end_id not in (self.start_id, PAD_ID), 'an id other than start_id and 0'),
    ):
      if not holds:
        raise ValueError(f'{field} = {getattr(self, field)}; use {works}')


def generate(model: Coca, images, *, key: jax.Array | None = None, **rules) -> Captions:
  """Captions images; compiled once per set of rules, even when called outside `jax.jit`.

      generate(model, images, start_id=1, end_id=2)                                # greedy
      generate(model, images, start_id=1, end_id=2, beams=4)
      generate(model, images, start_id=1, end_id=2, temperature=0.7, top_p=0.9, key=key)

  Args:
    model: a model with a captioner.
    images: [B, H, W, 3] floats, normalized.
    key: random key of sampling; required with a temperature.
    **rules: fields of `Rules`; the default of `max_length` is the model's text length.

  Raises:
    ValueError: if the model has no captioner, or a rule is out of range.
  """
  if not isinstance(model, Coca):
    raise ValueError(f'model is a {type(model).__name__}, which has no captioner; use a Coca')
  if not model.text.causal:
    raise ValueError('text.causal = False: the model was trained with the next token visible')
  rules = Rules(**{'max_length': model.text.length} | rules)
  if rules.max_length > model.text.length:
    raise ValueError(
      f'max_length = {rules.max_length} is beyond text.length = {model.text.length} of the model'
    )
  return _generate(*nnx.split(model), images, key, rules)


@jax.jit(static_argnames=('graph', 'rules'))
def _generate(graph, parameters, images, key, rules):
  model = nnx.merge(graph, parameters)
  step, cache = model.captioner(images, beams=rules.beams, length=rules.max_length)
  beams = search_beams(step, cache, len(images), rules, key)
  best = _nearest(model, images, beams) if rules.rerank else jnp.zeros(len(images), jnp.int32)
  rows = jnp.arange(len(images))
  return Captions(beams.tokens[rows, best], beams.scores[rows, best])


def _nearest(model, images, beams):
  """Returns the index of the caption among [B, K, L] that is nearest to the image, [B]."""
  B, K, L = beams.tokens.shape
  texts = jnp.pad(beams.tokens.reshape(B * K, L), ((0, 0), (0, model.text.length - L)))
  vectors = model.encode_text(texts).reshape(B, K, -1)
  similarity = jnp.einsum('bd,bkd->bk', model.encode_image(images), vectors)
  return jnp.argmax(jnp.where(jnp.isfinite(beams.scores), similarity, -jnp.inf), axis=1)


def search(step: Callable, cache: Any, rows: int, rules: Rules, key=None) -> Captions:
  """Returns the best beam of `search_beams` for each of B rows."""
  beams = search_beams(step, cache, rows, rules, key)
  return Captions(beams.tokens[:, 0], beams.scores[:, 0])


def search_beams(
  step: Callable, cache: Any, rows: int, rules: Rules, key: jax.Array | None = None
) -> Captions:
  """Runs the search for any step function; returns all beams, best first.

  Args:
    step: (tokens [B, K], cache, parents [B, K], position) -> (logits [B, K, V], cache), such as
      that of `Coca.captioner`.
    cache: the empty cache.
    rows: number of rows, B.
    rules: the decoding rules.
    key: random key of sampling; required with a temperature.

  Returns:
    Tokens [B, K, L] and scores [B, K].

  Raises:
    ValueError: if a temperature comes without a key.
  """
  if rules.temperature and key is None:
    raise ValueError(
      f'temperature = {rules.temperature} samples, but key = None; give a random key'
    )
  K, L = rules.beams, rules.max_length
  tokens = jnp.zeros((rows, K, L), jnp.int32).at[:, :, 0].set(rules.start_id)
  # Only the first beam starts finite: identical beams would stay identical.
  totals = jnp.broadcast_to(jnp.where(jnp.arange(K) == 0, 0.0, -jnp.inf), (rows, K))
  parents = jnp.zeros((rows, K), jnp.int32)

  def unfinished(carry):
    position, tokens, totals, _, _ = carry
    return (position < L - 1) & ~jnp.all(_is_done(rules, tokens, totals, position))

  def advance(carry):
    position, tokens, totals, parents, cache = carry
    logits, cache = step(tokens[:, :, position], cache, parents, position)
    tokens, totals, parents = _choose(rules, key, tokens, totals, logits, position)
    return position + 1, tokens, totals, parents, cache

  start = (jnp.int32(0), tokens, totals, parents, cache)
  _, tokens, totals, _, _ = jax.lax.while_loop(unfinished, advance, start)
  return Captions(tokens, _score(rules, totals, _lengths(tokens)))


def _choose(rules, key, tokens, totals, logits, position):
  """Extends captions [B, K, L] by a token; returns the K best, their totals and parents."""
  B, K, V = logits.shape
  ids, finished = jnp.arange(V), _finished(rules, tokens, position)[..., None]
  # Padding is excluded: the losses skip it, so its probability is untrained.
  allowed = (ids != PAD_ID) & ((ids != rules.end_id) | (position + 2 >= rules.min_length))
  steps = jax.nn.log_softmax(jnp.where(allowed, logits.astype(jnp.float32), -jnp.inf))
  steps = jnp.where(finished, jnp.where(ids == PAD_ID, 0.0, -jnp.inf), steps)
  candidates = totals[..., None] + steps
  if rules.temperature:
    # The argmax of logits with Gumbel noise is a sample from their softmax.
    noise = jax.random.gumbel(jax.random.fold_in(key, position), steps.shape)
    ranks = _restrict(rules, steps / rules.temperature) + noise
  else:
    ranks = _score(rules, candidates, _lengths(tokens)[..., None] + ~finished)
  _, best = jax.lax.top_k(ranks.reshape(B, K * V), K)
  parents, chosen = best // V, best % V
  tokens = jnp.take_along_axis(tokens, parents[..., None], axis=1)
  tokens = jax.lax.dynamic_update_index_in_dim(tokens, chosen, position + 1, axis=2)
  return tokens, jnp.take_along_axis(candidates.reshape(B, K * V), best, axis=1), parents


def _restrict(rules, logits):
  """Masks logits [B, K, V] by −inf outside of `top_k` and `top_p`."""
  V = logits.shape[-1]
  if rules.top_k is not None:
    smallest = jax.lax.top_k(logits, min(rules.top_k, V))[0][..., -1:]
    logits = jnp.where(logits < smallest, -jnp.inf, logits)
  if rules.top_p < 1:
    shares = jax.nn.softmax(logits)
    falling = jnp.sort(shares, axis=-1, descending=True)
    before = jnp.cumsum(falling, axis=-1) - falling
    smallest = jnp.min(falling, axis=-1, where=before < rules.top_p, initial=1.0, keepdims=True)
    logits = jnp.where(shares < smallest, -jnp.inf, logits)
  return logits


def _finished(rules, tokens, position):
  """Whether captions [B, K] are finished: their last token is the end or padding."""
  last = tokens[:, :, position]
  return (last == rules.end_id) | (last == PAD_ID)


def _lengths(tokens):
  """Returns the number of tokens after the start, for captions [B, K, L]."""
  return jnp.sum(tokens[:, :, 1:] != PAD_ID, axis=-1)


def _score(rules, totals, lengths):
  return totals / jnp.maximum(lengths, 1).astype(jnp.float32) ** rules.length_penalty


def _is_done(rules, tokens, totals, position):
  """Whether rows [B] are done: the best beam is finished, and none can overtake it."""
  finished = _finished(rules, tokens, position)
  if rules.rerank:  # all beams are needed
    return jnp.all(finished, axis=1)
  # An upper bound: log-probabilities only decrease, and weigh least at full length.
  hopes = jnp.where(finished, -jnp.inf, _score(rules, totals, rules.max_length - 1))
  best = _score(rules, totals, _lengths(tokens))[:, 0]
  return finished[:, 0] & (best >= jnp.max(hopes, axis=1))
