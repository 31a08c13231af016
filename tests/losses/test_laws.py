"""Laws that every public loss obeys; a loss without a case fails."""

import dataclasses
import doctest
import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from contrastive_jax import losses
from tests.losses import dense, reference

PUBLIC = sorted(name for name in losses.__all__ if callable(getattr(losses, name)))
MEANS = [name for name in PUBLIC if f'{name}_per_example' in PUBLIC]


@dataclasses.dataclass
class Case:
  """How to call a loss, and what it is."""

  dense: Callable[..., jax.Array]  # the same in whole matrices
  draw: Callable[[int], dict[str, Any]]  # arguments for a batch size; floats are differentiable
  options: dict[str, Any] = dataclasses.field(default_factory=dict)  # static, of both
  names: tuple[str, ...] = ()  # of the arguments by position
  slow: bool = False  # whether its long sums are tested weekly, as others are made of the same
  own: bool = False  # whether the case of a mean takes another way than that of its values
  # How to break the shape of an argument, where one row less does not; None: any shape will do.
  malformed: dict[str, Callable | None] = dataclasses.field(default_factory=dict)


def pairs(size, names=('image', 'text'), **numbers):
  """Pairs, or more modalities, that resemble each other, and the scalars of a loss."""
  rng = np.random.default_rng(size)
  first = reference.unit(rng, size, 8)
  others = [first + reference.unit(rng, size, 8) for _ in names[1:]]
  others = [other / np.linalg.norm(other, axis=1, keepdims=True) for other in others]
  return dict(zip(names, (first, *others), strict=True)) | jax.tree.map(np.float32, numbers)


def views(size, **numbers):
  return pairs(size, ('first', 'second'), **numbers)


def clustered(size):
  """Three views of each example, and prototypes."""
  given = pairs(size, ('a', 'b', 'c'), scale=5)
  stacked = np.stack([given.pop(name) for name in 'abc'], 1)
  prototypes = reference.unit(np.random.default_rng(1), 8, 8)
  return given | {'views': stacked, 'prototypes': prototypes}


def several(size, **numbers):
  """Three views of each example that resemble each other."""
  given = pairs(size, MODALITIES[:3], **numbers)
  return {'views': np.stack([given.pop(name) for name in MODALITIES[:3]], 1)} | given


def with_targets(size):
  """Pairs, and other views of them."""
  other = pairs(size, ('image_target', 'text_target'))
  return pairs(size, scale=5) | jax.tree.map(lambda a: np.roll(a, 1, axis=1), other)


