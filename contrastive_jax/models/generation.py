"""Captions from a decoder: greedy, beam search and sampling, in one loop over the positions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from contrastive_jax.models.coca import Coca

PAD_ID = 0


class Captions(NamedTuple):
  """What was generated for B images.

  Attributes:
    tokens: [B, L] integers, as a tokenizer writes a text: start, ids, end, then zeros. A caption
      that found no end has none.
    scores: [B] the log-probability that the model gives the tokens after the start, over their
      number to the power of `length_penalty`.
  """

  tokens: jax.Array
  scores: jax.Array


@dataclasses.dataclass(frozen=True)
class Rules:
  """How captions are chosen: greedily, unless `beams` or `temperature` says otherwise.

  Attributes:
    start_id: the first token.
    end_id: after it a caption holds padding alone.
    max_length: L, tokens of the longest caption, start and end included.
    min_length: tokens of the shortest caption, start and end included.
    beams: K, captions an image kept at each step. A finished one stays until better ones take its
      place, and the search stops where no other can overtake it.
    length_penalty: at 0 the most probable caption is the best, at 1 that of the highest mean
      log-probability of a token; in between longer captions gain.
    rerank: of the beams' captions take the one whose vector is nearest to the image's, and not the
      most probable.
    temperature: above 0, tokens are drawn from the softmax of the logits over it.
    top_k: draw among the k most probable tokens.
    top_p: draw among the most probable tokens, as few as hold this share of the probability [1].

  Raises:
    ValueError: for what cannot work, by its field.

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
      ('beams', self.beams == 1 or not self.temperature, '1 with a temperature, which draws'),
      ('rerank', self.beams > 1 or not self.rerank, 'False with one beam'),
      ('length_penalty', self.length_penalty >= 0, '0 or more'),
      ('temperature', self.temperature >= 0, '0 or more'),
      ('temperature', self.temperature > 0 or not draws, 'more than 0 with top_k or top_p'),
      ('top_k', self.top_k is None or self.top_k >= 1, '1 or more, or None'),
      ('top_p', 0 < self.top_p <= 1, 'more than 0, and at most 1'),
      ('start_id', self.start_id != PAD_ID, 'another than the padding, 0'),
      ('end_id', self.end_id not in (self.start_id, PAD_ID), 'neither start_id nor the padding, 0'),
    ):
      if not holds:
        raise ValueError(f'{field} = {getattr(self, field)}; use {works}')


def generate(model: Coca, images, *, key: jax.Array | None = None, **rules) -> Captions:
  """Captions images; compiled once for each set of rules, also when called outside `jax.jit`.

      generate(model, images, start_id=1, end_id=2)                                # greedy
      generate(model, images, start_id=1, end_id=2, beams=4)
      generate(model, images, start_id=1, end_id=2, temperature=0.7, top_p=0.9, key=key)

  Args:
    model: one that captions.
    images: [B, H, W, 3] floats, normalised.
    key: draws the tokens; needed with a temperature.
    **rules: fields of `Rules`, where `max_length` is by default what the model can read.

  Raises:
    ValueError: if the model cannot caption, or not at that length, or a rule cannot work.

  """
  if not isinstance(model, Coca):
    raise ValueError(f'model is a {type(model).__name__}, which has no captioner; use a Coca')
  if not model.text.causal:
    raise ValueError('text.causal = False: the model has learned with the next token in sight')
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
  """Which of an image's captions [B, K, L] has the vector nearest to the image's, [B]."""
  B, K, L = beams.tokens.shape
  texts = jnp.pad(beams.tokens.reshape(B * K, L), ((0, 0), (0, model.text.length - L)))
  vectors = model.encode_text(texts).reshape(B, K, -1)
  similarity = jnp.einsum('bd,bkd->bk', model.encode_image(images), vectors)
  return jnp.argmax(jnp.where(jnp.isfinite(beams.scores), similarity, -jnp.inf), axis=1)


def search(step: Callable, cache: Any, rows: int, rules: Rules, key=None) -> Captions:
  """The best of `search_beams` for each of B rows."""
  beams = search_beams(step, cache, rows, rules, key)
  return Captions(beams.tokens[:, 0], beams.scores[:, 0])


