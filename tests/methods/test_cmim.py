import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.methods import cmim_captions
from contrastive_jax.methods import METHODS, Sizes
from contrastive_jax.methods.latent_autoencoder import MIN_LOG_SCALE
from contrastive_jax.models.masked import cut_patches
from contrastive_jax.planning import traced_flops
from contrastive_jax.planning.loss import loss_gradient
from contrastive_jax.training import build
from tests.losses import dense
from tests.models.towers import drawn

B, W, H, L, V, D = 4, 6, 4, 5, 16, 3
SIZES = Sizes(batch=B, embed=W, image_features=W, text_features=W, tokens=L, vocabulary=V, side=H)
SMALL = {'latent': D, 'width': 8, 'layers': 1, 'attention_heads': 2, 'patch': 2}


def inputs():
  random = np.random.default_rng(0)
  tokens = random.integers(1, V, (B, L + 1))
  tokens[1:, 4:] = 0
  return {
    'image_features': random.normal(size=(B, W)).astype(np.float32),
    'pixels': random.integers(0, 256, (B, H, H, 3), np.uint8),
    'tokens': tokens,
  }


@functools.cache
def trained(decode):
  """A method, and its heads by name."""
  method = METHODS['cmim'](decode=decode, reconstruction=3.0, **SMALL)
  definitions = method.heads(SIZES)
  return method, {name: each.bind(drawn(each)) for name, each in definitions.items()}


@pytest.mark.parametrize('decode', ['pixels', 'tokens'])
def test_the_loss_is_written_out(decode):
  method, heads = trained(decode)
  without = METHODS['cmim'](decode=decode, contrast=0.0, **SMALL)  # A-MIM

  @jax.jit
  def evaluate(given, key):
    result, decoder = method.loss(given, heads, {}, key), heads['decoder']
    mean, log_scale = method.gaussian(given, heads)
    z = mean + jnp.exp(log_scale) * jax.random.normal(key, (B, D))
    if decode == 'pixels':
      x = cut_patches(given['pixels'] / 127.5 - 1, 2)
      reconstruction = jnp.mean((decoder.output(decoder(z)) - x) ** 2) / 2
    else:
      logits = decoder.output(decoder(z, given['tokens'][:, :-1]))
      reconstruction = dense.captioning(logits, given['tokens'][:, 1:])
    terms = dense.mim_contrast(z), dense.mim_densities(z, mean, log_scale), reconstruction
    totals = result.loss, without.loss(given, heads, {}, key).loss
    return totals, dict(result.metrics), jax.tree.map(jnp.mean, terms)

  (loss, a_mim), metrics, expected = evaluate(inputs(), jax.random.key(3))
  found = [metrics[name] for name in ('contrast', 'densities', 'reconstruction')]
  np.testing.assert_allclose(found, expected, rtol=1e-4)
  contrast, densities, reconstruction = map(float, expected)
  assert loss == pytest.approx(contrast + densities + 3 * reconstruction, rel=1e-4)
  assert a_mim == pytest.approx(densities + reconstruction, rel=1e-4)
  (other, _), *_ = evaluate(inputs(), jax.random.key(4))
  assert other != loss


def test_the_scale_is_bounded():
  features = np.eye(W, dtype=np.float32)
  weights = np.concatenate([np.ones((W, D)), np.full((W, D), -50.0)], 1)
  heads = {'gaussian': lambda x: x @ weights}
  mean, log_scale = METHODS['cmim']().gaussian({'image_features': features}, heads)
  np.testing.assert_array_equal(log_scale, np.full((W, D), MIN_LOG_SCALE))
  np.testing.assert_array_equal(mean, np.ones((W, D)))


def test_a_state_sees_no_later_token_and_the_embedding_no_padding():
  method, heads = trained('tokens')

  @jax.jit
  def evaluate(given, other):
    mean, _ = method.gaussian(given, heads)
    states = [heads['decoder'](mean, tokens) for tokens in (given['tokens'][:, :-1], other)]
    return *states, method.informative(given, heads)

  given = inputs()
  changed = given['tokens'][:, :-1].copy()
  changed[:, 2] = 1 + changed[:, 2] % (V - 1)
  states, others, embeddings = evaluate(given, changed)
  difference = np.abs(states - others).max((0, 2))
  assert not difference[:2].any() and difference[2:].all()
  expected = [states[n, :length].mean(0) for n, length in enumerate([L, 3, 3, 3])]
  np.testing.assert_allclose(embeddings, expected, rtol=1e-4, atol=1e-5)
  method, heads = trained('pixels')
  assert jax.eval_shape(lambda given: method.informative(given, heads), given).shape == (B, 8)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'decode': 'audio'}, r"decode = 'audio' is unknown; use one of \('pixels', 'tokens'\)"),
    ({'encode': 'audio'}, r"encode = 'audio' is unknown; use one of"),
    ({'divide': 'both'}, r"divide = 'both' is unknown"),
    ({'width': 9}, r'width = 9 does not divide over attention_heads = 2'),
    ({'patch': 3}, r'cmim\.patch = 3 does not divide the side of the images, 4 pixels'),
  ],
)
def test_options_are_checked(options, message):
  with pytest.raises(ValueError, match=message):
    METHODS['cmim'](**SMALL | options).heads(SIZES)


def test_tokens_take_a_captioner_and_the_text_may_be_encoded():
  method = METHODS['cmim'](decode='tokens', encode='text', **SMALL)
  assert method.reads == ('text_features', 'tokens')
  with pytest.raises(ValueError, match=r"takes the vocabulary of a captioner, .* 'coca'"):
    method.heads(SIZES._replace(vocabulary=0))


@pytest.mark.slow
@pytest.mark.parametrize('encode', ['image', 'text'])
def test_the_flops_of_captions_are_those_of_the_program(encode):
  config = cmim_captions.get_config('smoke')
  config.objective = {'cmim': config.objective.cmim.to_dict() | {'encode': encode}}
  run = build.build(config, jax.devices()[:1])
  gradient, arguments = loss_gradient(run)
  counted = traced_flops.traced(gradient, *arguments).total
  assert run.objective.flops(run.sizes) == pytest.approx(counted, rel=0.15)