def repeated(size, **numbers):
  """Pairs of which some share a caption."""
  same = np.random.default_rng(0).integers(0, size - size // 4, size)
  return pairs(size, **numbers) | {'same': same}


def soft(size, **numbers):
  """Pairs, and embeddings of another width whose similarities are their targets."""
  targets = reference.unit(np.random.default_rng(1), size, 4)
  return repeated(size, **numbers) | {'targets': targets}


def corrected(size, **numbers):
  """Pairs with wrong captions, of which some images have none."""
  rng = np.random.default_rng(1)
  negatives, valid = reference.unit(rng, size, 3, 8), rng.random((size, 3)) < 0.7
  valid[:2] = False
  return repeated(size, **numbers) | {'negatives': negatives, 'valid': valid}


def composed(size, **numbers):
  """Images with two captions, of which some are equal, and wrong ones."""
  given = corrected(size, **numbers)
  texts = np.stack([given.pop('text'), reference.unit(np.random.default_rng(2), size, 8)], 1)
  same = given['same'][:, None] + size * np.arange(2)
  same[::3, 1] = same[::3, 0]
  return given | {'texts': texts, 'same': same}


def taught(size, width=6, **numbers):
  """Pairs of a student and of a teacher of another width."""
  teacher = pairs(size + 1, ('teacher_image', 'teacher_text'))
  teacher = {name: a[:size, :width] for name, a in teacher.items()}
  unit = {name: a / np.linalg.norm(a, axis=1, keepdims=True) for name, a in teacher.items()}
  return pairs(size, **numbers) | unit


def scaled(size):
  return taught(size, scale=5, teacher_scale=4)


def mixtures(size, **numbers):
  """Pairs, and partners of which some are the rows themselves."""
  rng = np.random.default_rng(0)
  partner = rng.permutation(size)
  partner[: size // 4] = np.arange(size // 4)
  share = rng.beta(0.5, 0.5, size).astype('f')
  return pairs(size, ('mixed', 'other'), **numbers) | {'partner': partner, 'share': share}


def pixels(size, **numbers):
  """Pixels of two crops of several images, some of which do not overlap."""
  rng = np.random.default_rng(0)
  prediction, target = reference.unit(rng, 2, size, 4, 8)
  positive = (rng.random((size, 4, 4)) < 0.3) & (np.arange(size) % 4 > 0)[:, None, None]
  given = {'prediction': prediction, 'target': target, 'positive': positive}
  return given | jax.tree.map(np.float32, numbers)


def classes(size):
  """Embeddings of which a few have no positive."""
  labels = np.random.default_rng(0).integers(0, size // 4, size)
  labels[: size // 8] = size + np.arange(size // 8)
  embeddings = reference.unit(np.random.default_rng(0), size, 8)
  return {'embeddings': embeddings, 'classes': labels, 'scale': np.float32(5)}


def proxied(size):
  """Embeddings with classes, and proxies of more classes."""
  rng = np.random.default_rng(3)
  drawn = {'embeddings': reference.unit(rng, size, 8), 'classes': rng.integers(0, 5, size)}
  return drawn | {'proxies': reference.unit(rng, 7, 8), 'scale': np.float32(5)}


def queried(size):
  """Queries of four classes, and prototypes."""
  given = classes(size)
  labels, prototypes = given['classes'] % 4, reference.unit(np.random.default_rng(1), 4, 8)
  return {'queries': given['embeddings'], 'labels': labels, 'prototypes': prototypes}


def quartered(size):
  """Embeddings of four classes."""
  return {'embeddings': classes(size)['embeddings'], 'classes': np.arange(size) % 4}


def tracked(size):
  """Contrastive items, of which some positives and negatives do not count."""
  rng = np.random.default_rng(0)
  given = {'anchors': rng.normal(size=(size, 8)).astype('f')}
  for name, count in (('positive', 2), ('negative', 5)):
    given[f'{name}s'] = rng.normal(size=(size, count, 8)).astype('f')
    given[f'{name}_valid'] = rng.random((size, count)) < 0.6
  return given


def restored(size):
  """Feature maps of restored images, sharp ones and blurred ones."""
  rng = np.random.default_rng(0)
  counts = {'features': (), 'positives': (2,), 'negatives': (3,)}
  return {name: rng.normal(size=(*n, size, 2, 3, 4)).astype('f') for name, n in counts.items()}


def labeled(size):
  """Embeddings of a few classes."""
  drawn = classes(size)
  return {'embeddings': drawn['embeddings'], 'classes': drawn['classes']}


def mixed_classes(size):
  """Mixtures of two classes, and anchors."""
  rng = np.random.default_rng(1)
  return {
    'embeddings': reference.unit(rng, size, 8),
    'classes': rng.integers(0, size // 4, (size, 2)),
    'share': rng.beta(2, 2, size).astype('f'),
    'anchors': reference.unit(rng, size, 8),
    'anchor_classes': rng.integers(0, size // 4, size),
  }


def mixed_proxied(size):
  """Mixtures of two classes, and a proxy per class."""
  given = mixed_classes(size)
  given['proxies'] = given.pop('anchors')[:8]
  given['classes'] = given['classes'] % 8
  return {name: a for name, a in given.items() if name != 'anchor_classes'}


def latents(size, names=('latents',), **numbers):
  """Latents of any length, or with the parameters of their Gaussians."""
  drawn = np.random.default_rng(0).normal(size=(len(names), size, 8)).astype('f')
  return dict(zip(names, drawn, strict=True)) | jax.tree.map(np.float32, numbers)


def numbered(size):
  """Embeddings with numbers, of which a few have no positive, and shares."""
  rng = np.random.default_rng(0)
  numbers = rng.integers(0, size // 4, size)
  numbers[: size // 8] = 3 * size * np.arange(1, 1 + size // 8)
  shares = rng.beta(2, 8, size).astype('f')
  embeddings = reference.unit(rng, size, 8)
  return {'embeddings': embeddings, 'numbers': numbers, 'shares': shares, 'scale': np.float32(3)}


def ranked(size):
  """Logits of examples, of three mixtures of each, and the shares of these."""
  rng = np.random.default_rng(0)
  given = {'logits': rng.normal(size=(size, 5)), 'mixed': rng.normal(size=(3, size, 5))}
  shares = np.where(rng.random((3, size)) < 0.2, 1, rng.uniform(0.5, 1, (3, size)))
  return jax.tree.map(np.float32, given | {'shares': shares})


def patches(size, names=('predicted', 'patches'), shape=(3, 8)):
  """Two arrays of patches of each image."""
  drawn = np.random.default_rng(0).normal(size=(2, size, *shape)).astype('f')
  return dict(zip(names, drawn, strict=True))


def tokens(size):
  """Labels of which most are one word, and some padding."""
  rng = np.random.default_rng(0)
  labels = np.where(rng.random((size, 4)) < 0.6, 2, rng.integers(0, 16, (size, 4)))
  return {'labels': labels}


def logits(size):
  return tokens(size) | {'logits': np.random.default_rng(1).normal(size=(size, 4, 16)).astype('f')}


def hidden(size):
  rng = np.random.default_rng(2)
  states = (1 + rng.normal(size=(size, 4, 8))).astype('f')
  vocabulary = (0.1 * rng.normal(size=(16, 8))).astype('f')
  return tokens(size) | {'hidden': states, 'vocabulary': vocabulary}


def mean(function):
  return lambda *arguments, **named: jnp.mean(function(*arguments, **named))


def by_position(function, names):
  """The function with the arguments of these names by position."""
  return lambda **given: function(*[given.pop(name) for name in names], **given)


draw = functools.partial
MODALITIES = ('anchor', 'first', 'second', 'third')
CLUSTERS = dict.fromkeys(('views', 'prototypes'), lambda a: a[..., :-1])
SIDES = ('positives', 'negatives')
PROXIES = {'proxies': lambda a: a[:, :-1]}
OF_VIEWS = {'malformed': {'views': lambda a: a[:, :1]}}
OF_LATENTS = {'malformed': {'latents': lambda a: a[0]}}
GAUSSIAN = ('latents', 'mean', 'log_scale')
CASES = {
  'alignment': Case(mean(dense.alignment), pairs),
  'alignment_per_example': Case(dense.alignment, pairs),
  'averaged_nt_xent': Case(dense.averaged_nt_xent, draw(several, scale=5), slow=True, **OF_VIEWS),
  'barlow_twins': Case(dense.barlow_twins, views, {'off_diagonal': 0.1}),
  'cacr': Case(mean(dense.cacr), several, {'stop_weights': True}, slow=True, own=True, **OF_VIEWS),
  'cacr_per_example': Case(
    dense.cacr,
    several,
    {'alpha': 0.7, 'beta': 1.3, 'tau_pos': 2.0, 'tau_neg': 1.5, 'tau_plus': 0.1},
    **OF_VIEWS,
  ),
  'captioning': Case(dense.captioning, logits),
  'captioning_streamed': Case(
    dense.captioning_streamed, hidden, malformed={'vocabulary': lambda a: a[:, :-1]}
  ),
  'composition_aware': Case(mean(dense.composition_aware), draw(corrected, scale=5)),
  'composition_aware_per_example': Case(dense.composition_aware, draw(corrected, scale=5)),
  'contrastive_margin': Case(mean(dense.contrastive_margin), labeled, own=True),
  'contrastive_margin_per_example': Case(
    dense.contrastive_margin, mixed_classes, {'negative_margin': 1.2}
  ),
  'cosine': Case(mean(dense.cosine), draw(pairs, names=('prediction', 'target'))),
  'cosine_per_example': Case(dense.cosine, draw(pairs, names=('prediction', 'target'))),
  'count_tokens': Case(lambda labels: jnp.sum(labels != 0), tokens, malformed={'labels': None}),
  'cross_uniformity': Case(dense.cross_uniformity, pairs, {'sharpness': 1.5}),
  'debiased_info_nce': Case(
    mean(dense.debiased_info_nce), draw(pairs, scale=5), {'prior': 0.1, 'beta': 0.0}
  ),
  'debiased_info_nce_per_example': Case(
    dense.debiased_info_nce, draw(repeated, scale=5), {'prior': 0.02, 'beta': 0.5}
  ),
  'decoupled': Case(mean(dense.decoupled), draw(views, scale=5), slow=True, own=True),
  'decoupled_per_example': Case(dense.decoupled, draw(views, scale=5), {'sigma': 0.5}),
  'gram': Case(
    mean(dense.gram), draw(pairs, names=MODALITIES[:2], scale=5), names=MODALITIES[:2], own=True
  ),
  'gram_per_example': Case(
    dense.gram, draw(repeated, names=MODALITIES, scale=5), {'label_smoothing': 0}, MODALITIES
  ),
  'distillation': Case(mean(dense.distillation), scaled),
  'distillation_per_example': Case(dense.distillation, scaled),
  'dynamic_distillation': Case(mean(dense.dynamic_distillation), scaled, {'k': 3}),
  'dynamic_distillation_per_example': Case(dense.dynamic_distillation, scaled, {'k': 5}),
  'groco': Case(mean(dense.groco), several, {'k': 2}, slow=True, **OF_VIEWS),
  'groco_per_example': Case(dense.groco, several, {'k': 3, 'steepness': 3.0}, **OF_VIEWS),
  'hard_contrastive': Case(
    mean(dense.hard_contrastive), draw(views, scale=5), {'hard_fraction': 0.5}, slow=True
  ),
  'hard_contrastive_per_example': Case(
    dense.hard_contrastive, draw(views, scale=5), {'hard_fraction': 0.2}
  ),
  'hard_negative': Case(mean(dense.hard_negative), draw(pairs, scale=5), {'k': 3}, own=True),
  'hard_negative_per_example': Case(dense.hard_negative, draw(repeated, scale=5), {'k': 64}),
  'hpcr': Case(mean(dense.hpcr), proxied, malformed=PROXIES, slow=True),
  'icnn': Case(dense.icnn, quartered),
  'info_nce': Case(mean(dense.info_nce), draw(pairs, scale=5)),
  'info_nce_per_example': Case(dense.info_nce, draw(repeated, scale=5)),
  'mim_contrast': Case(mean(dense.mim_contrast), draw(latents, scale=5), slow=True, **OF_LATENTS),
  'mim_contrast_per_example': Case(dense.mim_contrast, latents, **OF_LATENTS),
  'mim_densities': Case(mean(dense.mim_densities), draw(latents, names=GAUSSIAN), own=True),
  'mim_densities_per_example': Case(
    dense.mim_densities, draw(latents, names=GAUSSIAN), {'divide': 'value'}
  ),
  'mixup_info_nce': Case(mean(dense.mixup_info_nce), draw(mixtures, scale=5)),
  'mixup_info_nce_per_example': Case(dense.mixup_info_nce, draw(mixtures, scale=5)),
  'modular': Case(mean(dense.modular), draw(composed, scale=5), slow=True),
  'modular_per_example': Case(dense.modular, draw(composed, scale=5)),
  'interactive_distillation': Case(
    mean(dense.interactive_distillation), draw(taught, width=8, scale=5), slow=True
  ),
  'interactive_distillation_per_example': Case(
    dense.interactive_distillation, draw(taught, width=8, scale=5)
  ),
  'm_ndcg': Case(dense.m_ndcg, ranked, malformed={'mixed': lambda a: a[:, 1:]}),
  'mrl': Case(dense.mrl, ranked, malformed={'mixed': lambda a: a[:, 1:]}),
  'multi_similarity': Case(mean(dense.multi_similarity), labeled, slow=True, own=True),
  'multi_similarity_per_example': Case(dense.multi_similarity, mixed_classes),
  'mv_dhel': Case(mean(dense.mv_dhel), draw(several, scale=5), **OF_VIEWS),
  'mv_dhel_per_example': Case(dense.mv_dhel, draw(several, scale=5), **OF_VIEWS),
  'mv_info_nce': Case(
    mean(dense.mv_info_nce),
    draw(several, scale=5),
    {'cross_view': True},
    slow=True,
    own=True,
    **OF_VIEWS,
  ),
  'mv_info_nce_per_example': Case(dense.mv_info_nce, draw(several, scale=5), **OF_VIEWS),
  'nt_xent': Case(mean(dense.nt_xent), draw(views, scale=5)),
  'nt_xent_per_example': Case(dense.nt_xent, draw(views, scale=5)),
  'pairwise_nt_xent': Case(dense.pairwise_nt_xent, draw(several, scale=5), slow=True, **OF_VIEWS),
  'patch_errors': Case(dense.patch_errors, patches),
  'patch_ranking': Case(
    dense.patch_ranking, draw(patches, names=('predicted', 'errors'), shape=(6,))
  ),
  'pix_contrast': Case(mean(dense.pix_contrast), draw(pixels, scale=5)),
  'pix_contrast_per_example': Case(dense.pix_contrast, draw(pixels, scale=5)),
  'pixpro': Case(mean(dense.pixpro), pixels),
  'pixpro_per_example': Case(dense.pixpro, pixels),
  'pcr': Case(mean(dense.pcr), proxied, malformed=PROXIES),
  'pcr_per_example': Case(dense.pcr, proxied, malformed=PROXIES),
  'poly_view': Case(dense.poly_view, draw(several, scale=5), slow=True, **OF_VIEWS),
  'proto_triplet': Case(dense.proto_triplet, queried, malformed={'prototypes': lambda a: a[:, 1:]}),
  'restoration': Case(
    dense.restoration, restored, malformed=dict.fromkeys(SIDES, lambda a: a[:, 1:])
  ),
  'proxy_anchor': Case(
    dense.proxy_anchor, mixed_proxied, malformed={'proxies': lambda a: a[:, :-1]}
  ),
  'reweighted_info_nce': Case(mean(dense.reweighted_info_nce), draw(pairs, scale=5), slow=True),
  'reweighted_info_nce_per_example': Case(dense.reweighted_info_nce, draw(repeated, scale=5)),
  'sigmoid': Case(mean(dense.sigmoid), draw(pairs, scale=5, bias=-3)),
  'sigmoid_per_example': Case(dense.sigmoid, draw(repeated, scale=5, bias=-3)),
  'soft_target_info_nce': Case(
    mean(dense.soft_target_info_nce), draw(pairs, scale=5), slow=True, own=True
  ),
  'soft_target_info_nce_per_example': Case(
    dense.soft_target_info_nce, draw(soft, scale=5, target_scale=3), {'alpha': 0.6}
  ),
  'supervised': Case(mean(dense.supervised), classes),
  'supervised_per_example': Case(dense.supervised, classes),
  'supremix': Case(mean(dense.supremix), numbered, {'window': 0}, slow=True, own=True),
  'supremix_per_example': Case(dense.supremix, numbered, {'window': 2}),
  'swapped_assignment': Case(mean(dense.swapped_assignment), with_targets),
  'swapped_assignment_per_example': Case(
    dense.swapped_assignment, with_targets, {'epsilon': 0.2, 'iterations': 2}
  ),
  'swav': Case(mean(dense.swav), clustered, malformed=CLUSTERS, slow=True),
  'swav_per_example': Case(dense.swav, clustered, {'epsilon': 0.2}, malformed=CLUSTERS),
  'teacher_entropy': Case(
    dense.teacher_entropy,
    lambda size: {name: a for name, a in scaled(size).items() if name.startswith('teacher')},
  ),
  'tracks': Case(dense.tracks, tracked),
  'uniformity': Case(dense.uniformity, pairs),
  'vicreg': Case(dense.vicreg, views, {'invariance': 2.0, 'covariance': 3.0}),
  'volume': Case(dense.volume, draw(pairs, names=MODALITIES), names=MODALITIES),
}


def weigh(values):
  """A scalar in which every example has another weight."""
  return jnp.vdot(1 + jnp.cos(jnp.arange(jnp.size(values))), values.astype(float))


def value_and_gradients(function, arguments):
  """The value, and the gradients of a weighted sum by argument, for the floats."""
  floats = {name: a for name, a in arguments.items() if jnp.issubdtype(a.dtype, jnp.floating)}
  fixed = {name: a for name, a in arguments.items() if name not in floats}

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def step(floats, fixed):  # which as constants would be folded while compiling
    value = function(**floats, **fixed)
    return weigh(value), value

  (_, value), gradients = step(floats, fixed)
  return value, gradients


def streamed(name, **options):
  """The loss with the options of its case, and those of `options` that it takes."""
  function = getattr(losses, name)
  known = inspect.signature(function).parameters
  given = {key: value for key, value in options.items() if key in known}
  function = functools.partial(function, **given, **CASES[name].options)
  return by_position(function, CASES[name].names)


def whole(name):
  case = CASES[name]
  return by_position(functools.partial(case.dense, **case.options), case.names)


def test_every_loss_has_a_case():
  assert set(PUBLIC) == set(CASES)


@pytest.mark.parametrize('name', PUBLIC)
def test_there_is_an_example_in_the_docstring(name):
  """Which --doctest-modules runs."""
  function = getattr(losses, name)
  (test,) = doctest.DocTestFinder(recurse=False).find(function, name)
  assert test.examples
  # In this file pytest looks for it.
  assert vars(inspect.getmodule(function))[name] is function


@pytest.mark.parametrize('name', MEANS)
def test_a_mean_hands_all_arguments_to_its_values(name, monkeypatch):
  """So that its gradients are those of the values, which are the dense ones."""
  function, per_example = getattr(losses, name), f'{name}_per_example'
  signature, of_values = map(inspect.signature, (function, getattr(losses, per_example)))
  assert signature.parameters.keys() == of_values.parameters.keys()
  asked = []

  def values(*arguments, **named):
    asked.append(of_values.bind(*arguments, **named).arguments)
    return jnp.array([1.0, 2.0, 6.0])

  monkeypatch.setitem(function.__globals__, per_example, values)
  arguments, named = [], {}
  for key, parameter in signature.parameters.items():
    if parameter.kind is parameter.KEYWORD_ONLY:
      named[key] = object()
    else:
      arguments += [object() for _ in range(1 + (parameter.kind is parameter.VAR_POSITIONAL))]
    assert parameter.default == of_values.parameters[key].default
  assert function(*arguments, **named) == 3
  assert asked == [signature.bind(*arguments, **named).arguments]


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow if name in MEANS and not CASES[name].own else ())
    for name in PUBLIC
    if name in CASES
  ],
)
def test_value_and_gradients_are_the_dense_ones(name):
  """In several blocks, on a ring of eight devices."""
  arguments = CASES[name].draw(16)
  ring = streamed(name, block_size=2, mesh=reference.make_mesh('8'))
  value, gradients = value_and_gradients(ring, arguments)
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda a: a.astype(np.float64) if a.dtype == np.float32 else a, arguments)
    truth, expected = jax.tree.map(np.asarray, value_and_gradients(whole(name), wide))
  reference.assert_near(value, truth)
  jax.tree.map(functools.partial(reference.assert_near, floor=0.01), gradients, expected)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=pytest.mark.slow if CASES[name].slow else ())
    for name in PUBLIC
    if name in CASES and not name.endswith('_per_example')
  ],
)
def test_sums_over_bfloat16_inputs_are_float32(name):
  """At this size a sum in bfloat16 stops growing at a fraction of its terms."""
  rounded = {
    key: a.astype(jnp.bfloat16) if a.dtype == np.float32 and np.ndim(a) else a
    for key, a in CASES[name].draw(1024).items()
  }
  value, gradients = value_and_gradients(streamed(name), rounded)
  single = {
    key: a.astype(jnp.float32) if a.dtype == jnp.bfloat16 else a for key, a in rounded.items()
  }
  truth, expected = value_and_gradients(whole(name), single)
  np.testing.assert_allclose(value, truth, rtol=2e-3, atol=1e-3)
  for key, gradient in gradients.items():
    assert gradient.dtype == rounded[key].dtype
    wanted = np.asarray(expected[key])
    error = np.linalg.norm((np.asarray(gradient, np.float32) - wanted).ravel())
    assert error <= 0.01 * np.linalg.norm(wanted.ravel()), key


@pytest.mark.parametrize('name', PUBLIC)
def test_wrong_shapes_are_refused(name):
  arguments = CASES[name].draw(8)
  malformed = {key: lambda a: a[:-1] for key, a in arguments.items() if np.ndim(a)}
  malformed |= CASES[name].malformed
  for key, change in malformed.items():
    if change is not None:
      with pytest.raises(ValueError, match=r'\('):  # it tells the shapes
        streamed(name)(**arguments | {key: change(arguments[key])})