def search_beams(
  step: Callable, cache: Any, rows: int, rules: Rules, key: jax.Array | None = None
) -> Captions:
  """Captions by a decoder that is known by its steps alone: all beams', best first.

  Args:
    step: (tokens [B, K], cache, parents [B, K], position) -> (logits [B, K, V], cache), as of
      `Coca.captioner`.
    cache: of no token.
    rows: B.
    rules: how to choose.
    key: draws the tokens; needed with a temperature.

  Returns:
    Tokens [B, K, L] and scores [B, K].

  Raises:
    ValueError: if the key is missing.
  """
  if rules.temperature and key is None:
    raise ValueError(f'temperature = {rules.temperature} draws, and key = None; give a random key')
  K, L = rules.beams, rules.max_length
  tokens = jnp.zeros((rows, K, L), jnp.int32).at[:, :, 0].set(rules.start_id)
  # All beams begin alike: the first alone may go on, or they would stay alike.
  totals = jnp.broadcast_to(jnp.where(jnp.arange(K) == 0, 0.0, -jnp.inf), (rows, K))
  parents = jnp.zeros((rows, K), jnp.int32)

  def unsettled(carry):
    position, tokens, totals, _, _ = carry
    return (position < L - 1) & ~jnp.all(_settled(rules, tokens, totals, position))

  def advance(carry):
    position, tokens, totals, parents, cache = carry
    logits, cache = step(tokens[:, :, position], cache, parents, position)
    tokens, totals, parents = _choose(rules, key, tokens, totals, logits, position)
    return position + 1, tokens, totals, parents, cache

  start = (jnp.int32(0), tokens, totals, parents, cache)
  _, tokens, totals, _, _ = jax.lax.while_loop(unsettled, advance, start)
  return Captions(tokens, _score(rules, totals, _lengths(tokens)))


def _choose(rules, key, tokens, totals, logits, position):
  """The K best of the captions [B, K, L] that go on by a token, best first, and their parents."""
  B, K, V = logits.shape
  ids, finished = jnp.arange(V), _finished(rules, tokens, position)[..., None]
  # The losses skip padding, so that a model knows nothing of its probability.
  allowed = (ids != PAD_ID) & ((ids != rules.end_id) | (position + 2 >= rules.min_length))
  steps = jax.nn.log_softmax(jnp.where(allowed, logits.astype(jnp.float32), -jnp.inf))
  steps = jnp.where(finished, jnp.where(ids == PAD_ID, 0.0, -jnp.inf), steps)
  candidates = totals[..., None] + steps
  if rules.temperature:
    # The largest of log-probabilities with Gumbel noise is a draw from the softmax.
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
  """Logits [B, K, V], −inf but for the tokens that `top_k` and `top_p` leave."""
  V = logits.shape[-1]
  if rules.top_k is not None:
    least = jax.lax.top_k(logits, min(rules.top_k, V))[0][..., -1:]
    logits = jnp.where(logits < least, -jnp.inf, logits)
  if rules.top_p < 1:
    shares = jax.nn.softmax(logits)
    falling = jnp.sort(shares, axis=-1, descending=True)
    before = jnp.cumsum(falling, axis=-1) - falling
    least = jnp.min(falling, axis=-1, where=before < rules.top_p, initial=1.0, keepdims=True)
    logits = jnp.where(shares < least, -jnp.inf, logits)
  return logits


def _finished(rules, tokens, position):
  """Which captions [B, K] hold the end: their last token is that, or padding."""
  last = tokens[:, :, position]
  return (last == rules.end_id) | (last == PAD_ID)


def _lengths(tokens):
  """Tokens after the start of captions [B, K, L]."""
  return jnp.sum(tokens[:, :, 1:] != PAD_ID, axis=-1)


def _score(rules, totals, lengths):
  return totals / jnp.maximum(lengths, 1).astype(jnp.float32) ** rules.length_penalty


def _settled(rules, tokens, totals, position):
  """Which rows [B] have their caption: it is finished, and no other beam can overtake it."""
  finished = _finished(rules, tokens, position)
  if rules.rerank:  # All of them count.
    return jnp.all(finished, axis=1)
  # A log-probability falls with each token, and weighs least at full length.
  hopes = jnp.where(finished, -jnp.inf, _score(rules, totals, rules.max_length - 1))
  best = _score(rules, totals, _lengths(tokens))[:, 0]
  return finished[:, 0] & (best >= jnp.max(hopes, axis=1))
