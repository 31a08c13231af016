"""Every name that `config.objective` takes: a line per method."""

from collections.abc import Callable
from typing import Any

from contrastive_jax import losses
from contrastive_jax.methods.absolute_error import AbsoluteError
from contrastive_jax.methods.amcl import Amcl
from contrastive_jax.methods.amcl_barlow import AmclBarlow
from contrastive_jax.methods.amcl_moco import AmclMoCo
from contrastive_jax.methods.barlip import BarLip
from contrastive_jax.methods.barlow_twins import BarlowTwins
from contrastive_jax.methods.byol import Byol
from contrastive_jax.methods.byolip import ByoLip, SiamLip
from contrastive_jax.methods.cacr import CacrMoCo
from contrastive_jax.methods.cmim import Cmim
from contrastive_jax.methods.dino import Dino
from contrastive_jax.methods.distill import ClipKd, Distill
from contrastive_jax.methods.gram import Gram
from contrastive_jax.methods.groco import GroCo
from contrastive_jax.methods.hpm import Hpm
from contrastive_jax.methods.interclr import InterClr
from contrastive_jax.methods.isogclr import ISogClr
from contrastive_jax.methods.lift import of_views, stateless, streamed
from contrastive_jax.methods.m3col import M3CoL
from contrastive_jax.methods.mae import Mae
from contrastive_jax.methods.method import Method
from contrastive_jax.methods.moco import MoCo
from contrastive_jax.methods.nnclr import NnClr
from contrastive_jax.methods.pix_contrast import PixContrast
from contrastive_jax.methods.pixpro import PixPro
from contrastive_jax.methods.pretext import Pretext
from contrastive_jax.methods.rocket import Rocket
from contrastive_jax.methods.self_distillation import MaskedPrediction, SelfDistillation
from contrastive_jax.methods.simsiam import SimSiam
from contrastive_jax.methods.slip import Slip
from contrastive_jax.methods.sogclr import SogClr
from contrastive_jax.methods.supremix import SupReMix
from contrastive_jax.methods.swalip import SwaLip
from contrastive_jax.methods.swav import Swav
from contrastive_jax.methods.vicreg import VicReg

_PAIR: dict[str, Any] = {'image': 'first', 'text': 'second'}
_SCALED: dict[str, Any] = _PAIR | {'scale': 'scale', 'same': 'same?'}
_TAUGHT: dict[str, Any] = {
  'teacher_image': 'teacher.image',
  'teacher_text': 'teacher.text',
  'teacher_scale': 'teacher.scale',
  'teacher_bias': 'teacher.bias?',
}
_VIEWS: dict[str, Any] = {'first': 'view.0', 'second': 'view.1', 'scale': 'scale'}
_SEVERAL: dict[str, Any] = {'views': 'views:2', 'scale': 'scale'}
_NEGATIVES: dict[str, Any] = {
  'image': 'image',
  'negatives': 'negatives:1',
  'valid': 'negative_valid?',
  'scale': 'scale',
}
_LABELED: dict[str, Any] = {'embeddings': 'first', 'classes': 'labels'}
_TOKENS: dict[str, Any] = {'labels': 'next_tokens', 'count': losses.count_tokens}

