"""Laws of generation: a cache changes nothing, and each search finds what it is defined to find."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from contrastive_jax.models.generation import Rules, generate, search
from tests.doubles import slow_but
from tests.models.towers import TEXT, batch_of, drawn, tiny, tiny_coca

START, END = 1, 2
LENGTH, VOCABULARY = TEXT['length'], TEXT['vocabulary']
SCAN = {'layers': 2, 'scan': True}
VARIANTS = {
  'cascade': {},
  'parallel': {'pooler': 'parallel', 'decoder': {'mlps': 2, 'layers': 1}},
  'shared': {'pooler': 'shared', 'text': {'shift_mask': True, **SCAN}, 'decoder': SCAN},
}
BEAMS = {'beams': 3, 'length_penalty': 0.7}
ROWS, L, V = 12, 4, 5  # of the toy decoder


@functools.cache
def model(name='cascade'):
  definition = tiny_coca(**VARIANTS[name])
  return definition.bind(drawn(definition))


@pytest.mark.parametrize('name', slow_but(VARIANTS, 'cascade'))
def test_cached_logits_equal_uncached_ones(name):
  images, _ = batch_of(size=2)
  random = np.random.default_rng(0)
  tokens = jnp.array(random.integers(1, VOCABULARY, (LENGTH - 1, 2, 2)))
  parents = jnp.array(random.integers(0, 2, (LENGTH - 1, 2, 2)))

  @jax.jit
  def both(parameters):
    module = nnx.merge(graph, parameters)
    step, cache = module.captioner(images, beams=2, length=LENGTH)

    def advance(carry, inputs):
      cache, texts = carry
      position, tokens, parents = inputs
      # Each text goes on from either of the two before, in the cache and in plain sight.
      texts = jnp.take_along_axis(texts, parents[..., None], axis=1).at[:, :, position].set(tokens)
      logits, cache = step(tokens, cache, parents, position)
      return (cache, texts), (logits, texts)

    positions = jnp.arange(LENGTH - 1)
    texts = jnp.ones((2, 2, LENGTH), jnp.int32)
    _, (cached, texts) = jax.lax.scan(advance, (cache, texts), (positions, tokens, parents))
    texts = texts.transpose(1, 2, 0, 3).reshape(-1, LENGTH)
    whole = module(jnp.repeat(images, len(texts) // 2, axis=0), texts).caption_logits
    whole = whole.reshape(2, 2, LENGTH - 1, LENGTH - 1, VOCABULARY)
    return cached, whole[:, :, positions, positions].transpose(2, 0, 1, 3)

  graph, parameters = nnx.split(model(name))
  cached, whole = both(parameters)
  assert np.ptp(whole, axis=(0, 1, 2)).min() > 0.1
  np.testing.assert_allclose(cached, whole, rtol=1e-3, atol=1e-4)


def test_cached_captions_of_a_batch_equal_uncached_ones_one_by_one():
  images, _ = batch_of(size=6)
  graph, parameters = nnx.split(model())
  rules = Rules(START, END, max_length=LENGTH - 1, beams=3, length_penalty=1.0)

  @jax.jit
  def one_by_one(parameters, image):
    module = nnx.merge(graph, parameters)

    def step(tokens, texts, parents, position):
      texts = jnp.take_along_axis(texts, parents[..., None], axis=1).at[:, :, position].set(tokens)
      whole = module(jnp.repeat(image[None], 3, axis=0), jnp.pad(texts[0], ((0, 0), (0, 1))))
      return whole.caption_logits[None, :, position], texts

    return search(step, jnp.zeros((1, 3, rules.max_length), jnp.int32), 1, rules)

  batch = jax.jit(lambda parameters: generate(nnx.merge(graph, parameters), images, **vars(rules)))(
    parameters
  )
  assert len(np.unique(batch.tokens, axis=0)) > 2
  for image, tokens, score in zip(images, *batch, strict=True):
    expected = one_by_one(parameters, image)
    np.testing.assert_array_equal(expected.tokens[0], tokens)
    np.testing.assert_allclose(expected.scores[0], score, rtol=1e-3)


TABLES = 2 * np.random.default_rng(0).normal(size=(ROWS, L, L, V, V)).astype(np.float32)


def toy(tables=TABLES):
  """A decoder whose logits hang on the row, the position, and each token so far: its cache."""

  def step(tokens, texts, parents, position):
    texts = jnp.take_along_axis(texts, parents[..., None], axis=1).at[:, :, position].set(tokens)
    seen = jax.nn.one_hot(texts, V) * (jnp.arange(L) <= position)[:, None]
    return jnp.einsum('bklv,blvw->bkw', seen, jnp.asarray(tables)[:, position]), texts

  return step


@functools.cache
def searched(*, key=None, rows=range(ROWS), alike=None, length=L, **rules):
  """Captions by the toy decoder; with `alike`, of so many rows that are all the first."""
  tables = (
    TABLES[list(rows)] if alike is None else np.broadcast_to(TABLES[:1], (alike, *TABLES.shape[1:]))
  )
  rules = Rules(START, END, length, **rules)
  cache = jnp.zeros((len(tables), rules.beams, L), jnp.int32)
  # Draws of this generator compile faster than those of the default one.
  key = None if key is None else jax.random.key(key, impl='unsafe_rbg')
  return jax.device_get(jax.jit(lambda: search(toy(tables), cache, len(tables), rules, key))())


def log_probabilities(row, text, min_length=0):
  """[V] of what follows a text, in float64."""
  position = len(text) - 1
  logits = sum(
    TABLES[row, position, place, token].astype(float) for place, token in enumerate(text)
  )
  logits[0] = -np.inf
  if position + 2 < min_length:
    logits[END] = -np.inf
  return logits - np.log(np.sum(np.exp(logits)))


def every_caption(row, text=(START,), total=0.0, min_length=0):
  """All captions that go on from a text, with their log-probabilities."""
  if len(text) == L or (text[-1] == END and len(text) > 1):
    yield text, total
    return
  for token, step in enumerate(log_probabilities(row, text, min_length)):
    if step > -np.inf:
      yield from every_caption(row, (*text, token), total + step, min_length)


def padded(text):
  return [*text, *[0] * (L - len(text))]


@pytest.mark.parametrize(('length_penalty', 'min_length'), [(0.0, 3), (0.6, 0), (1.0, 4)])
def test_enough_beams_find_the_best_of_all_captions(length_penalty, min_length):
  found = searched(beams=64, length_penalty=length_penalty, min_length=min_length)
  lengths = set()
  for row in range(ROWS):
    scores = {
      text: total / (len(text) - 1) ** length_penalty
      for text, total in every_caption(row, min_length=min_length)
    }
    best = max(scores, key=scores.get)
    lengths.add(len(best))
    assert found.tokens[row].tolist() == padded(best)
    assert found.scores[row] == pytest.approx(scores[best], rel=1e-4)
  assert lengths <= set(range(max(2, min_length), L + 1)) and (len(lengths) > 1 or min_length == L)


@pytest.mark.slow
def test_reranking_takes_the_caption_nearest_to_the_image():
  """With beams for all captions of a tiny vocabulary: the nearest of all that can be written."""
  definition = tiny_coca(text={'vocabulary': 5, 'length': 4})
  model = definition.bind(drawn(definition))
  images = batch_of(text={'vocabulary': 5, 'length': 4})[0]
  rules = {'start_id': 1, 'end_id': 2, 'beams': 32, 'max_length': 3}
  found = generate(model, images, rerank=True, **rules).tokens
  # A start, and an end at once or after one token; what is cut off has no end.
  texts = np.array([[1, 2, 0, 0], *([1, a, b, 0] for a in (1, 3, 4) for b in (1, 2, 3, 4))])
  similarity = model.encode_image(images) @ model.encode_text(texts).T
  np.testing.assert_array_equal(found, texts[np.argmax(similarity, axis=1)][:, :3])
  assert not np.array_equal(found, generate(model, images, **rules).tokens)


def test_more_beams_find_what_one_misses():
  best, greedy = searched(beams=64), searched()
  assert (best.scores >= greedy.scores - 1e-5).all()
  assert (best.scores > greedy.scores + 1e-3).any()


@pytest.mark.parametrize(
  'rules',
  [
    {'beams': 1},
    {'temperature': 1.0, 'top_k': 1, 'key': 0},
    {'temperature': 1.0, 'top_p': 1e-6, 'key': 0},
    {'temperature': 1e-4, 'key': 0},
  ],
)
def test_what_leaves_no_choice_takes_the_most_probable_token(rules):
  found = searched(**rules)
  for row in range(ROWS):
    text, total = (START,), 0.0
    while len(text) < L and (text[-1] != END or len(text) == 1):
      steps = log_probabilities(row, text)
      text, total = (*text, int(np.argmax(steps))), total + np.max(steps)
    assert found.tokens[row].tolist() == padded(text)
    assert found.scores[row] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
  ('temperature', 'top_k', 'top_p'), [(1.0, None, 1.0), (2.0, 3, 1.0), (1.5, None, 0.8)]
)
def test_samples_are_as_frequent_as_the_softmax_says(temperature, top_k, top_p):
  draws = 20_000
  found = searched(alike=draws, key=0, temperature=temperature, top_k=top_k, top_p=top_p)

  def shares(text):
    share = np.exp(log_probabilities(0, text) / temperature)
    share /= share.sum()
    falling = np.sort(share)[::-1]
    kept = falling[: top_k or V]
    kept = kept[: 1 + np.sum(np.cumsum(kept / kept.sum()) < top_p)]
    share[share < kept[-1]] = 0
    return share / share.sum()

  first = found.tokens[:, 1]
  follower = int(np.argmax(np.bincount(first[first != END])))
  second = found.tokens[first == follower, 2]
  for tokens, expected in ((first, shares((START,))), (second, shares((START, follower)))):
    counts = np.bincount(tokens, minlength=V)
    deviation = np.sqrt(len(tokens) * expected * (1 - expected))
    assert len(tokens) > 1000 and (expected > 0).sum() > 1
    assert np.all(np.abs(counts - len(tokens) * expected) <= 4.5 * deviation)


@pytest.mark.parametrize(
  'rules',
  [{}, {'min_length': 3}, BEAMS, {'temperature': 1.5, 'key': 1}, {'length': 3}],
  ids=str,
)
def test_a_caption_begins_ends_once_and_is_padded(rules):
  found = searched(**rules)
  length, least = rules.get('length', L), rules.get('min_length', 0)
  ends = set()
  for row in found.tokens:
    end = row[1:].tolist().index(END) + 2 if END in row[1:] else length
    ends.add(end)
    assert len(row) == length and row[0] == START
    assert end >= least and (row[:end] != 0).all() and (row[end:] == 0).all()
  # Some rows are finished while others go on.
  assert len(ends) > 1


@pytest.mark.parametrize('rules', [{}, BEAMS], ids=str)
def test_a_row_does_not_change_with_the_others(rules):
  together = searched(**rules)
  alone = searched(rows=range(1, 3), **rules)
  np.testing.assert_array_equal(alone.tokens, together.tokens[1:3])
  np.testing.assert_allclose(alone.scores, together.scores[1:3], rtol=1e-5)


@pytest.mark.parametrize(
  ('rules', 'message'),
  [
    ({'max_length': 1}, 'max_length = 1'),
    ({'max_length': LENGTH + 1}, f'max_length = {LENGTH + 1} .* text.length = {LENGTH}'),
    ({'min_length': LENGTH + 1}, f'min_length = {LENGTH + 1}; use at most max_length {LENGTH}'),
    ({'rerank': True}, 'rerank = True; use False with one beam'),
    ({'beams': 0}, 'beams = 0'),
    ({'beams': 2, 'temperature': 1.0}, 'beams = 2; use 1 with a temperature'),
    ({'length_penalty': -1.0}, 'length_penalty = -1'),
    ({'temperature': -1.0}, 'temperature = -1'),
    ({'temperature': 1.0}, 'key = None'),
    ({'top_k': 3}, 'temperature = 0.0; use more than 0 with top_k'),
    ({'temperature': 1.0, 'top_k': 0}, 'top_k = 0'),
    ({'temperature': 1.0, 'top_p': 0.0}, 'top_p = 0'),
    ({'temperature': 1.0, 'top_p': 1.1}, 'top_p = 1.1'),
    ({'start_id': 0}, 'start_id = 0'),
    ({'end_id': START}, 'end_id = 1'),
  ],
)
def test_a_rule_that_cannot_work_is_named(rules, message):
  images, _ = batch_of(size=1)
  with pytest.raises(ValueError, match=message):
    generate(model(), images, **{'start_id': START, 'end_id': END} | rules)


@pytest.mark.parametrize(
  ('definition', 'message'),
  [(tiny(), 'Clip, which has no captioner'), (tiny_coca(text={'causal': False}), 'text.causal')],
  ids=['clip', 'bidirectional'],
)
def test_a_model_that_cannot_caption_is_refused(definition, message):
  parameters = definition.shapes
  with pytest.raises(ValueError, match=message):
    generate(definition.bind(parameters), batch_of()[0], start_id=START, end_id=END)
