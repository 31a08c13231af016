"""Distillation from a teacher: MobileCLIP's loss, and the terms of CLIP-KD."""

import dataclasses
import operator
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contrastive_jax import losses
from contrastive_jax.methods.method import Method, Result, Sizes
from contrastive_jax.models import transformer
from contrastive_jax.models.heads import define_head, define_scale, head_flops

_SIDES = ('image', 'text')
_TAUGHT = ('teacher.image', 'teacher.text')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distill(Method):
  """MobileCLIP's loss [1]: CLIP and the distillation of a teacher's softmax, summed over texts.

      L = Σₖ ( contrastive · InfoNCE(image, textₖ) + logits · distillation(image, textₖ) )

  The texts are the `config.texts` of an example. [1] has two, the caption and a synthetic one:
  `config.data.captions = ('caption', 'synthetic')`, by the names of the fields. The teacher is
  `config.teacher`, of any architecture: its similarities are those of its own embeddings of the
  same view and texts. A table from `contrastive_jax.reinforce` holds the embeddings of several
  teachers, whose softmaxes are averaged. `divergence` is the Kullback-Leibler divergence, which is
  0 where the student's softmax is the teacher's.

  The weights are those of apple/ml-mobileclip (training/configs and open_clip_v2.patch) for
  DataCompDR-12M and the small models; MobileCLIP-B has 0.25 and 0.75 on a billion pairs.

  Attributes:
    contrastive: weight of InfoNCE.
    logits: weight of the distillation, see `losses.distillation`.
    teacher_scale: inverse temperature of the teacher, or of each of several; None for the learned
      one. [1] has 100 for both teachers, and later 70 and 60.
    mesh: the mesh over which the batch is sharded; None for one device.

  References:
    [1] Vasu et al., https://arxiv.org/abs/2311.17049
  """

  contrastive: float = 0.0
  logits: float = 1.0
  teacher_scale: float | tuple[float, ...] | None = None
  mesh: jax.sharding.Mesh | None = None

  several_teachers = True

  def __post_init__(self):
    if not (self.contrastive or self.logits):
      raise ValueError('contrastive = logits = 0 leaves no term; give one of them a weight')
    if self.teacher_scale is not None and not np.all(np.asarray(self.teacher_scale) > 0):
      raise ValueError(f'teacher_scale = {self.teacher_scale}; use numbers over 0, or None')

  @property
  def reads(self) -> tuple[str, ...]:
    """The pair and further texts, as the student and the teacher encode them."""
    taught = () if self.teacher_scale else ('teacher.scale',)
    texts = 'texts?', 'texts_same?', 'teacher.texts?'
    return (*_SIDES, 'scale', 'same?', *_TAUGHT, *texts, *taught)

  def loss(self, inputs, heads, memory, key):
    """Both terms, summed over the texts."""
    image, teacher, scale = inputs['image'], inputs['teacher.image'], self.teacher_scale
    own = {'scale': inputs['scale']}
    # A list is what a config read from JSON has.
    given: Any = scale if scale is None or np.isscalar(scale) else tuple(np.asarray(scale).tolist())
    aim: dict[str, Any] = {'teacher_scale': given or inputs['teacher.scale']}
    contrastive = logits = least = jnp.zeros(())
    for text, taught, same in _each_text(inputs):
      options: dict[str, Any] = {'same': same, 'mesh': self.mesh}
      if self.contrastive:
        contrastive += losses.info_nce(image, text, **own, **options)
      if self.logits:
        logits += losses.distillation(image, text, teacher, taught, **own, **aim, **options)
        least += losses.teacher_entropy(teacher, taught, **aim, **options)
    metrics = {'contrastive': contrastive} if self.contrastive else {}
    metrics |= {'logits': logits, 'divergence': logits - least} if self.logits else {}
    return Result(self.contrastive * contrastive + self.logits * logits, metrics=metrics)

  def flops(self, sizes):
    """The products of the student and of the teacher per text, without those of the metric."""
    of_student = 4 * bool(self.contrastive) + 7 * bool(self.logits)
    widths = of_student * sizes.embed + 2 * bool(self.logits) * sizes.teacher
    return 2.0 * sizes.texts * sizes.batch**2 * widths


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipKd(Method):
  """The terms of CLIP-KD [1] between a student's embeddings and a teacher's, beside `Distill`.

      L = features · meanᵢ( ‖ f(imageᵢ) − uᵢ ‖² + ‖ g(textᵢ) − vᵢ ‖² )
        + interactive · interactive_distillation(f(image), g(text), u, v)

  where u and v are the teacher's images and texts, and f and g unit vectors: of linear maps to the
  teacher's width where it is another. The scale of the second term is learned. [1] adds CLIP and
  the distillation of the softmax, both with a weight of 1, that is `distill` with
  `contrastive = 1`.

  The defaults are those of winycg/CLIP-KD (src/open_clip/loss.py and script/), whose mean squared
  error is also one over D = 512: a weight of 2,000 there is 3.9 here. Its second term is multiplied
  by the logarithm of the learned scale; here by the scale.

  Attributes:
    features: weight of the squared distance, from 0 to 4 per modality.
    interactive: weight of the contrast, see `losses.interactive_distillation`.
    scale: its inverse temperature at the start.
    mesh: the mesh over which the batch is sharded; None for one device.

  References:
    [1] Yang et al., https://arxiv.org/abs/2307.12732
  """

  features: float = 3.9
  interactive: float = 1.0
  scale: float = 1 / 0.07
  mesh: jax.sharding.Mesh | None = None

  @property
  def reads(self) -> tuple[str, ...]:
    """The pair, as the student and the teacher encode it."""
    return (*_SIDES, 'same?', *_TAUGHT)

  def heads(self, sizes):
    """The linear maps, where the widths differ, and the scale of the contrast."""
    made = {'scale': define_scale(self.scale)}
    if _differ(sizes):
      made |= {f'{side}_projector': define_head(sizes.embed, (), sizes.teacher) for side in _SIDES}
    return made

  def loss(self, inputs, heads, memory, key):
    """Both terms."""
    mapped = {}
    for side in _SIDES:
      projector = heads.get(f'{side}_projector')
      own = inputs[side]
      mapped[side] = own if projector is None else transformer.unit(projector(own))
    aims = [inputs[name] for name in _TAUGHT]
    image, text = mapped.values()
    apart = losses.cosine(image, aims[0]) + losses.cosine(text, aims[1])
    options: dict[str, Any] = {'scale': heads['scale'](), 'same': inputs.get('same')}
    contrast = losses.interactive_distillation(image, text, *aims, **options, mesh=self.mesh)
    metrics = {'features': apart, 'interactive': contrast}
    return Result(self.features * apart + self.interactive * contrast, metrics=metrics)

  def flops(self, sizes):
    """The products of both contrasts, and the linear maps."""
    maps = 2 * head_flops(sizes.embed, (), sizes.teacher, sizes.batch) * _differ(sizes)
    # A log-sum-exp makes three products, as its columns have no gradient.
    return 12.0 * sizes.batch**2 * sizes.teacher + maps


def _differ(sizes: Sizes) -> bool:
  return sizes.embed != sizes.teacher


def _each_text(inputs: Mapping[str, Any]) -> Iterator[tuple[Any, Any, Any]]:
  """Each text by the student and by the teacher, and which captions are the same.

  Embeddings are [B, D]; of several teachers, tuples of these.
  """
  if (texts := inputs.get('texts')) is None:
    yield inputs['text'], inputs['teacher.text'], inputs.get('same')
    return
  same = inputs.get('texts_same')
  for number in range(texts.shape[1]):
    taught = jax.tree.map(operator.itemgetter(np.s_[:, number]), inputs['teacher.texts'])
    yield texts[:, number], taught, inputs.get('same') if same is None else same[:, number]