# (mesh=None, **options) -> Method, by name.
METHODS: dict[str, Callable[..., Method]] = {
  'absolute_error': AbsoluteError,
  'alignment': stateless(losses.alignment, **_PAIR),
  'amcl': Amcl,
  'amcl_barlow': AmclBarlow,
  'amcl_moco': AmclMoCo,
  'averaged_nt_xent': stateless(
    losses.averaged_nt_xent, flops=of_views(lambda V: 12 * V), **_SEVERAL
  ),
  'barlip': BarLip,
  'barlow_twins': BarlowTwins,
  'byol': Byol,
  'byolip': ByoLip,
  'cacr': stateless(losses.cacr, views='views:2', flops=of_views(lambda V: 2 * V * (V - 1))),
  'cacr_moco': CacrMoCo,
  'captioning': stateless(losses.captioning, logits='caption_logits', **_TOKENS),
  'captioning_streamed': stateless(
    losses.captioning_streamed,
    hidden='hidden',
    vocabulary='vocabulary',
    flops=lambda sizes, **_: 8.0 * sizes.batch * sizes.tokens * sizes.vocabulary * sizes.hidden,
    **_TOKENS,
  ),
  'clip_kd': ClipKd,
  'cmim': Cmim,
  'composition_aware': stateless(
    losses.composition_aware, text='text', same='same?', flops=streamed(), **_NEGATIVES
  ),
  'contrastive_margin': stateless(losses.contrastive_margin, flops=streamed(), **_LABELED),
  'cosine': stateless(losses.cosine, prediction='first', target='second'),
  'cross_uniformity': stateless(losses.cross_uniformity, flops=streamed(), **_PAIR),
  'debiased_info_nce': stateless(losses.debiased_info_nce, flops=streamed(), **_SCALED),
  'decoupled': stateless(
    losses.decoupled, first='first', second='second', scale='scale', flops=streamed(12)
  ),
  'dino': Dino,
  'distill': Distill,
  'dynamic_distillation': stateless(
    losses.dynamic_distillation,
    image='image',
    text='text',
    scale='scale',
    bias='bias?',
    same='same?',
    flops=lambda sizes, **_: 2.0 * sizes.batch**2 * sizes.teacher,
    **_TAUGHT,
  ),
  'gram': Gram,
  'groco': GroCo,
  'hard_contrastive': stateless(losses.hard_contrastive, flops=streamed(32), **_VIEWS),
  'hard_negative': stateless(
    losses.hard_negative,
    flops=lambda sizes, hard_fraction=None, **_: streamed(16 if hard_fraction else 6)(sizes),
    **_SCALED,
  ),
  'icnn': stateless(losses.icnn, embeddings='first', classes='labels', flops=streamed(2)),
  'hpm': Hpm,
  'info_nce': stateless(losses.info_nce, flops=streamed(), **_SCALED),
  'interclr': InterClr,
  'isogclr': ISogClr,
  'm3col': M3CoL,
  'mae': Mae,
  'masked_prediction': MaskedPrediction,
  'moco': MoCo,
  'modular': stateless(
    losses.modular,
    texts='texts:2',
    same='texts_same?',
    flops=lambda sizes, **_: sizes.texts * streamed()(sizes),
    **_NEGATIVES,
  ),
  'multi_similarity': stateless(
    losses.multi_similarity,
    flops=lambda sizes, mining=0.1, **_: streamed(8 if mining is None else 10)(sizes),
    **_LABELED,
  ),
  'mv_dhel': stateless(losses.mv_dhel, flops=of_views(lambda V: 4 * V), **_SEVERAL),
  'mv_info_nce': stateless(losses.mv_info_nce, flops=of_views(lambda V: 4 * V**2), **_SEVERAL),
  'nnclr': NnClr,
  'nt_xent': stateless(losses.nt_xent, flops=streamed(12), **_VIEWS),
  'pairwise_nt_xent': stateless(
    losses.pairwise_nt_xent, flops=of_views(lambda V: 6 * V * (V - 1)), **_SEVERAL
  ),
  'pix_contrast': PixContrast,
  'pixpro': PixPro,
  'poly_view': stateless(losses.poly_view, flops=of_views(lambda V: 4 * V**2), **_SEVERAL),
  'pretext': Pretext,
  'reweighted_info_nce': stateless(
    losses.reweighted_info_nce, flops=streamed(), step='step', **_SCALED
  ),
  'self_distillation': SelfDistillation,
  'rocket': Rocket,
  'siamlip': SiamLip,
  'sigmoid': stateless(losses.sigmoid, flops=streamed(), bias='bias', **_SCALED),
  'simsiam': SimSiam,
  'slip': Slip,
  'soft_target_info_nce': stateless(losses.soft_target_info_nce, flops=streamed(9), **_SCALED),
  'sogclr': SogClr,
  'supervised': stateless(
    losses.supervised, embeddings='first', classes='labels', scale='scale', flops=streamed(7)
  ),
  'supremix': SupReMix,
  'swalip': SwaLip,
  'swav': Swav,
  'uniformity': stateless(losses.uniformity, flops=streamed(8), **_PAIR),
  'vicreg': VicReg,
}


def names() -> list[str]:
  """Every name that `config.objective` takes."""
  return sorted(METHODS)
