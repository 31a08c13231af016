import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from contrastive_jax import losses, methods
from contrastive_jax.methods import METHODS, Objective
from contrastive_jax.methods.lift import stateless
from contrastive_jax.methods.method import Sizes
from contrastive_jax.models.outputs import Outputs
from contrastive_jax.planning import traced_flops
from contrastive_jax.planning.loss import loss_gradient
from contrastive_jax.training import build
from tests.losses import reference
from tests.methods import laws

OUTPUTS = Outputs(image=jnp.eye(4), text=jnp.eye(4), scale=jnp.float32(2.0))
BATCH = {'image': jnp.zeros((4, 8, 8, 3), jnp.uint8), 'tokens': jnp.ones((4, 3), int)}


def evaluate(weights, outputs=OUTPUTS, batch=BATCH, **options):
  """The loss and the metrics of a whole batch."""
  objective = Objective(weights, **options)
  objective.check(outputs, batch)
  loss, _, metrics = objective(outputs, {'step': jnp.int32(0)} | batch)
  return loss, metrics


def test_one_term_is_the_loss():
  loss, metrics = evaluate({'info_nce': 1.0})
  assert loss == losses.info_nce(OUTPUTS.image, OUTPUTS.text, scale=2.0)
  assert metrics == {'loss': loss}


def test_label_smoothing_is_an_option_whose_flops_are_counted():
  options = {'weight': 2.0, 'label_smoothing': 0.2}
  loss, _ = evaluate({'info_nce': options})
  plain = losses.info_nce(OUTPUTS.image, OUTPUTS.text, scale=2.0, label_smoothing=0.2)
  assert loss == pytest.approx(2 * float(plain))
  config = ConfigDict(laws.config_of(('info_nce',)).to_dict())
  config.batch_size, config.objective = 256, ConfigDict({'info_nce': options})
  run = build.build(config, jax.devices()[:1])
  gradient, arguments = loss_gradient(run)
  counted = traced_flops.traced(gradient, *arguments).total
  assert run.objective.flops(run.sizes) == pytest.approx(counted, rel=0.15)


def test_terms_are_weighted_and_each_is_a_metric(monkeypatch):
  term = stateless(lambda tokens: tokens.sum(), tokens='tokens')
  monkeypatch.setitem(METHODS, 'tokens_written', term)
  loss, metrics = evaluate({'info_nce': 2.0, 'tokens_written': 0.5})
  assert metrics['tokens_written'] == 12
  assert loss == pytest.approx(2 * metrics['info_nce'] + 6)


def test_a_weight_follows_a_schedule():
  schedule = ((0, 1.0), (10, 3.0))
  plain, _ = evaluate({'info_nce': 1.0})
  for step, weight in ((0, 1.0), (5, 2.0), (10, 3.0), (99, 3.0)):
    loss, _ = evaluate({'info_nce': schedule}, batch=BATCH | {'step': jnp.int32(step)})
    assert loss == pytest.approx(weight * float(plain))


def test_equal_captions_reach_the_loss():
  batch = BATCH | {'same': jnp.zeros(4, int)}
  loss, _ = evaluate({'info_nce': 1.0}, batch=batch)
  assert loss == pytest.approx(0, abs=1e-6)
  loss, _ = evaluate({'sigmoid': 1.0}, OUTPUTS.replace(bias=jnp.float32(0)), batch)
  assert loss == pytest.approx(float(jnp.log1p(jnp.exp(-2.0))))


def test_an_option_of_none_leaves_out_what_the_batch_gives():
  batch, outputs = BATCH | {'same': jnp.zeros(4, int)}, OUTPUTS.replace(bias=jnp.float32(-1))
  loss, _ = evaluate({'sigmoid': {'weight': 1.0, 'same': None}}, outputs, batch)
  assert loss == losses.sigmoid(outputs.image, outputs.text, scale=2.0, bias=-1.0)


def test_losses_of_tokens_add_up_over_parts_each_without_its_own_padding():
  tokens = jnp.array([[9, 1, 1, 0], [9, 2, 0, 0], [9, 1, 1, 1], [9, 3, 2, 1]])
  keys = jax.random.split(jax.random.key(0), 3)
  outputs = OUTPUTS.replace(
    caption_logits=jax.random.normal(keys[0], (4, 3, 7)),
    hidden=jax.random.normal(keys[1], (4, 3, 5)),
    vocabulary=jax.random.normal(keys[2], (7, 5)),
  )
  weighted = Objective(
    {
      'captioning': {'weight': 1.0, 'pad_id': 1},
      'captioning_streamed': {'weight': 1.0, 'pad_id': 2},
    }
  )

  @jax.jit
  def values(outputs, tokens):
    totals = weighted.totals({'tokens': tokens})
    found = [weighted.partial(outputs, {'tokens': tokens}, totals)]
    for rows in (slice(0, 2), slice(2, 4)):
      logits, hidden = outputs.caption_logits[rows], outputs.hidden[rows]
      part = outputs.replace(caption_logits=logits, hidden=hidden)
      found.append(weighted.partial(part, {'tokens': tokens[rows]}, totals))
    expected = losses.captioning(outputs.caption_logits, tokens[:, 1:], pad_id=1)
    return expected, *({name: each.loss for name, each in part.items()} for part in found)

  expected, whole, *parts = values(outputs, tokens)
  assert whole['captioning'] == pytest.approx(float(expected), rel=1e-6)
  for name, result in whole.items():
    assert parts[0][name] + parts[1][name] == pytest.approx(float(result), rel=1e-6), name


def test_options_reach_the_losses():
  loss, _ = evaluate({'info_nce': 1.0}, kernel='pallas', block_size=128)
  expected = losses.info_nce(OUTPUTS.image, OUTPUTS.text, scale=2.0)
  assert loss == pytest.approx(float(expected), rel=1e-6)
  with pytest.raises(ValueError, match=r"kernel = 'cuda'; use 'scan' or 'pallas'"):
    evaluate({'info_nce': 1.0}, kernel='cuda')


def test_a_loss_takes_options_of_its_own():
  own = {'weight': 2.0, 'scale': 5.0}
  loss, metrics = evaluate({'info_nce': own, 'alignment': 1.0})
  expected = losses.info_nce(OUTPUTS.image, OUTPUTS.text, scale=5.0)
  assert metrics['info_nce'] == expected
  assert loss == pytest.approx(2 * expected + metrics['alignment'])
  assert own == {'weight': 2.0, 'scale': 5.0}


@pytest.mark.parametrize('option', ['image', 'mesh', 'strategies', 'text'])
def test_unknown_options_are_named(option):
  message = rf"config\.objective\.info_nce\.{option} is unknown; use weight and some of .*'scale'"
  with pytest.raises(ValueError, match=message):
    Objective({'info_nce': {'weight': 1.0, option: 1}})
  with pytest.raises(ValueError, match=r"info_nce = \{'scale': 1.0\} has no weight"):
    Objective({'info_nce': {'scale': 1.0}})


def test_the_step_ends_a_burn_in():
  own = {'weight': 1.0, 'burn_in': 5, 'temperature': 0.1}
  outputs = OUTPUTS.replace(image=jnp.eye(4)[jnp.array([1, 0, 2, 3])] / 2)
  plain, _ = evaluate({'info_nce': 1.0}, outputs)
  early, late = (
    evaluate({'reweighted_info_nce': own}, outputs, BATCH | {'step': jnp.int32(n)})[0]
    for n in (4, 5)
  )
  assert early == pytest.approx(float(plain))
  assert late > 1.1 * plain


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('captioning', "needs 'caption_logits', which the model does not give"),
    ('captioning_streamed', "needs 'hidden', which the model does not give"),
    ('sigmoid', "needs 'bias', which the model does not give"),
    ('supervised', "needs 'labels', which the batch does not give; set config.data.labels"),
    (
      'composition_aware',
      r'reads wrong .*at least 1, and config\.data\.negatives = 0; use 1 or more',
    ),
    ('modular', r'reads 2 texts of an example, and config\.texts = 1; use 2'),
    ('nt_xent', r'compares 2 views of an image, and config\.views = 1; use 2'),
  ],
)
def test_what_a_method_lacks_is_named(name, message):
  with pytest.raises(ValueError, match=rf'config\.objective\.{name} {message}'):
    evaluate({name: 1.0})


def test_unknown_methods_are_named():
  with pytest.raises(ValueError, match=r'config\.objective\.info is unknown.*info_nce'):
    Objective({'info': 1.0})
  with pytest.raises(ValueError, match=r'config\.objective is empty'):
    Objective({})


def test_every_pure_loss_has_a_name():
  """A loss in no config's reach is lost."""
  functions = {name for name in losses.__all__ if callable(getattr(losses, name))}
  per_example = {name for name in functions if name.endswith('_per_example')}
  # Those of methods.
  parts = {
    'count_tokens',
    'volume',
    'barlow_twins',
    'swapped_assignment',
    'groco',
    'mixup_info_nce',
  }
  parts |= {'teacher_entropy', 'distillation', 'interactive_distillation'}
  parts |= {'mim_contrast', 'mim_densities', 'patch_errors', 'patch_ranking'}
  # Those of tasks, which read more than a batch's embeddings.
  parts |= {
    'hpcr',
    'm_ndcg',
    'mrl',
    'pcr',
    'proto_triplet',
    'proxy_anchor',
    'restoration',
    'tracks',
  }
  assert functions - per_example - parts <= set(methods.names())


def test_a_loss_of_views_contrasts_modalities_by_name():
  names, rng = ('image', 'text', 'text.1'), np.random.default_rng(0)
  image, texts = reference.unit(rng, 4, 8), reference.unit(rng, 4, 2, 8)
  outputs = Outputs(image=image, text=texts[:, 0], texts=texts)
  objective = Objective({'mv_dhel': {'weight': 1.0, 'scale': 5.0, 'views': [*names]}})
  assert objective.reads == sorted(names)
  loss, *_ = objective(outputs, {})
  expected = losses.mv_dhel(jnp.stack([image, texts[:, 0], texts[:, 1]], 1), scale=5.0)
  assert loss == pytest.approx(float(expected), rel=1e-6)
  sizes = Sizes(batch=4, embed=8, views=3)
  assert objective.flops(sizes._replace(views=1)) == Objective({'mv_dhel': 1.0}).flops(sizes)


@pytest.mark.parametrize('names', [('image',), ('image', 'text', 'image'), ('image', 'labels')])
def test_wrong_modalities_are_refused(names):
  with pytest.raises(ValueError, match=r"config\.objective\.mv_dhel: views = .*'image', 'second'"):
    Objective({'mv_dhel': {'weight': 1.0, 'views': names}})
